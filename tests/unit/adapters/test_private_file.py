"""Checks which owners and modes of a private file are accepted, from the view of another user than root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.other_user import GROUP, USER, as_other_user, folder_for_all, only_root

from lessor_server.adapters.private_file import NotPrivate, read_private

PRIVATE, REFUSED = 0, 1


@only_root
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
def test_a_group_may_read_only_what_root_gives_it(owner: int, mode: int, end: int) -> None:
    with folder_for_all() as folder:
        path = folder / "key"
        path.write_bytes(bytes(32))
        os.chown(path, owner, GROUP)
        path.chmod(mode)

        def read() -> int:
            try:
                read_private(path)
            except NotPrivate:
                return REFUSED
            return PRIVATE

        assert as_other_user(read) == end


def test_a_file_of_the_server_s_own_is_private_also_from_its_group(tmp_path: Path) -> None:
    """Also if the server runs as root."""
    path = tmp_path / "key"
    path.write_bytes(bytes(32))
    path.chmod(0o640)
    with pytest.raises(NotPrivate, match="open to others"):
        read_private(path)
