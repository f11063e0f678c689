"""Starts ``lessor`` commands by a fork of a process that has imported them, in a tenth of the time.

    process = forked(["server"], environment)        # stdin is empty
    process.terminate()
    process.wait(10.0)
    process.output.read()                            # stdout and stderr

    code, out, err = await run_forked(["mounts"], environment, folder, stdin=b"")

A test process has one such parent. It ends with the test process, and so do its children. Tests that need the
kernel's record of a start (``/proc/PID/environ``, ``/proc/PID/cmdline``) spawn a new process instead.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import gc
import importlib
import io
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn

from lessor.cli.main import OWN, run
from tests.support import standin

PRELOADED = (
    *("lessor_server.commands.server", "lessor_server.commands.dev.command"),
    *sorted({f"lessor.cli.{module}" for module in OWN.values()}),
)
STANDIN = "standin"
"""In place of a command of ``lessor``: the stand-in for AWS."""
MAX_REQUEST_BYTES = 1 << 20
MAX_DESCRIPTORS = 256


@dataclass(frozen=True, slots=True)
class Request:
    """The command to run, and whether it leads a session of its own."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    leads: bool
    limits: list[tuple[int, tuple[int, int]]]


class Forked:
    """A forked process; ``output`` has everything that it writes, the rest is as in ``subprocess.Popen``."""

    def __init__(self, pid: int, output: BinaryIO, ended: BinaryIO) -> None:
        """Hold the ends of its pipes; ``ended`` is written to when it has ended."""
        self.pid = pid
        self.output = output
        self.returncode: int | None = None
        self._ended = ended

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("lessor", timeout or 0.0)
            self.returncode = int(self._ended.read())
        return self.returncode


def forked(arguments: Sequence[str], environment: Mapping[str, str]) -> Forked:
    """Run ``lessor`` with these arguments."""
    output, written = os.pipe()
    with Path(os.devnull).open("rb") as nothing, os.fdopen(written, "wb") as both:
        pid, ended = _fork(arguments, environment, Path.cwd(), (nothing, both, both))
    return Forked(pid, os.fdopen(output, "rb", 0), ended)


def forked_at_terminal(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, terminal: int
) -> Forked:
    """Run ``lessor`` in a folder, in a new session, on an open terminal, which is its output too."""
    with os.fdopen(terminal, "rb", 0, closefd=False) as typed:
        pid, ended = _fork(arguments, environment, folder, (typed,) * 3, leads=True)
    return Forked(pid, Path(os.devnull).open("rb", 0), ended)


def forked_standin(arguments: Sequence[str]) -> tuple[Forked, BinaryIO]:
    """Run the stand-in for AWS; return it and the other end of its stdin."""
    (given, typed), (output, written) = os.pipe(), os.pipe()
    with os.fdopen(given, "rb") as theirs, os.fdopen(written, "wb") as shown, os.fdopen(os.dup(2)) as errors:
        pid, ended = _fork([STANDIN, *arguments], os.environ, Path.cwd(), (theirs, shown, errors))
    return Forked(pid, os.fdopen(output, "rb", 0), ended), os.fdopen(typed, "wb")


async def run_forked(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, stdin: bytes
) -> tuple[int, bytes, bytes]:
    """Run ``lessor`` in a folder to its end; return its exit code, stdout and stderr.

    ``stdin`` must fit into a pipe.
    """
    (given, typed), (out, written), (err, complained) = os.pipe(), os.pipe(), os.pipe()
    with os.fdopen(typed, "wb") as keyboard:
        keyboard.write(stdin)
    with os.fdopen(given) as theirs, os.fdopen(written, "wb") as shown, os.fdopen(complained, "wb") as errors:
        pid, ended = _fork(arguments, environment, folder, (theirs, shown, errors))
    process = Forked(pid, os.fdopen(out, "rb", 0), ended)
    with process.output, ended, os.fdopen(err, "rb", 0) as said:
        try:
            async with asyncio.TaskGroup() as reading:
                both = [reading.create_task(asyncio.to_thread(end.read)) for end in (process.output, said)]
            return await asyncio.to_thread(process.wait), both[0].result(), both[1].result()
        finally:
            process.kill()


def _fork(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    streams: tuple[IO[Any], IO[Any], IO[Any]],
    *,
    leads: bool = False,
) -> tuple[int, BinaryIO]:
    """Start a command on its three streams; return its process id and what is written to at its end."""
    ended, told = os.pipe()
    request = Request(list(arguments), dict(environment), str(folder), leads, _limits())
    control = _parent()
    descriptors = [stream.fileno() for stream in streams]
    socket.send_fds(control, [json.dumps(asdict(request)).encode()], [*descriptors, told])
    os.close(told)
    return int(control.recv(16)), os.fdopen(ended, "rb", 0)


def _limits() -> list[tuple[int, tuple[int, int]]]:
    """Return the limits of this process that its children have too."""
    return [(kind, resource.getrlimit(kind)) for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)]


@functools.cache
def _parent() -> socket.socket:
    """Start the process that forks; it ends when this socket is closed."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.forked", str(its.fileno())],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[its.fileno()],
        )  # fmt: skip
    return ours


def fork_on_request(control: socket.socket) -> None:
    """Fork each requested command and report its end, until the socket is closed."""
    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()  # a child collects only what it makes, and shares the pages of the rest
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker)
    ended: dict[int, int] = {}
    asked = control.fileno()
    while True:
        ready, _, _ = select.select([asked, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_of_ends(ended)
        if asked not in ready:
            continue
        request, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 4)
        if not request:
            for pid in ended:
                os.kill(pid, signal.SIGKILL)
            return
        pid = os.fork()
        if not pid:
            _become(Request(**json.loads(request)), descriptors[:3])
        *streams, ended[pid] = descriptors
        for stream in streams:
            os.close(stream)
        control.send(str(pid).encode())


def _tell_of_ends(ended: dict[int, int]) -> None:
    """Write the exit code of every process that has ended."""
    while ended:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        descriptor = ended.pop(pid)
        os.write(descriptor, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(descriptor)


def _become(request: Request, streams: Sequence[int]) -> NoReturn:
    """Run the requested command in the forked process."""
    if request.leads:
        os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for standard, stream in enumerate(streams):
        os.dup2(stream, standard)
    os.closerange(len(streams), MAX_DESCRIPTORS)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    for kind, (soft, hard) in request.limits:
        resource.setrlimit(kind, (soft, hard))
    sys.argv = ["lessor", *request.arguments]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
    if request.arguments[:1] == [STANDIN]:
        del sys.argv[0]
        standin.main()
    code = run(request.arguments)
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)  # to remove each imported module one by one takes longer than a command


if __name__ == "__main__":
    fork_on_request(socket.socket(fileno=int(sys.argv[1])))
