"""One run of the server: the engine of production behind guard and services, without sockets.

A process ends at an instant, as after ``kill -9``: from then on nothing of it reaches store or AWS.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import math
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn, cast

import grpc
from google.protobuf.message import Message

from lessor_server.domain.access.caller import AuthMethod, Principal
from lessor_server.domain.errors.base import LessorError, StoreUnavailable
from lessor_server.domain.events import Event
from lessor_server.engine.aws.rate_limiter import RateLimit
from lessor_server.engine.engine import Dependencies, Engine, EngineConfig, run_engine
from lessor_server.engine.replica_ports import ReplicaStore
from lessor_server.engine.replicas.registry import ThisReplica
from lessor_server.services.audit import CallAudit
from lessor_server.services.config import ConfigService
from lessor_server.services.creds import CredsService
from lessor_server.services.grpc_handlers import GrpcHandlers
from lessor_server.services.guard import Guard
from lessor_server.services.lease import LeaseService
from lessor_server.services.role import RoleService
from lessor_server.services.system import About, SystemService
from tests.simulation.audit_trail import AuditTrail
from tests.simulation.disk import Disk
from tests.simulation.journal import ALL, suffix
from tests.simulation.rules import ruled
from tests.simulation.stopping import LIFE
from tests.simulation.wire import Wire
from tests.support.access import FixedAccess
from tests.support.plain_keyring import PlainKeyring

if TYPE_CHECKING:
    from tests.simulation.world import World


class HungUpError(Exception):
    """The guard aborted a call with this status."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer for a caller: a status and messages."""

    code: grpc.StatusCode
    messages: tuple[Any, ...] = ()
    text: str = ""

    @property
    def ok(self) -> bool:
        """Return whether the call succeeded."""
        return self.code is grpc.StatusCode.OK


@dataclass(slots=True)
class _Context:
    """The part of a gRPC context that the guard uses."""

    who: str
    until: float
    request: bytes
    written: list[Message] = field(default_factory=list)

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.who}"),)

    def time_remaining(self) -> float:
        return self.until - asyncio.get_running_loop().time()

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return no certificate."""
        return {}

    def peer(self) -> str:
        return f"simulation:{self.who}"

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return nothing."""
        return ()

    def set_trailing_metadata(self, _: object) -> None:
        """Ignore the id of the call's audit records."""

    async def read(self) -> bytes:
        return self.request

    async def write(self, message: Message) -> None:
        self.written.append(message)

    async def abort(self, code: grpc.StatusCode, message: str, _: Any) -> NoReturn:
        raise HungUpError(code, message)


@dataclass(frozen=True, slots=True)
class _Details:
    """The details of a call that gRPC has before it is served."""

    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = ()


def task_factory(loop: asyncio.AbstractEventLoop, job: Coroutine[Any, Any, Any], **options: Any) -> Any:
    """Create a task and register it with the process that creates it."""
    task = asyncio.Task(job, loop=loop, **options)
    context = options.get("context")
    life = context.get(LIFE) if context is not None else LIFE.get()
    if isinstance(life, Process):
        life.tasks[task] = None
        task.add_done_callback(life.ended)
    return task


@dataclass(frozen=True, slots=True)
class MachineClocks:
    """The clocks of the machine of one seat."""

    world: World
    seat: int

    def wall_us(self) -> int:
        """Return the wall clock's time."""
        return self.world.clocks.wall_us() + int(self.world.replicas.wall_ahead.get(self.seat, 0.0) * 1e6)

    def boot_us(self) -> int:
        """Return the time since the machine started."""
        return self.world.clocks.boot_us()


class Process:
    """A server that runs."""

    def __init__(self, world: World, number: int, seat: int) -> None:
        """Create the ``number``-th process of a world, as one of its replicas."""
        self.world = world
        self.number = number
        self.seat = seat
        self.alive = True
        self.ready = self.stopped = False
        self.missing: dict[str, None] = {"starting": None}
        """Why it does not do its part; see ``Responsibilities``."""
        self.attentive_since = math.inf
        self.going_since = 0.0
        self.signed_at = 0.0
        """When its last sign of life was stored."""
        self.shares: dict[str, tuple[float, float]] = {}
        """Its shares of rates by account, and until when each is valid."""
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.engine: Engine | None = None
        self._disk = Disk(self)
        self._wire = Wire(self)
        self._handlers: dict[str, Any] = {}
        self._services: dict[str, Any] = {}
        """By the names of their methods."""
        self._context = contextvars.copy_context()
        self._context.run(LIFE.set, self)

    @property
    def still(self) -> bool:
        """Return whether the process is stopped, or its machine suspended."""
        return any(why.startswith(("stopped", "asleep")) for why in self.missing)

    def ended(self, task: asyncio.Task[Any]) -> None:
        """Remove a task; the error of a cancelled caller is ignored."""
        self.tasks.pop(task, None)
        if not task.cancelled():
            task.exception()

    def require_alive(self) -> None:
        """Raise if the process is dead."""
        if not self.alive:
            raise asyncio.CancelledError

    # --- its life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to run."""
        loop = asyncio.get_running_loop()
        life = loop.create_task(self._live(), context=self._context)
        life.add_done_callback(self._over)

    async def _live(self) -> None:
        world = self.world
        rng = world.options.rng(f"process/{self.number}")
        outside = Dependencies(self._disk, self._wire, world.sealer, self._notify, self.report, rng)
        limits = EngineConfig()
        if world.options.replicas == 1:
            world.sealer.load(world.store.data_keys)
        else:
            keyring = PlainKeyring()
            keyring.load(world.store.data_keys)
            outside = replace(outside, sealer=keyring, replica=self._as_replica())
            limits = EngineConfig(RateLimit(rate=world.options.rate or None))
        async with run_engine(outside, limits) as engine:
            self.engine = engine
            self._serve(engine)
            self.ready = True
            world.replicas.ready(self)
            await asyncio.get_running_loop().create_future()

    def _as_replica(self) -> ThisReplica:
        clock = MachineClocks(self.world, self.seat)
        return ThisReplica(cast("ReplicaStore", self._disk), clock, f"process-{self.number}", "0")

    def _over(self, life: asyncio.Task[None]) -> None:
        """Report an engine that ended unexpectedly; a start that the disk refused is retried."""
        if self.alive and not life.cancelled():
            error = life.exception()
            if isinstance(error, StoreUnavailable) and not self.ready:
                self.kill()
                return
            errors = [repr(one) for one in getattr(error, "exceptions", (error,))]
            self.world.broken("the_engine_does_not_end", "", f"it ended with {'; '.join(errors)}")

    def _serve(self, engine: Engine) -> None:
        about = About("0", "memory", dev_mode=False, linter="", warnings=())
        guard = Guard(
            FixedAccess(lambda token: Principal(token, AuthMethod.ROOT, acl=None)),
            self,
            lambda: 0.0,
            audit=self._audit(engine),
        )
        self._grpc_handlers = GrpcHandlers(guard)
        for service in (
            ConfigService(engine.mounts, engine.mount_remover, engine.root_checker, engine.root_keys),
            RoleService(engine.roles, engine.root_checker, engine.prefixes, engine.static_roles),
            CredsService(
                ruled(engine.issuer, self.world.rules), engine.credential_stream, engine.static_roles
            ),
            LeaseService(engine.leases, engine.prefixes, engine.reconciler, engine.lease_events),
            SystemService(
                about,
                engine.expiry,
                engine.backup,
                engine.mounts.find_misplaced_tokens,
                engine.store_status,
                sealing_keys=engine.sealing_keys,
            ),
        ):
            self._services |= dict.fromkeys(service.DESCRIPTOR.methods_by_name, service)

    def _handler(self, method: str) -> Any:
        """Return the handler of a method; those of a service are made when it is first called."""
        if method not in self._handlers:
            service = self._services[method]
            generic = self._grpc_handlers.service(service.DESCRIPTOR, service)
            for name in service.DESCRIPTOR.methods_by_name:
                details = _Details(f"/{service.DESCRIPTOR.full_name}/{name}")
                self._handlers[name] = generic.service(details)
        return self._handlers[method]

    def _audit(self, engine: Engine) -> CallAudit:
        """Return the audit of this process, as ``audit_start`` makes it."""
        numbers = itertools.count(1)
        return CallAudit(
            AuditTrail(self),
            self.world.clocks.wall_us,
            lambda: f"{self.number:08x}{next(numbers):08x}",
            lambda lease_id: engine.work.start(engine.leases.withdraw(lease_id)),
        )

    def _notify(self, event: Event) -> None:
        if self.alive:
            subject = suffix(getattr(event, "lease_id", ""))
            self.world.journal.note(f"{event}", subject or ALL)
            self.world.responsibilities.heard(self, event)
            self.world.expectations.heard(event)

    def refused(self, reason: str) -> None:
        """Ignore a refusal, which the caller gets."""

    def report(self, method: str, error: BaseException) -> str:
        """Record an unforeseen exception."""
        if self.alive:
            self.world.broken("nothing_is_unforeseen", "", f"{method} raised {error!r}")
        return "0"

    def kill(self) -> None:
        """End the process at this instant."""
        if not self.alive:
            return
        self.alive = self.ready = self.stopped = False
        self.world.journal.note(f"process {self.number} is killed", ALL)
        self._disk.tear()
        self._wire.abandon()
        for task in list(self.tasks):
            task.cancel()
        self.world.replicas.died(self)

    def stop(self) -> None:
        """Stop the process: what was sent to the store is committed now, or when the process continues."""
        self.stopped = True
        self.lose_calls()
        self._disk.hand_over()

    def lose_calls(self) -> None:
        """Decide the outcome of calls in flight while the process does not run."""
        self._wire.abandon()

    # --- calls ---------------------------------------------------------------------------------------------

    async def call(self, method: str, request: Message, who: str, seconds: float) -> Reply:
        """Call a method as a client does, with its deadline."""
        loop = asyncio.get_running_loop()
        context = _Context(who, loop.time() + seconds, request.SerializeToString())
        handler = self._handler(method)
        serve = handler.stream_stream if handler.response_streaming else handler.stream_unary
        task = loop.create_task(serve(None, context), context=self._context.copy())
        try:
            await asyncio.wait([task], timeout=seconds)
        except asyncio.CancelledError:
            task.cancel()  # the caller goes away
            raise
        return self._reply(task, context)

    async def ask(self, job: Callable[[Engine], Awaitable[object]], seconds: float) -> object:
        """Let the engine work for a caller; return its answer or error, None if there is neither in time."""
        assert self.engine is not None

        async def work(engine: Engine) -> object:
            return await job(engine)

        task = asyncio.get_running_loop().create_task(work(self.engine), context=self._context.copy())
        await asyncio.wait([task], timeout=seconds)
        if not self.alive or not task.done():
            task.cancel()
            return None
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, LessorError):
            self.world.broken("nothing_is_unforeseen", "", f"a call ended with {error!r}")
        return error or (None if task.cancelled() else task.result())

    def _reply(self, task: asyncio.Task[Any], context: _Context) -> Reply:
        if not self.alive:
            return Reply(grpc.StatusCode.UNAVAILABLE, text="the server died")
        if not task.done():
            task.cancel()
            return Reply(grpc.StatusCode.DEADLINE_EXCEEDED, tuple(context.written), "the caller gave up")
        error = None if task.cancelled() else task.exception()
        if isinstance(error, HungUpError):
            return Reply(error.code, tuple(context.written), str(error))
        if task.cancelled() or error is not None:
            self.world.broken("nothing_is_unforeseen", "", f"a handler ended with {error!r}")
            return Reply(grpc.StatusCode.UNKNOWN)
        answer = task.result()
        return Reply(grpc.StatusCode.OK, (answer,) if answer is not None else tuple(context.written))
