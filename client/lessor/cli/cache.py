"""``lessor cache``: the credentials that ``lessor credential-process`` keeps on this machine."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import click

from lessor.cli.connecting import reaching, reaching_options, report

if TYPE_CHECKING:
    from lessor.channel import Connection

FAILED = 1
REVOKE_SECONDS = 30.0


@click.group("cache")
def cache() -> None:
    """Manage the credentials that `lessor credential-process` keeps on this machine."""


@cache.command("clear")
@click.option("--revoke", is_flag=True, help="Also revoke their leases, and those of killed `lessor exec`.")
@reaching_options
def clear(*, revoke: bool, **options: object) -> int:
    """Remove the cached credentials of all servers.

    With --revoke the leases of the server that you are connected to end; the ids of the others are printed.
    """
    from lessor.leasing.cache import open_caches  # noqa: PLC0415

    connection, seconds = reaching(options)
    caches = list(open_caches(os.environ, report))
    found = [entry for one in caches for entry in one.entries()] if revoke else []
    here = [entry.issued.lease_id for entry in found if entry.key.address == connection.address]
    failed = False
    for entry in found:
        if entry.key.address != connection.address:
            report(f"lease {entry.issued.lease_id} of {entry.key.address} stays active until it ends")
    if revoke:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import asyncio  # noqa: PLC0415 - help needs none of it

        from lessor.cli.call import refusals_reported  # noqa: PLC0415 - gRPC takes its time to load

        with refusals_reported(connection):
            failed = not asyncio.run(_revoke(here, connection, seconds))
    removed = sum(one.clear() for one in caches) if not failed else 0
    click.echo(f"removed {removed} cached credentials" if removed != 1 else "removed 1 cached credential")
    return FAILED if failed else 0


async def _revoke(lease_ids: list[str], connection: Connection, seconds: float | None) -> bool:
    """Revoke leases, and those of killed processes; return whether all of the former have ended."""
    from lessor.channel import BadConnection  # noqa: PLC0415
    from lessor.errors import Error  # noqa: PLC0415
    from lessor.leases import setback_of  # noqa: PLC0415
    from lessor.leasing.caller import caller_of  # noqa: PLC0415
    from lessor.leasing.clock import SystemClock  # noqa: PLC0415
    from lessor.leasing.execution import revoke_of_the_dead  # noqa: PLC0415
    from lessor.leasing.notes import Holder, note_folder  # noqa: PLC0415
    from lessor.leasing.private_files import NotPrivate  # noqa: PLC0415
    from lessor.leasing.refreshed import Tools  # noqa: PLC0415
    from lessor.leasing.server import SECONDS, GrpcLeaseServer  # noqa: PLC0415
    from lessor.refresh import Setback  # noqa: PLC0415

    clock, done = SystemClock(), True
    async with GrpcLeaseServer(connection, clock, seconds or SECONDS) as server:
        for lease_id in lease_ids:
            try:
                await server.revoke(lease_id, REVOKE_SECONDS)
            except (Error, BadConnection) as error:
                if setback_of(error) is not Setback.LOST:
                    report(f"lease {lease_id} was not revoked: {error}")
                    done = False
        try:
            notes = (note_folder(os.environ), Holder(connection.address, caller_of(connection)))
        except NotPrivate as error:
            report(f"warning: {error}")
        else:
            await revoke_of_the_dead(notes, Tools(server, clock, random.SystemRandom(), report))
    return done
