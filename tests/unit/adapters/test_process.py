"""Checks, in a process each, how a server protects its memory before it reads a secret."""

from __future__ import annotations

import subprocess
import sys

import pytest

_REPORT = """
import ctypes, os, resource
from lessor_server.adapters.process import protect_process
protect_process()
mask = os.umask(0)
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE), oct(mask))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_the_process_is_not_dumpable_and_its_files_are_private() -> None:
    done = subprocess.run([sys.executable, "-c", _REPORT], capture_output=True, text=True, check=True)
    assert done.stdout == "0 (0, 0) 0o77\n"
