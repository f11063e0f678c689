"""Checks that a signal which arrives as the child ends does not lose its exit code."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from lessor.leasing.child import Signals, start_child


@pytest.mark.asyncio
async def test_a_signal_to_a_child_that_has_just_ended_leaves_its_exit_code() -> None:
    signals = Signals()
    for _ in range(20):
        child = await start_child(["sh", "-c", "exit 3"], os.environ)
        with signals.handled(), signals.passed_to(child):
            while child.returncode is None:
                signal.raise_signal(signal.SIGWINCH)
                await asyncio.sleep(0)
            assert await child.wait() == 3
