"""Runs the command line at a terminal: a new pty with a width, and input that is typed."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import struct
import termios
from collections.abc import Mapping
from fcntl import ioctl
from pathlib import Path

from tests.support.command_line import Done
from tests.support.forked import forked_at_terminal
from tests.support.server_process import bare_environment

SECONDS = 60.0
_STYLE = re.compile(r"\x1b\[[0-9;]*[mK]")


async def at_terminal(
    *arguments: str, folder: Path, environment: Mapping[str, str], typed: str = "", columns: int = 80
) -> Done:
    """Run a command to its end; all that the terminal showed is ``out``, without colours."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {**bare_environment(), **environment, "TERM": "xterm"}
    env.pop("COLUMNS", None)
    process = forked_at_terminal(arguments, env, folder, slave)
    os.close(slave)
    os.write(master, typed.encode())
    try:
        async with asyncio.timeout(SECONDS):
            shown = await asyncio.to_thread(_read, master)
            code = await asyncio.to_thread(process.wait)
    finally:
        os.close(master)
        process.kill()
    return Done(code, _STYLE.sub("", shown.decode()).replace("\r\n", "\n"), "")


def _read(master: int) -> bytes:
    """Read until nobody has the terminal open any more, which Linux answers with EIO."""
    shown = b""
    while True:
        try:
            some = os.read(master, 65536)
        except OSError:
            return shown
        if not some:
            return shown
        shown += some
