"""Checks which owners and modes of a private file are accepted, from the view of another user than root."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lessor_server.adapters.private_file import NotPrivate, read_private

USER = GROUP = 61_234
PRIVATE, REFUSED, FAILED = 0, 1, 2

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that every user may enter, unlike ``tmp_path``."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def read_as_user(path: Path) -> int:
    """Read a file in a child process that is another user."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(GROUP, GROUP, GROUP)
            os.setresuid(USER, USER, USER)
            read_private(path)
            os._exit(PRIVATE)
        except NotPrivate:
            os._exit(REFUSED)
        except BaseException:  # noqa: BLE001 - nothing may leave the child
            os._exit(FAILED)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    ("owner", "mode", "end"),
    [
        (USER, 0o600, PRIVATE),
        (USER, 0o400, PRIVATE),  # a credential of systemd
        (0, 0o440, PRIVATE),  # a Secret of Kubernetes, and a credential of systemd with an ACL
        (USER, 0o440, REFUSED),
        (0, 0o444, REFUSED),
        (0, 0o460, REFUSED),
        (USER + 1, 0o440, REFUSED),
    ],
)
def test_a_group_may_read_only_what_root_gives_it(folder: Path, owner: int, mode: int, end: int) -> None:
    path = folder / "key"
    path.write_bytes(bytes(32))
    os.chown(path, owner, GROUP)
    path.chmod(mode)
    assert read_as_user(path) == end


def test_a_file_of_the_server_s_own_is_private_also_from_its_group(folder: Path) -> None:
    """Also if the server runs as root."""
    path = folder / "key"
    path.write_bytes(bytes(32))
    path.chmod(0o640)
    with pytest.raises(NotPrivate, match="open to others"):
        read_private(path)
