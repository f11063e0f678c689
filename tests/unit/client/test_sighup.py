"""Checks that SIGHUP before the imports of a server is ignored, and that it ends all other commands."""

from __future__ import annotations

import subprocess
import sys

import pytest

STATE = "import signal; print(signal.getsignal(signal.SIGHUP).name)"
RESET = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
BEFORE_CLICK = """
import sys
sys.modules["click"] = None
try:
    import lessor.cli.main
except ImportError:
    pass
"""
HELP = "from lessor.cli.main import run; run(['role', 'get', '--help'])\n"


def state(code: str, *arguments: str) -> str:
    """Return what SIGHUP does after the code, in a process with these arguments."""
    line = [sys.executable, "-c", RESET + code + STATE, *arguments]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    return ended.stdout.splitlines()[-1]


@pytest.mark.parametrize("arguments", [("server",), ("--timeout", "5s", "dev")])
def test_sighup_is_ignored_before_the_imports_of_a_server(arguments: tuple[str, ...]) -> None:
    assert state(BEFORE_CLICK, *arguments) == "SIG_IGN"


@pytest.mark.parametrize("arguments", [("role", "get", "server"), ("role", "get", "app")])
def test_sighup_ends_other_commands(arguments: tuple[str, ...]) -> None:
    """Also one that has the word `server` among its arguments."""
    assert state(HELP, *arguments) == "SIG_DFL"
