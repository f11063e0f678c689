"""Checks that a file read that never returns blocks neither its caller nor the end of the process."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from tests.support.virtual_loop import virtual

from lessor_server.adapters.file_reads import READ_SECONDS, FileReads, ReadTimedOut

HANGS = """
import asyncio, threading
from lessor_server.adapters.file_reads import FileReads, ReadTimedOut

async def main():
    try:
        await FileReads(0.01).run("file", threading.Event().wait)
    except ReadTimedOut as error:
        print(error)

asyncio.run(main())
"""


async def test_a_read_returns_or_raises_what_it_does() -> None:
    reads = FileReads()
    assert await reads.run("file", lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await reads.run("file", lambda: 1 // 0)
    assert await reads.run("file", lambda: 8) == 8


@virtual
async def test_a_read_that_hangs_is_not_started_again_and_holds_up_no_other() -> None:
    reads, released, started = FileReads(), threading.Event(), []

    def hang() -> None:
        started.append("read")
        released.wait()

    for _ in range(3):
        with pytest.raises(ReadTimedOut, match=f"within {READ_SECONDS:g} s"):
            await reads.run("file", hang)
    released.set()
    assert started == ["read"]


def test_a_read_that_hangs_does_not_keep_the_process_from_ending() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "the read has not ended within 0.01 s\n"
