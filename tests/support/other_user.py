"""Runs a function as another user than root, in a child process; only root can do that."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER = GROUP = 61_234
FAILED = 99

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """Yield a new folder that every user may enter, unlike pytest's."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def as_other_user(work: Callable[[], int]) -> int:
    """Return what ``work`` returns in a process of that user, from 0 to 98; 99 if it raises."""
    child = os.fork()
    if child == 0:
        code = FAILED
        try:
            os.setgroups([])
            os.setresgid(GROUP, GROUP, GROUP)
            os.setresuid(USER, USER, USER)
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
