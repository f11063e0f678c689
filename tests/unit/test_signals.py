"""Checks that SIGINT works in the processes of tests, also when the suite runs in the background."""

from __future__ import annotations

import subprocess
import sys

import pytest

_CHILD = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
_PARENT = """
import subprocess, sys
from tests.support.signals import restore_signals
restore_signals()
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""


@pytest.mark.parametrize("shell", ["trap '' INT; ", ""])
def test_processes_of_tests_do_not_ignore_sigint(shell: str) -> None:
    words = ["sh", "-c", shell + 'exec "$0" -c "$1" "$2"', sys.executable, _PARENT, _CHILD]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
