"""Wires settings, adapters, engine and services together; starts and drains the server."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import grpc
from structlog.typing import FilteringBoundLogger

from lessor_server.access_reload import AccessReloader, load_rules
from lessor_server.adapters.aws.clients import Clients
from lessor_server.adapters.aws.gateway import AwsGateway
from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.identity.identifier import Identifier
from lessor_server.adapters.identity.jwt_limiter import JwtLimits
from lessor_server.adapters.identity.key_source import KeySource
from lessor_server.adapters.identity.root_token import load_root_token
from lessor_server.adapters.linting.sentry import SentryLinter, installed
from lessor_server.adapters.observing.events import EventLog
from lessor_server.adapters.process import give_back_memory, protect_process, tune_garbage_collection
from lessor_server.adapters.sealing.aesgcm import AesGcmSealer, key_id_of
from lessor_server.adapters.sealing.key_file import KeyFile, require_no_key_without_database
from lessor_server.adapters.sqlite.store import FILE as DATABASE_FILE
from lessor_server.adapters.sqlite.store import SqliteStore, open_store
from lessor_server.adapters.tls import Certificates
from lessor_server.audit_start import NO_AUDIT, Auditing, run_audit, show_in_health
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.events import Event, StoreBack, StoreFailed
from lessor_server.engine.aws.rate_limiter import RateLimit
from lessor_server.engine.config.mounts import RootRules
from lessor_server.engine.config.roles import NoLinter
from lessor_server.engine.engine import Dependencies, Engine, EngineConfig, run_engine
from lessor_server.engine.ports import Observer
from lessor_server.engine.supervisor import Supervisor
from lessor_server.grpc_server import build_server, connection_limits, open_ports
from lessor_server.reload import Reloader, Reread, nothing_to_reread, on_hang_up
from lessor_server.services.call_limits import IdentityLimits
from lessor_server.services.config import ConfigService
from lessor_server.services.creds import CredsService
from lessor_server.services.grpc_handlers import GrpcHandlers
from lessor_server.services.guard import Guard
from lessor_server.services.health import Health
from lessor_server.services.lease import LeaseService
from lessor_server.services.reflection import Reflection
from lessor_server.services.role import RoleService
from lessor_server.services.system import About, SystemService
from lessor_server.settings.model import Settings, Tls

SERVICES = tuple(
    service.DESCRIPTOR for service in (ConfigService, RoleService, CredsService, LeaseService, SystemService)
)
SEALING_KEY_FILE = "sealing-key"
STOP_SECONDS = 1.0


class DataDirUnusable(LessorError):
    """The data directory does not exist and cannot be created."""

    reason = "DATA_DIRECTORY_UNUSABLE"
    fix = "create it for the server's user, or set another one with LESSOR_DATA_DIR"


async def run(settings: Settings, logger: FilteringBoundLogger, reread: Reread) -> None:
    """Serve until SIGTERM or SIGINT, then drain; SIGHUP reloads settings by ``reread``, and certificates."""
    stop, hang_up = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with on_hang_up(hang_up.set):
        async with serve(settings, logger, reread=reread, hang_up=hang_up) as address:
            logger.info("serving", address=address, version=version("lessor"))
            await stop.wait()
            logger.info("draining")
        logger.info("stopped")


@asynccontextmanager
async def serve(
    settings: Settings,
    logger: FilteringBoundLogger,
    *,
    dev: bool = False,
    reread: Reread = nothing_to_reread,
    hang_up: asyncio.Event | None = None,
) -> AsyncIterator[str]:
    """Start everything, open the port last, and yield its address; drain when the block is left.

    Setting ``hang_up`` reloads settings by ``reread``, and certificates.

    Raises:
        LessorError: The data directory is locked or unusable, or the address is taken.
        CertificateUnusable: The files of TLS cannot be used.
        AuditKeyBroken, KeyFileBroken, RootTokenBroken, OSError: Files of the data directory cannot be used.
    """
    tune_garbage_collection()
    limits = connection_limits(settings)
    _prepare(settings, logger)
    rng = random.SystemRandom()
    log = _start_event_log(logger, rng)
    health = Health(service.full_name for service in SERVICES)
    notify = _observer(log, health)
    certificates = _certificates(settings.tls)
    identifier = _identifier(settings, certificates, logger)
    clients = Clients(settings.aws.allowed_endpoints, f"lessor/{version('lessor')}")
    async with (
        open_store(settings.data_dir, SystemClock(), notify) as store,
        clients,
        aclosing(identifier),
        run_audit(settings, notify, log.report, rng) as audit,
    ):
        sealer = await _load_sealer(store, settings, logger)
        gateway = _gateway(clients, (await store.status()).instance_id, settings)
        linter = SentryLinter() if installed() else NoLinter()
        outside = Dependencies(store, gateway, sealer, audit.notify, log.report, rng, linter)
        guard = Guard(identifier, log, SystemClock().wall, _identity_limits(settings), audit=audit.calls)
        access = AccessReloader(settings.access.file, identifier, guard.judge_streams, store, audit.notify)
        hang_up = hang_up or asyncio.Event()
        reloader = Reloader(certificates, reread, hang_up, audit.notify, access, audit.reopen)
        async with (
            run_engine(outside, _limits(settings)) as engine,
            _keep_running(Supervisor(log.report), give_back_memory, reloader.run, identifier.run),
        ):
            audit.withdraw_by(engine)
            system = _system(_about(settings, dev=dev), engine, reloader, access, audit)
            server = build_server(limits, _handlers(engine, guard, health, system, settings))
            async with _listen(server, settings, certificates, (guard, engine, health)) as address:
                yield address


@asynccontextmanager
async def _listen(
    server: grpc.aio.Server,
    settings: Settings,
    certificates: Certificates | None,
    served: tuple[Guard, Engine, Health],
) -> AsyncIterator[str]:
    """Open all ports, and yield the first address; drain when the block is left."""
    guard, engine, health = served
    addresses = await open_ports(server, settings.listen, certificates)
    health.open()
    try:
        yield addresses[0]
    finally:
        await _drain(server, guard, engine, health, settings.drain_grace.total_seconds())


def _gateway(clients: Clients, instance_id: str, settings: Settings) -> AwsGateway:
    return AwsGateway(clients, f"lessor-{instance_id}", token_places=settings.token_places)


def _observer(log: EventLog, health: Health) -> Observer:
    """Return the observer of all events."""

    def notify(event: Event) -> None:
        log(event)
        if isinstance(event, (StoreFailed, StoreBack)):
            health.store(works=isinstance(event, StoreBack))
        show_in_health(event, health)

    return notify


def _identifier(
    settings: Settings, certificates: Certificates | None, logger: FilteringBoundLogger
) -> Identifier:
    """Return what identifies callers; raises ``SettingsError`` if the access file has errors."""
    rules = load_rules(settings.access.file)
    token = None
    if settings.access.root_token:
        token = load_root_token(settings.data_dir, settings.root_token, settings.root_token_file)
    limits = JwtLimits(settings.limits.new_jwts_per_peer, settings.limits.new_jwts)
    return Identifier(
        token,
        rules,
        lambda: certificates.authorities if certificates is not None else 0,
        SystemClock().wall,
        KeySource(),
        limits,
        lambda problem: logger.warning("issuer_unavailable", problem=problem),
    )


def _identity_limits(settings: Settings) -> IdentityLimits:
    limits = settings.limits
    return IdentityLimits(
        calls=limits.concurrent_calls,
        calls_per_identity=limits.calls_per_identity,
        watches_per_identity=limits.watches_per_identity,
        rate=limits.rate_per_identity,
    )


def _system(
    about: About, engine: Engine, reloader: Reloader, access: AccessReloader, audit: Auditing
) -> SystemService:
    return SystemService(
        about,
        engine.expiry,
        engine.backup,
        engine.mounts.find_misplaced_tokens,
        engine.store_status,
        lambda: (*reloader.warnings(), *access.warnings(), *audit.warnings()),
        access,
        audit.statuses,
    )


def _start_event_log(logger: FilteringBoundLogger, rng: random.Random) -> EventLog:
    """Return the log of events, which also gets the exceptions that nothing awaits."""
    log = EventLog(logger, rng)
    asyncio.get_running_loop().set_exception_handler(partial(_report_unhandled, log))
    return log


def _report_unhandled(log: EventLog, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Log an exception that nothing awaits, such as that of a callback of the loop."""
    error, message = context.get("exception"), str(context.get("message", ""))
    log.report("event loop", error if isinstance(error, BaseException) else RuntimeError(message))


def _prepare(settings: Settings, logger: FilteringBoundLogger) -> None:
    """Protect this process and create its data directory, before any secret is read.

    Raises:
        DataDirUnusable: There is no data directory, and none can be created.
        SealingKeyMismatch: There is a key without a database.
    """
    protect_process()
    for warning in settings.warnings:
        logger.warning("settings", warning=warning)
    create_data_dir(settings.data_dir)
    if not settings.sealing.accept_mismatch:
        require_no_key_without_database(
            settings.data_dir / SEALING_KEY_FILE, settings.data_dir / DATABASE_FILE
        )


def create_data_dir(path: Path) -> None:
    """Create a private data directory, or raise ``DataDirUnusable``."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DataDirUnusable(f"{path} cannot be created: {error.strerror}") from None


async def _load_sealer(store: SqliteStore, settings: Settings, logger: FilteringBoundLogger) -> AesGcmSealer:
    """Return a sealer with the key of this database; store the key's id in it.

    A database of an earlier version has no id; its key is the one that sealed its values.

    Raises:
        SealingKeyMismatch: The key is missing, or that of another database.
    """
    key_file = settings.data_dir / SEALING_KEY_FILE
    noted = await store.get_sealing_key_id()
    known = {noted} if noted else set(map(key_id_of, await store.list_sealed_values()))
    if settings.sealing.accept_mismatch:
        key = KeyFile.load_or_make(key_file)
        if known and key.id not in known:
            logger.warning(
                "sealing_key_mismatch_accepted", sealed_under=sorted(known), key_file=str(key_file)
            )
    else:
        key = KeyFile.load_for(key_file, known)
    if key.id != noted:
        await store.put_sealing_key_id(key.id)
    return AesGcmSealer(key.key)


def _limits(settings: Settings) -> EngineConfig:
    aws = settings.aws
    rate_limit = (
        RateLimit(in_flight=aws.in_flight)
        if aws.rate is None
        else RateLimit(rate=aws.rate, in_flight=aws.in_flight)
    )
    return EngineConfig(
        rate_limit, RootRules(aws.allowed_endpoints, aws.ambient_mounts, settings.token_places)
    )


def _about(settings: Settings, *, dev: bool) -> About:
    warnings = list(settings.warnings)
    if settings.exposed:
        warnings.append("the listener is insecure: tokens and credentials cross the network in the clear")
    if dev:
        warnings.append("dev mode: do not keep anything that matters here")
    elif not settings.audit.is_on:
        warnings.append(NO_AUDIT)
    return About(
        version=version("lessor"),
        store_kind="sqlite",
        dev_mode=dev,
        linter=installed(),
        warnings=tuple(warnings),
    )


def _handlers(
    engine: Engine, guard: Guard, health: Health, system: SystemService, settings: Settings
) -> tuple[grpc.GenericRpcHandler, ...]:
    implementations = (
        ConfigService(engine.mounts, engine.mount_remover, engine.root_checker, engine.root_keys),
        RoleService(engine.roles, engine.root_checker, engine.prefixes, engine.static_roles),
        CredsService(engine.issuer, engine.credential_stream, engine.static_roles),
        LeaseService(engine.leases, engine.prefixes, engine.reconciler, engine.lease_events),
        system,
        health,
    )
    grpc_handlers = GrpcHandlers(guard)
    handlers = tuple(grpc_handlers.service(one.DESCRIPTOR, one) for one in implementations)
    names = [one.DESCRIPTOR.full_name for one in implementations]
    reflection = Reflection(names).handlers(grpc_handlers) if settings.reflection else ()
    return (*handlers, *reflection, grpc_handlers.unknown_methods())


def _certificates(tls: Tls | None) -> Certificates | None:
    return None if tls is None else Certificates(tls.cert_file, tls.key_file, tls.client_ca_file)


async def _drain(server: grpc.aio.Server, guard: Guard, engine: Engine, health: Health, grace: float) -> None:
    """Report the shutdown, give calls and the engine's work ``grace`` seconds to end, then stop."""
    loop = asyncio.get_running_loop()
    until = loop.time() + grace
    health.close()
    await guard.drain(grace)
    await engine.work.settle(max(until - loop.time(), 0))
    await server.stop(STOP_SECONDS)


@asynccontextmanager
async def _keep_running(
    supervisor: Supervisor, *parts: Callable[[], Coroutine[object, object, NoReturn]]
) -> AsyncIterator[None]:
    """Run parts while the block runs; restart one that fails."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(supervisor.keep_running(run)) for run in parts]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
