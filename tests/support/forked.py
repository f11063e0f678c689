"""Starts ``lessor`` commands by a fork of a process that has imported them, in a tenth of the time.

    process = forked(["server"], environment)        # stdin is empty
    process.terminate()
    process.wait(10.0)
    process.output.read()                            # stdout and stderr

A test process has one such parent. It ends with the test process, and so do its children. Tests that need the
kernel's record of a start (``/proc/PID/environ``, ``/proc/PID/cmdline``) spawn a new process instead.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from lessor.cli.main import main as lessor

PRELOADED = ("lessor_server.commands.server", "lessor_server.commands.dev.command")
MAX_REQUEST_BYTES = 1 << 20
MAX_DESCRIPTORS = 256


@dataclass(frozen=True, slots=True)
class Request:
    """The command to run."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
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
    ended, told = os.pipe()
    request = Request(list(arguments), dict(environment), str(Path.cwd()), _limits())
    control = _parent()
    socket.send_fds(control, [json.dumps(asdict(request)).encode()], [written, told])
    os.close(written)
    os.close(told)
    return Forked(int(control.recv(16)), os.fdopen(output, "rb", 0), os.fdopen(ended, "rb", 0))


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


def main(control: socket.socket) -> None:
    """Fork each requested command and report its end, until the socket is closed."""
    for module in PRELOADED:
        importlib.import_module(module)
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
        request, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 2)
        if not request:
            for pid in ended:
                os.kill(pid, signal.SIGKILL)
            return
        pid = os.fork()
        if not pid:
            _become(Request(**json.loads(request)), descriptors[0])
        os.close(descriptors[0])
        ended[pid] = descriptors[1]
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


def _become(request: Request, output: int) -> NoReturn:
    """Run the requested command in the forked process."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    os.closerange(sys.stderr.fileno() + 1, MAX_DESCRIPTORS)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    for kind, (soft, hard) in request.limits:
        resource.setrlimit(kind, (soft, hard))
    sys.argv = ["lessor", *request.arguments]
    lessor()


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
