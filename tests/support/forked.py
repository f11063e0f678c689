"""Starts ``lessor`` commands by a fork of a process that has imported them, in a tenth of the time.

    process = forked(["server"], environment)        # stdin is empty
    process.terminate()
    process.wait(10.0)
    process.output.read()                            # stdout and stderr

    code, out, err = await run_forked(["mounts"], environment, folder, stdin=b"")

    write_program(folder / "lessor")                  # for a shell: runs what is typed in the same way

All processes of a test run have one such parent, which ends after the last of them. The children of a test
process end with it. Tests that need the kernel's record of a start (``/proc/PID/environ``,
``/proc/PID/cmdline``) spawn a new process instead.
"""

from __future__ import annotations

import ast
import asyncio
import atexit
import fcntl
import functools
import gc
import importlib
import io
import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn

import lessor
from lessor.cli.joined import find_joined
from lessor.cli.main import OWN, run
from lessor_server.adapters.aws.query_protocol import query_service
from lessor_server.adapters.linting import sentry
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
    umask: int | None = None


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


def forked_with_input(
    arguments: Sequence[str], environment: Mapping[str, str], errors: IO[Any]
) -> tuple[Forked, BinaryIO]:
    """Run ``lessor`` with stderr to ``errors``; return it, and the other end of its stdin."""
    (given, typed), (output, written) = os.pipe(), os.pipe()
    with os.fdopen(given, "rb") as theirs, os.fdopen(written, "wb") as shown:
        pid, ended = _fork(arguments, environment, Path.cwd(), (theirs, shown, errors))
    return Forked(pid, os.fdopen(output, "rb", 0), ended), os.fdopen(typed, "wb")


def forked_standin(arguments: Sequence[str]) -> tuple[Forked, BinaryIO]:
    """Run the stand-in for AWS; return it, and the other end of its stdin."""
    with os.fdopen(os.dup(2)) as errors:
        return forked_with_input([STANDIN, *arguments], os.environ, errors)


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
    control, _ = _parent()
    descriptors = [stream.fileno() for stream in streams]
    socket.send_fds(control, [json.dumps(asdict(request)).encode()], [*descriptors, told])
    os.close(told)
    return int(control.recv(16)), os.fdopen(ended, "rb", 0)


def _limits() -> list[tuple[int, tuple[int, int]]]:
    """Return the limits of this process that its children have too."""
    return [(kind, resource.getrlimit(kind)) for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)]


def write_program(path: Path) -> None:
    """Write an executable file that runs its arguments as ``lessor`` does, by a fork.

    It passes on its streams, variables, folder and umask, the signals that a shell sends, and the exit code.
    If it is killed, the command is killed too, a moment later. A command that serves starts as a new process.
    """
    _, listener = _parent()
    real = str(Path(sys.prefix) / "bin" / "lessor")
    names = f"LISTENER, REAL = {str(listener)!r}, {real!r}"
    path.write_text(f"#!{Path(sys.executable).resolve()} -IS\n{names}\n{_PROGRAM}", encoding="utf-8")
    path.chmod(0o755)


_PROGRAM = """
import _signal, _socket, posix, sys

if sys.argv[1:2] in (["server"], ["dev"], ["demo"]):
    posix.execv(REAL, [REAL, *sys.argv[1:]])
control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
control.connect(LISTENER)
posix.umask(mask := posix.umask(0o77))
request = repr((sys.argv[1:], posix.environ, posix.getcwd(), mask)).encode()
descriptors = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
control.sendmsg([request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)])
pid = int(control.recv(16))
for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM):
    _signal.signal(number, lambda number, _: posix.kill(pid, number))
code = int(control.recv(16))
if code < 0:
    _signal.signal(-code, _signal.SIG_DFL)
    posix.kill(posix.getpid(), -code)
posix._exit(code)
"""
"""Imports only what is built in: it starts in a tenth of the time of a command."""


@functools.cache
def _parent() -> tuple[socket.socket, Path]:
    """Connect to the process that forks, which ends our children when this socket is closed.

    The first process of a test run starts it. Programs connect to the path.
    """
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    folder = Path(tempfile.gettempdir()) / f"lessor-forked-{run}"
    control = _open_socket()
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError), (folder / "lock").open("a") as lock:  # it may be ending
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.samestat(os.fstat(lock.fileno()), (folder / "lock").stat()):
                continue
            if (folder / "tests").exists():
                control.connect(str(folder / "tests"))
            else:
                _start_parent(folder, control)
            atexit.register(control.close)
            return control, folder / "commands"


def _open_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _start_parent(folder: Path, control: socket.socket) -> None:
    """Start the process that forks, connected to ``control``."""
    with _open_socket() as tests, _open_socket() as commands:
        for listener, name in ((tests, "tests"), (commands, "commands")):
            listener.bind(str(folder / name))
            listener.listen()
        control.connect(str(folder / "tests"))
        descriptors = [tests.fileno(), commands.fileno()]
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.forked", *map(str, descriptors)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=descriptors,
        )  # fmt: skip


class Forking:
    """Forks each requested command and reports its end, for all processes of a test run.

    Test processes connect to ``tests``, programs to ``commands``.
    """

    def __init__(self, tests: socket.socket, commands: socket.socket) -> None:
        """Wait for both."""
        self._tests, self._commands = tests, commands
        self._controls: dict[int, socket.socket] = {}
        self._ended: dict[int, int] = {}
        """Where the end of a child is reported."""
        self._owners: dict[int, int] = {}
        """The connection of the test process that asked for a child."""
        self._callers: dict[int, int] = {}
        """The child of the program on a connection."""

    def run(self) -> None:
        """Serve until the last test process has ended."""
        woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker)
        always = (self._tests.fileno(), self._commands.fileno(), woken)
        while True:
            ready, _, _ = select.select([*always, *self._callers, *self._controls], [], [])
            if woken in ready:
                os.read(woken, 4096)
                self._tell_of_ends()
            for descriptor in self._callers.keys() & set(ready):
                os.kill(self._callers.pop(descriptor), signal.SIGKILL)  # its program was killed
            if self._commands.fileno() in ready:
                self._fork_for_program()
            asking = self._controls.keys() & set(ready)
            if self._tests.fileno() in ready:
                control, _ = self._tests.accept()
                self._controls[control.fileno()] = control
            for descriptor in asking:
                if not self._fork_for_test(descriptor) and not self._controls and self._end():
                    return

    def _fork_for_program(self) -> None:
        caller, _ = self._commands.accept()
        if (found := _read_typed(caller)) is not None:
            pid = _fork_one(*found)
            caller.send(str(pid).encode())
            self._ended[pid] = caller.detach()
            self._callers[self._ended[pid]] = pid

    def _fork_for_test(self, descriptor: int) -> bool:
        """Fork what a test process asks for; if that has ended, end its children and return False."""
        control = self._controls[descriptor]
        data, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 4)
        if not data:
            self._controls.pop(descriptor).close()
            for pid in [pid for pid, owner in self._owners.items() if owner == descriptor]:
                del self._owners[pid]
                os.kill(pid, signal.SIGKILL)
            return False
        pid = _fork_one(Request(**json.loads(data)), descriptors[:3])
        self._ended[pid], self._owners[pid] = descriptors[3], descriptor
        control.send(str(pid).encode())
        return True

    def _tell_of_ends(self) -> None:
        """Write the exit code of every process that has ended."""
        while self._ended:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            descriptor = self._ended.pop(pid)
            self._owners.pop(pid, None)
            self._callers.pop(descriptor, None)
            with suppress(BrokenPipeError):  # its program was killed
                os.write(descriptor, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(descriptor)

    def _end(self) -> bool:
        """End all children and remove the sockets; return False if a test process has just connected."""
        folder = Path(self._tests.getsockname()).parent
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if select.select([self._tests], [], [], 0)[0]:
                return False
            for pid in self._ended:
                os.kill(pid, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)
        return True


def fork_on_request(tests: socket.socket, commands: socket.socket) -> None:
    """Import what commands need, and fork each requested command."""
    for module in PRELOADED:
        importlib.import_module(module)
    find_joined("lessor.commands")
    assert lessor.__version__  # reads the metadata of the package
    for service in ("iam", "sts"):
        query_service(service)
    if sentry.installed():
        sentry.load_catalogue()
    gc.freeze()  # a child collects only what it makes, and shares the pages of the rest
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    Forking(tests, commands).run()


def _read_typed(caller: socket.socket) -> tuple[Request, list[int]] | None:
    """Read what a program was called with, and its streams; None if it has ended."""
    data, descriptors, _, _ = socket.recv_fds(caller, MAX_REQUEST_BYTES, 3)
    if not data:
        return None
    arguments, variables, folder, umask = ast.literal_eval(data.decode())
    environment = {os.fsdecode(name): os.fsdecode(value) for name, value in variables.items()}
    return Request(arguments, environment, folder, leads=False, limits=[], umask=umask), descriptors


def _fork_one(request: Request, streams: Sequence[int]) -> int:
    """Run a command in a new process on its three streams; return its id."""
    pid = os.fork()
    if not pid:
        _become(request, streams)
    for stream in streams:
        os.close(stream)
    return pid


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
    if request.umask is not None:
        os.umask(request.umask)
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
    fork_on_request(*(socket.socket(fileno=int(descriptor)) for descriptor in sys.argv[1:]))
