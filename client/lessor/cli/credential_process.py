"""``lessor credential-process``: credentials for the setting ``credential_process`` of AWS's SDKs."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from lessor import values
from lessor.cli.connecting import get_clock, reaching, reaching_options, report
from lessor.leasing.issued import Issued, Order
from lessor.refresh import CLOCK_TOLERANCE, MIN_CACHED_TTL

if TYPE_CHECKING:
    from lessor.channel import Connection
    from lessor.leasing.cache import Cache, CacheKey
    from lessor.leasing.clock import Clock

FAILED, TRY_AGAIN = 1, 6


@click.command("credential-process")
@click.argument("role")
@click.option("--mount", default="aws", show_default=True, help="The engine.")
@click.option("--ttl", default="1h", show_default=True, help="Lifetime to request, 30m or more.")
@click.option(
    "--wait-usable", default="10s", show_default=True, help="Maximum wait until AWS accepts a new key."
)
@click.option("--no-cache", is_flag=True, help="Issue new credentials, and don't keep them.")
@reaching_options
def credential_process(
    role: str, mount: str, ttl: str, wait_usable: str, no_cache: bool, **options: object
) -> None:
    """Print credentials of a role as AWS's SDKs read them from the setting `credential_process`.

    They are cached while 20 minutes or more are left. Then the lease is renewed, and new credentials are
    issued only if that is no longer possible. The cache is encrypted if lessor[keyring] is installed, else it
    is in XDG_RUNTIME_DIR. `lessor aws-profile add` writes the setting.
    """
    lifetime = _lifetime(ttl)
    order = Order(mount, role, _duration("--wait-usable", wait_usable), {"ttl": lifetime})
    run(order, lifetime, options, get_clock(), caches=not no_cache)


def run(order: Order, ttl: timedelta, options: dict[str, object], clock: Clock, *, caches: bool) -> None:
    """Print cached or new credentials; raises ``ClickException``."""
    from lessor.channel import BadConnection  # noqa: PLC0415
    from lessor.leasing.cache import CacheKey, load_from_memory, open_cache  # noqa: PLC0415
    from lessor.leasing.caller import caller_of  # noqa: PLC0415

    connection, seconds = reaching(options)
    try:
        caller = caller_of(connection)
    except BadConnection as error:
        raise click.UsageError(str(error)) from None
    key = CacheKey(connection.address, caller, order.mount, order.role, int(ttl.total_seconds()))
    found = load_from_memory(os.environ, key) if caches else None
    if found is None or not found.term.is_servable(clock.now()):
        cache = open_cache(os.environ, report) if caches else None
        found = None if cache is None else cache.load(key)
        if found is None or not found.term.is_servable(clock.now()):
            found = _fetched(order, key, cache, connection, seconds, clock)
    print_answer(json.dumps(found.process_object()))


def print_answer(text: str) -> None:
    """Print the answer; raises ``ClickException`` if nobody gets it."""
    try:
        if sys.stdout is None:  # it was closed before the start
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        click.echo(text)
    except OSError as error:
        # What is still buffered can't be written either, and Python would report that with a traceback.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise _failure(f"the credentials can't be printed: {error.strerror}", TRY_AGAIN) from None


def _duration(option: str, text: str) -> timedelta:
    try:
        return values.duration(text)
    except values.InvalidValue as wrong:
        raise click.UsageError(f"{option}: {wrong}") from None


def _lifetime(text: str) -> timedelta:
    found = _duration("--ttl", text)
    if found < MIN_CACHED_TTL:
        raise click.UsageError(
            f"--ttl: {text} is less than 30m. AWS's SDKs call again 15 minutes before the end, so that each "
            "call would issue new credentials; give 30m or more, or use `lessor exec`"
        )
    return found


def _fetched(
    order: Order,
    key: CacheKey,
    cache: Cache | None,
    connection: Connection,
    seconds: float | None,
    clock: Clock,
) -> Issued:
    """Renew or issue while no other process does, and keep the result; raises ``ClickException``."""
    from lessor.leasing.private_files import Busy  # noqa: PLC0415

    with ExitStack() as held:
        cached = None
        if cache is not None:
            try:
                held.enter_context(cache.lock(key, threading.Event().wait))
            except (Busy, OSError) as error:
                raise _failure(str(error), TRY_AGAIN) from None
            cached = cache.load(key)
            if cached is not None and cached.term.is_servable(clock.now()):
                return cached
            if cached is not None and cached.term.start - CLOCK_TOLERANCE > clock.now():
                cached = None  # from the future: the clock was wrong then or is wrong now
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import asyncio  # noqa: PLC0415 - it takes its time to load, as gRPC does

        from lessor.cli.call import refusals_reported  # noqa: PLC0415

        with refusals_reported(connection):
            issued = asyncio.run(_fetch(order, cached, connection, seconds, clock))
        if cache is not None:
            try:
                cache.save(key, issued, clock.now())
            except OSError as error:
                report(f"warning: the credentials are not cached: {error.strerror}")
        return issued


async def _fetch(
    order: Order, cached: Issued | None, connection: Connection, seconds: float | None, clock: Clock
) -> Issued:
    from lessor.leasing.fetching import TooShort, fetch, system_random  # noqa: PLC0415
    from lessor.leasing.refreshed import Tools  # noqa: PLC0415
    from lessor.leasing.server import SECONDS, GrpcLeaseServer  # noqa: PLC0415

    async with GrpcLeaseServer(connection, clock, seconds or SECONDS) as server:
        try:
            return await fetch(order, cached, Tools(server, clock, system_random(), report))
        except TooShort as error:
            raise _failure(str(error), FAILED) from None


def _failure(message: str, exit_code: int) -> click.ClickException:
    from lessor.cli.call import Failed  # noqa: PLC0415 - gRPC takes its time to load

    return Failed(message, exit_code)
