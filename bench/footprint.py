"""``python -m bench.footprint``: what leases take of a database, and what calls to the server cost it.

Prints bytes a row on SQLite and on PostgreSQL, the statements, commits and WAL bytes of an issue, a renewal,
a revocation and an expiry, and the CPU of an issue with one, two and three replicas. ``docs/scaling.md``
shows a run. Every server is a real process, on the PostgreSQL of the tests, with ``fsync`` on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import cast

import grpc
import structlog
from google.protobuf.json_format import ParseDict
from tests.support.postgres import PostgresProcess, own_postgres

from bench import lessor as lessors
from bench.children import BenchError, child
from bench.lessor import PLAIN, POLICY, TOKEN, Lessor
from bench.world import World, report_progress, standing
from lessor.v1 import (
    config_pb2,
    config_pb2_grpc,
    creds_pb2,
    creds_pb2_grpc,
    lease_pb2,
    lease_pb2_grpc,
    role_pb2,
    role_pb2_grpc,
)
from lessor_server.domain.rate_shares import ShareRequest
from lessor_server.engine.replica_ports import ReplicaSign, ReplicaStore
from lessor_server.keyring_start import KeyringStart
from lessor_server.settings.model import Settings, load
from lessor_server.store_start import open_store_of

_METADATA = (("authorization", f"Bearer {TOKEN}"),)
_CALL_SECONDS, _EXPIRY_SECONDS = 60.0, 120.0
_AT_ONCE = 32
EXPIRY = "issue, expiry"
"""The row of leases that are issued and then expire."""
_IDLE_SECONDS = 10.0
_MOUNTS = 300
_SHORT_TTL = 20
"""Seconds; all leases of the expiry row are issued within it."""
_STATEMENT = re.compile(r"LOG:  (?:execute|statement)[^:]*: (.*)")


@dataclass(frozen=True, slots=True)
class Counted:
    """What PostgreSQL has done: statements but BEGIN and COMMIT, transactions of several, bytes of WAL."""

    statements: int
    commits: int
    wal: int

    def __sub__(self, other: Counted) -> Counted:
        """Return what was counted since ``other``."""
        return Counted(self.statements - other.statements, self.commits - other.commits, self.wal - other.wal)

    def each(self, count: int, idle: Counted, seconds: float) -> str:
        """Return what one of ``count`` took, less what the idle server does in ``seconds``."""
        part = seconds / _IDLE_SECONDS
        found = (
            (self.statements - idle.statements * part) / count,
            (self.commits - idle.commits * part) / count,
            (self.wal - idle.wal * part) / count,
        )
        return f"{found[0]:6.2f} statements  {found[1]:6.2f} commits  {found[2]:8,.0f} bytes of WAL"


# --- calls -------------------------------------------------------------------------------------------------


def call_all(server: Lessor, calls: Sequence[Callable[[grpc.Channel], str]], at_once: int) -> list[str]:
    """Make calls, so many at a time; return their answers."""
    with grpc.insecure_channel(server.address) as channel, ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda call: call(channel), calls))


def issue(ttl: int) -> Callable[[grpc.Channel], str]:
    """Return a call that issues a credential and returns the id of its lease."""

    def call(channel: grpc.Channel) -> str:
        request = creds_pb2.GenerateCredentialsRequest(role=PLAIN)
        request.ttl.FromSeconds(ttl)
        stub = creds_pb2_grpc.CredsServiceStub(channel)
        return str(stub.GenerateCredentials(request, metadata=_METADATA, timeout=_CALL_SECONDS).lease_id)

    return call


def renew(lease_id: str) -> Callable[[grpc.Channel], str]:
    """Return a call that renews a lease."""

    def call(channel: grpc.Channel) -> str:
        request = lease_pb2.RenewLeaseRequest(lease_id=lease_id)
        stub = lease_pb2_grpc.LeaseServiceStub(channel)
        stub.RenewLease(request, metadata=_METADATA, timeout=_CALL_SECONDS)
        return lease_id

    return call


def revoke(lease_id: str) -> Callable[[grpc.Channel], str]:
    """Return a call that revokes a lease and waits until it is GONE."""

    def call(channel: grpc.Channel) -> str:
        request = lease_pb2.RevokeLeaseRequest(lease_id=lease_id, sync=True)
        stub = lease_pb2_grpc.LeaseServiceStub(channel)
        stub.RevokeLease(request, metadata=_METADATA, timeout=_CALL_SECONDS)
        return lease_id

    return call


# --- servers -----------------------------------------------------------------------------------------------


@contextmanager
def replicas(world: World, url: str, count: int, **more: str) -> Iterator[list[Lessor]]:
    """Run ``count`` servers on one database, the first of which is prepared if it is new."""
    key = world.path("sealing-key")
    if not key.exists():
        key.write_bytes(bytes(range(32)))
        key.chmod(0o600)
    settings = {"LESSOR_STORE_URL": url, "LESSOR_SEALING_KEY": f"file:{key}", **more} if url else more
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                lessors.lessor(world.environment("data", settings), world.path(f"replica-{number}.log"))
            )
            for number in range(count)
        ]
        mark = world.path(f"prepared-{url.partition('?')[0].rpartition('/')[2]}")
        if not mark.exists():
            lessors.prepare(servers[0], world.url)
            mark.touch()
        yield servers


def count_of(postgres: PostgresProcess) -> Counted:
    """Read the position in the WAL, and count what the databases that log statements have logged."""
    wal = postgres.run("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
    log = (postgres.folder / "log").read_text(encoding="utf-8", errors="replace")
    words = Counter(text.partition(" ")[0].rstrip(";") for text in _STATEMENT.findall(log))
    return Counted(words.total() - words["BEGIN"] - words["COMMIT"], words["COMMIT"], int(float(wal)))


# --- rows --------------------------------------------------------------------------------------------------


def bytes_of_rows(world: World, postgres: PostgresProcess, leases: int) -> None:
    """Print the bytes of a row and of its part of the indexes, by table, on both databases."""
    url = postgres.create_database("rows")
    for name, at in (("SQLite", ""), ("PostgreSQL", url)):
        with replicas(world, at, 1) as servers:
            configure(servers[0], world.url)
            servers[0].stop()
        fill(world, at, leases)
        sizes = sizes_on_postgres(postgres) if at else sizes_on_sqlite(world.path("data") / "lessor.db")
        print(f"\nbytes a row on {name}, {leases:,} leases")
        for table, (rows, of_table, of_indexes) in sizes.items():
            if rows >= _MOUNTS:
                print(f"  {table:<14}{of_table / rows:8,.0f} and {of_indexes / rows:6,.0f} in indexes")


def configure(server: Lessor, backend: str) -> None:
    """Enable mounts, each with a root and a role, whose rows can be counted."""
    with grpc.insecure_channel(server.address) as channel:
        config, roles = config_pb2_grpc.ConfigServiceStub(channel), role_pb2_grpc.RoleServiceStub(channel)
        for number in range(_MOUNTS):
            mount = f"account-{number:06}"
            key = config_pb2.RootConfig(
                access_key=f"AKIA{number:016}",
                secret_key="s" * 40,
                iam_endpoint=backend,
                sts_endpoint=backend,
            )
            role = ParseDict({"name": "reader", "credential_type": "IAM_USER"}, role_pb2.Role())
            role.policy_document.update(json.loads(POLICY))
            enable = config_pb2.EnableMountRequest(mount=mount)
            config.EnableMount(enable, metadata=_METADATA, timeout=_CALL_SECONDS)
            root = config_pb2.SetRootRequest(mount=mount, config=key)
            config.SetRoot(root, metadata=_METADATA, timeout=_CALL_SECONDS)
            put = role_pb2.PutRoleRequest(mount=mount, role=role)
            roles.PutRole(put, metadata=_METADATA, timeout=_CALL_SECONDS)


def fill(world: World, url: str, leases: int) -> None:
    """Write leases through the product's own store."""
    key = f"file:{world.path('sealing-key')}"
    settings = {"LESSOR_STORE_URL": url, "LESSOR_SEALING_KEY": key} if url else {}
    env = world.environment("data", settings)
    with child("bench.fill", PLAIN, str(leases), "0", env=env, log=world.path("fill.log")) as filler:
        while "seconds" not in (said := filler.answer()):
            report_progress(f"{said['leases']:,} leases are written")
        filler.process.wait()


def sizes_on_sqlite(file: Path) -> dict[str, tuple[int, int, int]]:
    """Return rows, bytes of the table and bytes of its indexes, by table (``dbstat``, sqlite.org/dbstat)."""
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        owners = dict(database.execute("SELECT name, tbl_name FROM sqlite_schema WHERE rootpage > 0"))
        sizes = dict(database.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"))
        found = {}
        for table in {one for name, one in owners.items() if name == one}:
            rows = int(database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])
            indexes = sum(sizes.get(name, 0) for name, of in owners.items() if of == table != name)
            found[table] = rows, sizes.get(table, 0), indexes
    return found


def sizes_on_postgres(postgres: PostgresProcess) -> dict[str, tuple[int, int, int]]:
    """Return rows, bytes of the table and bytes of its indexes, by table."""
    postgres.run("VACUUM ANALYZE", "rows")
    printed = postgres.run(
        "SELECT relname, n_live_tup, pg_table_size(relid), pg_indexes_size(relid) FROM pg_stat_user_tables",
        "rows",
    )
    lines = (line.split("|") for line in printed.splitlines())
    return {name: (int(rows), int(table), int(indexes)) for name, rows, table, indexes in lines}


# --- statements --------------------------------------------------------------------------------------------


def statements(world: World, postgres: PostgresProcess, count: int) -> None:
    """Print what each operation takes, one after another and many at the same time."""
    url = postgres.create_database("counted")
    postgres.run("ALTER DATABASE counted SET log_statement = 'all'")
    audit = world.path("audit.log")
    with replicas(world, url, 1, LESSOR_AUDIT_FILE=str(audit)) as (server,):
        call_all(server, [issue(3600)] * _AT_ONCE, _AT_ONCE)
        before = count_of(postgres)
        time.sleep(_IDLE_SECONDS)
        idle = count_of(postgres) - before
        print(f"\nidle, in {_IDLE_SECONDS:.0f} s: {idle}")

        def measure(name: str, calls: Sequence[Callable[[grpc.Channel], str]], at_once: int) -> list[str]:
            postgres.run("CHECKPOINT")
            before, began = count_of(postgres), time.monotonic()
            answers = call_all(server, calls, at_once)
            if name == EXPIRY:
                wait_until_gone(world, len(answers))
            took = time.monotonic() - began
            found = (count_of(postgres) - before).each(len(calls), idle, took)
            print(f"  {name:<13} {at_once:>2} at a time  {found}", flush=True)
            return answers

        for at_once in (1, _AT_ONCE):
            ids = measure("issue", [issue(3600)] * count, at_once)
            measure("renewal", [renew(one) for one in ids], at_once)
            measure("revocation", [revoke(one) for one in ids], at_once)
        measure(EXPIRY, [issue(_SHORT_TTL)] * count, _AT_ONCE)
        records = audit.read_bytes().count(b"\n")
        print(f"  audit record: {audit.stat().st_size / records:,.0f} bytes, of {records:,}")


def wait_until_gone(world: World, count: int) -> None:
    """Wait until as many users as were created have been deleted."""
    until, most = time.monotonic() + _EXPIRY_SECONDS, world.living("iam")
    while world.living("iam") > most - count:
        if time.monotonic() > until:
            raise BenchError("leases do not expire")
        time.sleep(0.2)


# --- signs of life ----------------------------------------------------------------------------------------


def signs(world: World, postgres: PostgresProcess, accounts: int, rounds: int = 10) -> None:
    """Print what a sign of life takes that asks for the shares of so many accounts' rates, of three replicas.

    Signs are given one after another, so their time limits the number of replicas.
    """
    url = postgres.create_database("signs")
    with replicas(world, url, 1) as servers:
        servers[0].stop()
    key = f"file:{world.path('sealing-key')}"
    env = world.environment("data", {"LESSOR_STORE_URL": url, "LESSOR_SEALING_KEY": key})
    before, cpu = count_of(postgres), cpu_of_database(postgres)
    seconds = asyncio.run(_give_signs(load(None, env), accounts, rounds))
    wal, cpu = (count_of(postgres) - before).wal / 3 / rounds, (cpu_of_database(postgres) - cpu) / 3 / rounds
    line = f"{median(seconds) * 1e3:.0f} ms, {cpu * 1e3:.0f} ms CPU of PostgreSQL, {wal:,.0f} bytes of WAL"
    print(f"\na sign of life with {accounts:,} accounts: {line}", flush=True)


async def _give_signs(settings: Settings, accounts: int, rounds: int) -> list[float]:
    """Give signs of three replicas in turn; return the seconds of each."""
    key, seconds = KeyringStart(settings, structlog.get_logger(), lambda _: None), []
    async with open_store_of(settings, lambda _: None, partial(key.verify, _open_nothing)) as store:
        await key.open(store)
        shared = cast("ReplicaStore", store)
        asked = tuple(ShareRequest(f"{number:012} iam", 25.0, 2.0, 8.0) for number in range(accounts))
        for number in range(3 * rounds):
            sign = ReplicaSign(f"replica-{number % 3}", "1", time.time_ns() // 1000, shares=asked)
            began = time.perf_counter()
            await shared.report_alive(sign)
            seconds.append(time.perf_counter() - began)
    return seconds


async def _open_nothing() -> None:
    """Open no port while the key is away: it is in a file."""


# --- replicas ----------------------------------------------------------------------------------------------


def replicas_of(world: World, postgres: PostgresProcess, count: int) -> None:
    """Print the CPU of an issue and the memory with one, two and three replicas."""
    url = postgres.create_database("replicas")
    print(f"\n{count:,} issues, {_AT_ONCE} at a time")
    for number in (1, 2, 3):
        with replicas(world, url, number) as servers, ThreadPoolExecutor(number) as pool:
            share, at_once = count // number, max(_AT_ONCE // number, 1)
            list(pool.map(lambda one: call_all(one, [issue(3600)] * at_once, at_once), servers))  # noqa: B023
            before = [one.child.cpu_seconds() for one in servers]
            database = cpu_of_database(postgres)
            list(pool.map(lambda one: call_all(one, [issue(3600)] * share, at_once), servers))  # noqa: B023
            used = sum(one.child.cpu_seconds() for one in servers) - sum(before)
            database = cpu_of_database(postgres) - database
            memory = ", ".join(f"{one.child.resident_bytes() / 1e6:.0f}" for one in servers)
            each, of_database = (1e3 * took / (share * number) for took in (used, database))
            cpu = f"{each:.2f} ms CPU an issue, {of_database:.2f} of PostgreSQL"
            print(f"  {number} replicas: {cpu}, {memory} MB", flush=True)


def cpu_of_database(postgres: PostgresProcess) -> float:
    """Return the CPU seconds of PostgreSQL's processes that run, sessions that ended included."""
    assert postgres.process is not None
    main = postgres.process.pid
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, fields = int(stat.parent.name), stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if pid == main:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == main:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.footprint", description=__doc__)
    parser.add_argument("--leases", type=int, default=50_000, help="leases of the sizes")
    parser.add_argument("--calls", type=int, default=300, help="calls of each kind")
    given = parser.parse_args()
    with standing() as world, own_postgres(fsync="on", full_page_writes="on") as postgres:
        statements(world, postgres, given.calls)
        signs(world, postgres, 1_000)
        replicas_of(world, postgres, 4 * given.calls)
        bytes_of_rows(world, postgres, given.leases)
    return 0


if __name__ == "__main__":
    sys.exit(main())
