"""What a server does for itself before it reads a secret; each in a process of its own."""

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
def test_the_process_is_not_dumped_or_traced_and_its_files_are_its_owner_s() -> None:
    """Neither a core file nor another process of the same user shows its memory (PR_GET_DUMPABLE is 3)."""
    done = subprocess.run([sys.executable, "-c", _REPORT], capture_output=True, text=True, check=True)
    assert done.stdout == "0 (0, 0) 0o77\n"
