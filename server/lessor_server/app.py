"""Wires settings, adapters, engine and services together; starts and drains the server."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import grpc
from structlog.typing import FilteringBoundLogger

import lessor
from lessor_server.access_reload import AccessReloader, load_rules
from lessor_server.adapters.aws.gateway import AwsGateway
from lessor_server.adapters.aws.query_client import QueryClient
from lessor_server.adapters.aws.routes import Routes
from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.identity.identifier import Identifier
from lessor_server.adapters.identity.key_source import KeySource
from lessor_server.adapters.identity.root_token import load_root_token
from lessor_server.adapters.linting.sentry import SentryLinter, installed
from lessor_server.adapters.observing.events import EventLog
from lessor_server.adapters.postgres.store import PostgresStore
from lessor_server.adapters.process import give_back_memory, protect_process, tune_garbage_collection
from lessor_server.adapters.sealing.key_file import require_no_key_without_database
from lessor_server.adapters.sealing.keyring import Keyring
from lessor_server.adapters.service_manager import READY, STOPPING, ServiceManager
from lessor_server.adapters.sqlite.store import FILE as DATABASE_FILE
from lessor_server.adapters.tls import Certificates
from lessor_server.audit_start import NO_AUDIT, Auditing, show_in_health
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.events import Event, StoreBack, StoreFailed
from lessor_server.engine.aws.rate_limiter import RateLimit
from lessor_server.engine.config.mounts import RootRules
from lessor_server.engine.config.roles import NoLinter
from lessor_server.engine.engine import Dependencies, Engine, EngineConfig, run_engine
from lessor_server.engine.logins import LoginTokens
from lessor_server.engine.ports import Linter, Observer, Store
from lessor_server.engine.supervisor import Supervisor
from lessor_server.grpc_server import Port, connection_limits
from lessor_server.http_edge.calls import Service
from lessor_server.http_edge.edge import Face, HttpEdge
from lessor_server.http_start import FaceParts, edge_of, sign_in_links_of
from lessor_server.keyring_start import KeyringStart, default_key_file
from lessor_server.login_start import build_logins, jwt_limits, open_logins
from lessor_server.metrics_start import Measuring, Observers
from lessor_server.reload import Reloader, Reread, nothing_to_reread, on_hang_up
from lessor_server.replica_start import as_replica
from lessor_server.services.call_limits import IdentityLimits
from lessor_server.services.config import ConfigService
from lessor_server.services.creds import CredsService
from lessor_server.services.grpc_handlers import GrpcHandlers
from lessor_server.services.guard import Guard
from lessor_server.services.health import Health
from lessor_server.services.lease import LeaseService
from lessor_server.services.logins import Logins
from lessor_server.services.reflection import Reflection
from lessor_server.services.role import RoleService
from lessor_server.services.sign_in_links import SignInLinks
from lessor_server.services.system import About, SystemService
from lessor_server.services.until_unsealed import UntilUnsealed
from lessor_server.settings.model import Settings, Tls
from lessor_server.store_start import OpenedStore, open_store_of
from lessor_server.tracing_start import open_tracing

SERVICES = tuple(
    service.DESCRIPTOR for service in (ConfigService, RoleService, CredsService, LeaseService, SystemService)
)
STOP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Served:
    """The addresses of gRPC, and the URL of the HTTP edge, empty without one."""

    addresses: list[str]
    http_url: str = ""


class DataDirUnusable(LessorError):
    """The data directory does not exist and cannot be created."""

    reason = "DATA_DIRECTORY_UNUSABLE"
    fix = "create it for the server's user, or set another one with LESSOR_DATA_DIR"


async def run(
    settings: Settings,
    logger: FilteringBoundLogger,
    reread: Reread,
    manager: ServiceManager,
    on_serving: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; SIGHUP reloads settings by ``reread``, and certificates.

    ``on_serving`` is called when the server serves. ``manager`` learns that, and when it stops.
    """
    stop, hang_up = asyncio.Event(), asyncio.Event()
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)  # a start may wait for KMS
    try:
        with on_hang_up(hang_up.set):
            async with (
                open_tracing(os.environ, logger) as tracer,
                serve(settings, logger, reread=reread, hang_up=hang_up, tracer=tracer) as served,
            ):
                addresses = served.addresses
                for number in (signal.SIGTERM, signal.SIGINT):
                    loop.add_signal_handler(number, stop.set)
                everywhere = {"addresses": ", ".join(addresses)} if len(addresses) > 1 else {}
                http = {"http": served.http_url} if served.http_url else {}
                logger.info("serving", address=addresses[0], **everywhere, **http, version=lessor.__version__)
                on_serving()
                manager.report(READY)
                await stop.wait()
                manager.report(STOPPING)
                logger.info("draining")
    except asyncio.CancelledError:
        task.uncancel()
    logger.info("stopped")


@asynccontextmanager
async def serve(
    settings: Settings,
    logger: FilteringBoundLogger,
    *,
    dev: bool = False,
    reread: Reread = nothing_to_reread,
    hang_up: asyncio.Event | None = None,
    tracer: Observers | None = None,
) -> AsyncIterator[Served]:
    """Start everything, open the ports last, and yield their addresses; drain when the block is left.

    Setting ``hang_up`` reloads settings by ``reread``, and certificates. ``tracer`` traces calls.

    Raises:
        LessorError: The data directory is locked or unusable, or the address is taken.
        LessorError, CertificateUnusable, OSError: Files cannot be used.
    """
    _prepare(settings, logger)
    log = _start_event_log(logger, rng := random.SystemRandom())
    health = Health(service.full_name for service in SERVICES)
    notify = (audit := Auditing(_observer(log, health), rng)).notify
    certificates, measuring = _certificates(settings.tls), Measuring(settings.metrics.listen, tracer)
    guard = _guard(settings, identifier := _identifier(settings, certificates, logger), log, audit, measuring)
    key = KeyringStart(settings, logger, notify)
    async with (
        measuring.listen(health, log.report, logger) as measured,
        QueryClient(f"lessor/{lessor.__version__}", SystemClock().wall) as client,
        aclosing(identifier),
        _port(settings, certificates, guard, health) as port,
        edge_of(settings, certificates, log.report) as edge,
        open_store_of(settings, notify, partial(key.verify, partial(_open, port, edge))) as store,
        audit.run(settings, log.report),
    ):
        sealer = await _open_sealer(store, key, audit)
        tokens, logins, links = _logins(settings, store, identifier, audit, log, sealer)
        access = AccessReloader(settings.access.file, identifier, guard.judge_streams, store, notify)
        extra = (_linter(), measuring.meter, as_replica(store, settings, rng, lambda: access.digest))
        gateway = await _gateway(store, client, settings, measuring)
        outside = Dependencies(store, gateway, sealer, notify, log.report, rng, *extra)
        reloader = Reloader(certificates, reread, hang_up or asyncio.Event(), notify, access, audit.reopen)
        parts = (give_back_memory, reloader.run, identifier.run, guard.judge_logins, tokens.run, *measured)
        async with _run_parts(outside, settings, parts) as engine:
            about = _about(settings, audit, edge, links, dev=dev)
            system = _system(settings, engine, reloader, access, audit, about)
            measuring.watch(store, engine, audit, system.count_warnings, certificates)
            services = (*_services(engine, system), health)
            state = (await store.status()).instance_id, logins, engine.work.start, links
            faces = FaceParts(guard, services, audit.calls, log.report, rng, *state)
            async with _open_to_calls(port, edge, faces, engine, health, settings) as served:
                yield served


@asynccontextmanager
async def _open_to_calls(
    port: Port, edge: HttpEdge, parts: FaceParts, engine: Engine, health: Health, settings: Settings
) -> AsyncIterator[Served]:
    """Answer calls while the block runs; drain when it is left."""
    faces = await asyncio.to_thread(_load_faces, settings, parts) if settings.http.listen else ()
    addresses = await port.serve(_handlers(parts.guard, parts.services, settings))
    url = await edge.serve(faces)
    health.open()
    try:
        yield Served(addresses, url)
    finally:
        await _drain(port, edge, parts.guard, engine, health, settings)


def _load_faces(settings: Settings, parts: FaceParts) -> tuple[Face, ...]:
    """Load and return the faces of the HTTP edge; this blocks, since the console compiles its templates."""
    from lessor_server.http_faces import faces_of  # noqa: PLC0415 - a server without HTTP does not load it

    return faces_of(settings, parts)


async def _open(port: Port, edge: HttpEdge) -> None:
    """Open the ports before anything is served on them."""
    await port.open()
    await edge.open()


async def _open_sealer(store: OpenedStore, key: KeyringStart, audit: Auditing) -> Keyring:
    """Open the keyring; share the audit's key with the other servers of a PostgreSQL database."""
    keyring = await key.open(store)
    await audit.share_keys(store if isinstance(store, PostgresStore) else None, keyring)
    return keyring


@asynccontextmanager
async def _run_parts(
    outside: Dependencies,
    settings: Settings,
    parts: Sequence[Callable[[], Coroutine[object, object, NoReturn]]],
) -> AsyncIterator[Engine]:
    """Run the engine, and parts that are restarted if they fail, while the block runs."""
    async with (
        run_engine(outside, _limits(settings)) as engine,
        _keep_running(Supervisor(outside.report), *parts),
    ):
        yield engine


def _logins(
    settings: Settings,
    store: OpenedStore,
    identifier: Identifier,
    audit: Auditing,
    log: EventLog,
    sealer: Keyring,
) -> tuple[LoginTokens, Logins, SignInLinks | None]:
    """Return the login tokens, by which ``identifier`` then knows callers, and what serves them."""
    tokens = open_logins(settings, store, identifier, random.SystemRandom())
    logins = build_logins(settings, identifier, tokens, audit.calls, log.report)
    return tokens, logins, sign_in_links_of(settings, logins, sealer)


def _linter() -> Linter:
    return SentryLinter() if installed() else NoLinter()


async def _gateway(store: Store, client: QueryClient, settings: Settings, measuring: Measuring) -> AwsGateway:
    session_name = f"lessor-{(await store.status()).instance_id}"
    routes = Routes(settings.aws.allowed_endpoints)
    return AwsGateway(
        client, routes, session_name, token_places=settings.token_places, observer=measuring.aws_calls
    )


def _guard(
    settings: Settings, identifier: Identifier, log: EventLog, audit: Auditing, measuring: Measuring
) -> Guard:
    return Guard(
        identifier,
        log,
        SystemClock().wall,
        _identity_limits(settings),
        audit=audit.calls,
        observer=measuring.calls,
    )


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
    return Identifier(
        token,
        rules,
        lambda: certificates.client_ca_count if certificates is not None else 0,
        SystemClock().wall,
        KeySource(),
        jwt_limits(settings),
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
    settings: Settings,
    engine: Engine,
    reloader: Reloader,
    access: AccessReloader,
    audit: Auditing,
    about: About,
) -> SystemService:
    audit.withdraw_by(engine)
    if (replicas := engine.replicas) is not None:
        about = replace(about, fleet=lambda: replicas.fleet)
    return SystemService(
        about,
        engine.expiry,
        engine.backup,
        engine.mounts.find_misplaced_tokens,
        engine.store_status,
        lambda: (*settings.warnings, *reloader.warnings(), *access.warnings(), *audit.warnings()),
        access,
        engine.sealing_keys,
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
    """Tune and protect this process, and create its data directory, before any secret is read.

    Raises:
        DataDirUnusable: There is no data directory, and none can be created.
        SealingKeyMismatch: There is a key without a database.
    """
    tune_garbage_collection()
    protect_process()
    for warning in settings.warnings:
        logger.warning("settings", warning=warning)
    if settings.store.is_shared:
        return
    create_data_dir(settings.data_dir)
    if not settings.sealing.accept_mismatch and settings.sealing.key is None:
        require_no_key_without_database(default_key_file(settings), settings.data_dir / DATABASE_FILE)


def create_data_dir(path: Path) -> None:
    """Create a private data directory, or raise ``DataDirUnusable``."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DataDirUnusable(f"{path} cannot be created: {error.strerror}") from None


def _limits(settings: Settings) -> EngineConfig:
    aws = settings.aws
    rate_limit = (
        RateLimit(in_flight=aws.in_flight)
        if aws.rate is None
        else RateLimit(rate=aws.rate, in_flight=aws.in_flight)
    )
    rules = RootRules(aws.allowed_endpoints, aws.ambient_mounts, settings.token_places)
    return EngineConfig(rate_limit, rules, measure_accounts=settings.metrics.listen is not None)


def _about(
    settings: Settings, audit: Auditing, edge: HttpEdge, links: SignInLinks | None, *, dev: bool
) -> About:
    warnings = []
    if settings.exposed:
        warnings.append("the listener is insecure: tokens and credentials cross the network in the clear")
    if dev:
        warnings.append("dev mode: do not keep anything that matters here")
    elif not settings.audit.is_on:
        warnings.append(NO_AUDIT)
    return About(
        version=lessor.__version__,
        store_kind="postgresql" if settings.store.is_shared else "sqlite",
        dev_mode=dev,
        linter=installed(),
        warnings=tuple(warnings),
        audit_sinks=audit.statuses,
        http_url=lambda: edge.url,
        sign_in_links=links,
        wall_us=SystemClock().wall_us,
    )


def _services(engine: Engine, system: SystemService) -> tuple[Service, ...]:
    return (
        ConfigService(engine.mounts, engine.mount_remover, engine.root_checker, engine.root_keys),
        RoleService(engine.roles, engine.root_checker, engine.prefixes, engine.static_roles),
        CredsService(engine.issuer, engine.credential_stream, engine.static_roles),
        LeaseService(engine.leases, engine.prefixes, engine.reconciler, engine.lease_events),
        system,
    )


def _handlers(
    guard: Guard, services: Sequence[Service], settings: Settings
) -> tuple[grpc.GenericRpcHandler, ...]:
    grpc_handlers = GrpcHandlers(guard)
    handlers = tuple(grpc_handlers.service(one.DESCRIPTOR, one) for one in services)
    names = [one.DESCRIPTOR.full_name for one in services]
    reflection = Reflection(names).handlers(grpc_handlers) if settings.reflection else ()
    return (*handlers, *reflection, grpc_handlers.unknown_methods())


def _certificates(tls: Tls | None) -> Certificates | None:
    return None if tls is None else Certificates(tls.cert_file, tls.key_file, tls.client_ca_file)


def _port(
    settings: Settings,
    certificates: Certificates | None,
    guard: Guard,
    health: Health,
) -> Port:
    """Return the port, which serves health alone until the data keys are decrypted."""
    only_health = GrpcHandlers(guard).service(health.DESCRIPTOR, health)
    limits = connection_limits(settings)
    return Port(limits, settings.listen, certificates, UntilUnsealed(only_health))


async def _drain(
    port: Port, edge: HttpEdge, guard: Guard, engine: Engine, health: Health, settings: Settings
) -> None:
    """Report the shutdown, give calls and the engine's work the grace of the settings to end, then stop.

    A worker closes its listeners first, so that new connections go to the others.
    """
    loop, grace = asyncio.get_running_loop(), settings.drain_grace.total_seconds()
    until = loop.time() + grace
    health.close()
    async with asyncio.TaskGroup() as group:
        if settings.worker:
            group.create_task(port.stop(grace))
            group.create_task(edge.stop(grace))
        await guard.drain(grace)
    await engine.work.settle(max(until - loop.time(), 0))
    async with asyncio.TaskGroup() as group:
        group.create_task(edge.stop(STOP_SECONDS))
        await port.stop(STOP_SECONDS)


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
