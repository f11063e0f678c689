"""``lessor server --workers``: a supervisor of several servers that listen on the same ports.

The kernel divides new connections among the workers (socket(7), SO_REUSEPORT). The supervisor keeps the ports
for them, and a lock for each address: otherwise another set of workers could join a port without an error. It
starts workers as new processes, never by a fork; restarts one that ends; and ends all together.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

from structlog.typing import FilteringBoundLogger

from lessor_server.adapters.metrics.listener import HttpListener
from lessor_server.adapters.metrics.workers import WorkerPages
from lessor_server.adapters.process import protect_process
from lessor_server.adapters.service_manager import READY as MANAGER_READY
from lessor_server.adapters.service_manager import STOPPING, ServiceManager
from lessor_server.commands.worker import READY, WorkerPlace
from lessor_server.domain.errors.base import LessorError
from lessor_server.grpc_server import PortTaken
from lessor_server.settings.model import Settings
from lessor_server.settings.parsers import Address, Listener

MAX_WORKERS: Final = 64
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, CALM_SECONDS = 1.0, 30.0, 60.0
"""The pause before a worker is started again, doubling while it does not serve for ``CALM_SECONDS``."""
MAX_END_SECONDS: Final = 15.0
"""How long a worker may take to end after its grace, before it is killed."""


class WorkersUnusable(LessorError):
    """The settings do not allow several workers."""

    reason = "WORKERS_UNUSABLE"
    fix = "start without --workers"


def require_shared(settings: Settings, count: int) -> None:
    """Raise ``WorkersUnusable`` unless so many workers can serve with these settings."""
    if not 1 <= count <= MAX_WORKERS:
        raise WorkersUnusable(f"--workers {count} is not from 1 to {MAX_WORKERS}", fix="give another number")
    if not settings.store.is_shared:
        raise WorkersUnusable(
            "several workers need PostgreSQL: a SQLite file has one process",
            fix="set store.url to a PostgreSQL database, or start without --workers",
        )
    path = next((one.address for one in settings.listen if one.address.path), None)
    if path is not None:
        raise WorkersUnusable(
            f"several workers cannot share {path}", fix="give listen only addresses with a port"
        )


@contextmanager
def hold_ports(listeners: Sequence[Listener]) -> Iterator[tuple[int, ...]]:
    """Hold all ports, and a lock for each address, while the block runs; yield the ports.

    Raises:
        PortTaken: An address is in use, or not this machine's.
    """
    with ExitStack() as held:
        yield tuple(_hold(one.address.host, one.address.port, held) for one in listeners)


def _hold(host: str, port: int, held: ExitStack) -> int:
    """Hold one port at all addresses of a host; return it."""
    try:
        found = socket.getaddrinfo(host, port or None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            if port:  # fails if anybody listens there, with SO_REUSEPORT or without
                with socket.socket(family, kind, protocol) as alone:
                    _bind(alone, socket.SO_REUSEADDR, (address[0], port))
            shared = held.enter_context(socket.socket(family, kind, protocol))
            _bind(shared, socket.SO_REUSEPORT, (address[0], port))
            port = shared.getsockname()[1]
    except OSError as error:
        raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    lock = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        lock.bind(f"\0lessor-workers/{host}:{port}")
    except OSError:
        raise PortTaken(f"cannot listen on {host}:{port}: other workers do") from None
    return port


def _bind(sock: socket.socket, option: int, address: tuple[object, int]) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, option, 1)
    sock.bind(address)


@dataclass(slots=True)
class _Worker:
    """One worker's process, if it runs."""

    place: WorkerPlace
    process: Process | None = None
    serves: bool = False

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process runs."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)  # ``send_signal`` may collect the exit code first


@dataclass(slots=True)
class WorkerSupervisor:
    """Keeps workers running until SIGTERM or SIGINT."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    logger: FilteringBoundLogger
    grace_seconds: float
    manager: ServiceManager
    name: str
    """A name that no other supervisor on the machine has."""
    _workers: list[_Worker] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _failed: int = 0
    _served: bool = False

    async def run(self, count: int, ports: tuple[int, ...]) -> int:
        """Run ``count`` workers; return the exit code: that of the first worker if it never served."""
        protect_process()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        self._workers = [_Worker(WorkerPlace(number, ports, self.name)) for number in range(1, count + 1)]
        async with asyncio.TaskGroup() as group:
            first, *others = self._workers
            served = asyncio.Event()
            group.create_task(self._keep(first, served))
            await served.wait()  # one process migrates and reports what is wrong
            for worker in others:
                if not self._stop.is_set():
                    group.create_task(self._keep(worker, asyncio.Event()))
        self.logger.info("workers_stopped", workers=count)
        return self._failed

    def serving(self) -> list[int]:
        """Return the numbers of the workers that serve; none when all are being ended."""
        return [] if self._stop.is_set() else [one.place.number for one in self._workers if one.serves]

    def _end(self) -> None:
        """End all workers."""
        self._stop.set()
        self.manager.report(STOPPING)
        for worker in self._workers:
            worker.send(signal.SIGTERM)

    def _hang_up(self) -> None:
        for worker in self._workers:
            worker.send(signal.SIGHUP)

    async def _keep(self, worker: _Worker, served: asyncio.Event) -> None:
        """Run one worker, and start it again when it ends; set ``served`` when it serves or all stop."""
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_SECONDS
        try:
            while not self._stop.is_set():
                began = loop.time()
                code = await self._run_once(worker, served)
                if self._stop.is_set():
                    self._failed = self._failed or code
                elif not self._served:
                    self._failed = code or 1
                    self._end()
                else:
                    self.logger.error("worker_ended", worker=worker.place.number, code=code)
                    pause = FIRST_PAUSE_SECONDS if loop.time() - began > CALM_SECONDS else pause
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._stop.wait()
                    pause = min(pause * 2, MAX_PAUSE_SECONDS)
        finally:
            served.set()

    async def _run_once(self, worker: _Worker, served: asyncio.Event) -> int:
        """Start a worker and wait for its end; return its exit code."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours:
            with theirs:
                command = (*self.arguments, "--worker", str(worker.place))
                worker.process = await asyncio.create_subprocess_exec(
                    *command, stdin=theirs.fileno(), env=dict(self.environment)
                )
            if self._stop.is_set():
                worker.send(signal.SIGTERM)
            async with asyncio.TaskGroup() as group:
                others = (self._await_ready(ours, worker, served), self._kill_late(worker.process))
                tasks = [group.create_task(one) for one in others]
                code = await worker.process.wait()
                worker.serves = False
                for task in tasks:
                    task.cancel()
            return code

    async def _await_ready(self, ours: socket.socket, worker: _Worker, served: asyncio.Event) -> None:
        if await asyncio.get_running_loop().sock_recv(ours, 1) == READY:
            if not self._served:
                self.manager.report(MANAGER_READY)
            self._served = worker.serves = True
            served.set()
            self.logger.info("worker_serves", worker=worker.place.number)

    async def _kill_late(self, process: Process) -> None:
        """Kill a process that does not drain in time."""
        await self._stop.wait()
        await asyncio.sleep(self.grace_seconds + MAX_END_SECONDS)
        process.kill()


def arguments_of(file: str | None) -> tuple[str, ...]:
    """Return the command line of a worker."""
    return (sys.executable, "-m", "lessor.cli.main", "server", *(("--config", file) if file else ()))


def run_workers(settings: Settings, count: int, file: str | None, logger: FilteringBoundLogger) -> int:
    """Run so many workers until a signal stops them; return the exit code.

    Raises:
        WorkersUnusable: The settings do not allow it. PortTaken: An address cannot be used.
    """
    require_shared(settings, count)
    name = random.SystemRandom().randbytes(8).hex()
    grace = settings.drain_grace.total_seconds()
    http = () if settings.http.listen is None else (settings.http.listen,)
    with hold_ports((*settings.listen, *http)) as ports:
        supervisor = WorkerSupervisor(
            arguments_of(file), dict(os.environ), logger, grace, ServiceManager(os.environ), name
        )
        return asyncio.run(_run(supervisor, count, ports, settings.metrics.listen))


async def _run(
    supervisor: WorkerSupervisor, count: int, ports: tuple[int, ...], address: Address | None
) -> int:
    """Run workers, and serve the metrics of all if there is an address for them."""
    if address is None:
        return await supervisor.run(count, ports)
    numbers = range(1, count + 1)
    logger = supervisor.logger

    def report(where: str, error: BaseException) -> str:
        logger.error("unexpected", where=where, error=type(error).__name__, exc_info=error)
        return ""

    def place_of(number: int) -> str:
        return WorkerPlace(number, ports, supervisor.name).metrics_socket

    pages = WorkerPages(numbers, place_of, supervisor.serving)
    listener = HttpListener(pages.handlers(), report)
    async with listener.listen(address.host, address.port) as listening:
        logger.info("serving_metrics", address=listening)
        return await supervisor.run(count, ports)
