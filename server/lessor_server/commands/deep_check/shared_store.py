"""Checks a store on PostgreSQL and its sealing key, without a change of either."""

from __future__ import annotations

from collections.abc import Iterator

from lessor.findings import Finding
from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.postgres.store import (
    read_database_keys,
    read_database_schema,
    read_database_time,
)
from lessor_server.commands.deep_check.aws import DOUBTFUL_SKEW_SECONDS
from lessor_server.commands.deep_check.store import check_key
from lessor_server.domain.errors.base import LessorError
from lessor_server.settings.model import Settings
from lessor_server.store_start import target_of


async def check_shared_store(settings: Settings) -> list[Finding]:
    """Check the connection, the schema and the key; roots and rows are left to a server that runs.

    Opening the store for them would store the time and the accounts of roots.
    """
    target = target_of(settings.store)
    try:
        version, newest = await read_database_schema(target)
        if version < newest:
            return [_old_schema(settings, version, newest)]
        clock = list(_judge_clock(await read_database_time(target)))
        key, _ = await check_key(settings, await read_database_keys(target))
    except LessorError as error:
        return [Finding.bad("database", error.message, error.fix)]
    schema = Finding.good("schema", f"the database has schema {version}, which is this version's")
    text = f"{target} answers; a running server checks the roots and rows in it: lessor config root check"
    return [Finding.good("database", text), schema, key, *clock]


def _old_schema(settings: Settings, version: int, newest: int) -> Finding:
    migrate = settings.store.migrate
    if not version and migrate is not False:
        return Finding.good("schema", "the database is empty; the first start creates the tables")
    if migrate:
        text = f"the database has schema {version}; the next start migrates it to {newest}"
        return Finding.doubtful("schema", text, "make a dump before that")
    text = f"the database has schema {version}, and this version needs {newest}"
    return Finding.bad("schema", text, "run lessor migrate, or start with store.migrate = true")


def _judge_clock(theirs: float) -> Iterator[Finding]:
    """Warn if the machine's clock differs from the database's, which all servers follow."""
    ahead = SystemClock().wall() - theirs
    if abs(ahead) > DOUBTFUL_SKEW_SECONDS:
        text = f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} its clock"
        yield Finding.doubtful("database", text, "set the clocks of both machines by NTP")
