"""Runs a program, passes signals to it, and returns its exit code. It is never killed: it is waited for."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

NOT_EXECUTABLE, NOT_FOUND, SIGNALLED = 126, 127, 128
"""Exit codes of a shell (POSIX, "Shell Command Language", 2.8.2); a signal adds its number to the last."""
PASSED: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGWINCH,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
FROM_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT)
"""Signals that a terminal sends to the child too, which must not get them twice: many programs end
without cleaning up at the second."""


class NotStarted(Exception):
    """The program could not be started."""

    def __init__(self, message: str, exit_code: int) -> None:
        """Keep the exit code that a shell would return."""
        super().__init__(message)
        self.exit_code = exit_code


class Signals:
    """The signals of this process: kept before the child runs, passed to it while it runs."""

    def __init__(self) -> None:
        """Begin without a child."""
        self.ended_by: int = 0
        """The first signal that asked for the end, 0 if none did."""
        self._child: Process | None = None
        self._on_end: Callable[[], object] | None = None
        self._on_interrupt: Callable[[], object] | None = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals during the block; ignored ones stay ignored, as nohup(1) wants."""
        loop = asyncio.get_running_loop()
        before = {one: signal.getsignal(one) for one in PASSED}
        taken = [one for one, handler in before.items() if handler is not signal.SIG_IGN]
        for one in taken:
            loop.add_signal_handler(one, self._receive, one)
        try:
            yield
        finally:
            for one in taken:
                loop.remove_signal_handler(one)
                signal.signal(one, before[one])

    @contextmanager
    def hastens(self, hurry: Callable[[], object]) -> Iterator[None]:
        """Call ``hurry`` if the user interrupts the block; other signals don't shorten it."""
        self._on_interrupt = hurry
        try:
            yield
        finally:
            self._on_interrupt = None

    @contextmanager
    def ends(self, end: Callable[[], object]) -> Iterator[None]:
        """Call ``end`` if a signal asks for the end during the block, or did so before."""
        self._on_end = end
        try:
            if self.ended_by:
                end()
            yield
        finally:
            self._on_end = None

    @contextmanager
    def passed_to(self, child: Process) -> Iterator[None]:
        """Pass signals to ``child`` during the block, and one that arrived while it started."""
        self._child = child
        if self.ended_by:
            self._pass(child, signal.Signals(self.ended_by))
        try:
            yield
        finally:
            self._child = None

    def _receive(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._pass(self._child, number)
        elif self._on_interrupt is not None:
            if number in FROM_TERMINAL:
                self._on_interrupt()
        elif number in ENDING:
            self.ended_by = self.ended_by or number
            if self._on_end is not None:
                self._on_end()

    def _pass(self, child: Process, number: signal.Signals) -> None:
        in_foreground = is_in_foreground()
        if not (number in FROM_TERMINAL and in_foreground) and child.returncode is None:
            # ``child.send_signal`` would poll first: it may collect the exit code of a child that has just
            # ended, and asyncio then reports 255.
            with suppress(ProcessLookupError):
                os.kill(child.pid, number)
        if number == signal.SIGTSTP and in_foreground is not None:
            # The shell that waits for this process gets its terminal back.
            os.kill(os.getpid(), signal.SIGSTOP)


def is_in_foreground() -> bool | None:
    """Return whether this process belongs to the foreground of its terminal; None if it has no terminal."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return None
    finally:
        os.close(descriptor)


async def start_child(words: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Start a program with the terminal and the files of this process.

    Raises:
        NotStarted: It does not exist or can't be executed.
    """
    try:
        return await asyncio.create_subprocess_exec(*words, env=dict(environment))
    except FileNotFoundError:
        raise _not_found(words[0]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise NotStarted(f"{words[0]} can't be executed: {reason}", NOT_EXECUTABLE) from None


def _not_found(program: str) -> NotStarted:
    """Return the error of a program that the system has not found, or whose interpreter it has not found."""
    if Path(program).exists():
        text = f"{program} can't be executed: the program that its first line names is missing"
        return NotStarted(text, NOT_FOUND)
    return NotStarted(f"{program}: no such command; check its name and PATH", NOT_FOUND)


def exit_code_of(returned: int) -> int:
    """Return the exit code of a shell for a child that ended; asyncio returns signals as negative numbers."""
    return SIGNALLED - returned if returned < 0 else returned
