"""Checks that a store on PostgreSQL outlives what happens to its server and to its connections."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from tests.support import builders, lease_steps
from tests.support.hand_clock import HandClock
from tests.support.postgres import PostgresProcess, own_postgres
from tests.support.postgres_proxy import PostgresProxy, postgres_proxy
from tests.support.postgres_store import HandDatabaseClock
from tests.support.stores import SPAN, TERMS

from lessor_server.adapters.postgres.connection import DatabaseRefused
from lessor_server.adapters.postgres.statements import MAX_PURGED
from lessor_server.adapters.postgres.store import Opening, PostgresStore, open_postgres
from lessor_server.adapters.postgres.target import DatabaseTarget
from lessor_server.adapters.sql.statements import LEASE_COLUMNS
from lessor_server.adapters.sql.transaction import REPEAT, Transaction
from lessor_server.domain.errors.access import RuleFull
from lessor_server.domain.errors.base import LessorError, StoreUnavailable
from lessor_server.domain.events import Event, StoreBack, StoreFailed
from lessor_server.domain.lease import State
from lessor_server.domain.lease_id import EVERYTHING, IdRange
from lessor_server.domain.rotation import static_subject

IDS = IdRange.of_mount("aws")
STATIC = static_subject("aws", "nightly")


@pytest.fixture(scope="module", name="server")
def started() -> Iterator[PostgresProcess]:
    """Run a server that the tests of this file kill."""
    with own_postgres(deadlock_timeout="100ms") as server:
        yield server


@asynccontextmanager
async def opened(
    url: str, clock: HandClock | None = None, events: list[Event] | None = None
) -> AsyncIterator[PostgresStore]:
    """Open a database with a mount and a root."""
    notify = (events if events is not None else []).append
    async with open_postgres(
        DatabaseTarget(url), HandDatabaseClock(clock or HandClock()), Opening(notify=notify)
    ) as store:
        await store.put_mount(None, builders.mount())
        await store.put_root(builders.stored_root(), 0)
        yield store


@pytest.fixture(name="database")
def created(server: PostgresProcess, request: pytest.FixtureRequest) -> str:
    """Return the name of a new database."""
    name = f"d{abs(hash(request.node.name))}"
    server.create_database(name)
    return name


@pytest.fixture(name="proxy")
async def proxied(server: PostgresProcess) -> AsyncIterator[PostgresProxy]:
    """Run a proxy to the server."""
    async with postgres_proxy(server.folder / ".s.PGSQL.5432") as proxy:
        yield proxy


async def issue(store: PostgresStore, number: int) -> State | None:
    """Store a lease and activate it; return its state, or None if the store was not available."""
    try:
        lease = await store.begin(builders.intent(number), SPAN)
        active = await lease_steps.activate(store, lease, f"AKIA{number}")
    except StoreUnavailable:
        return None
    return active.state if active else None


async def test_a_killed_server_loses_nothing_that_was_answered(
    server: PostgresProcess, database: str
) -> None:
    events: list[Event] = []
    answered: dict[int, State | None] = {}
    async with opened(server.url(database), events=events) as store:
        stop = asyncio.Event()

        async def work(first: int) -> None:
            for number in itertools.count(first):
                answered[number] = await issue(store, number)
                if stop.is_set():
                    return

        async with asyncio.TaskGroup() as group:
            for worker in range(8):
                group.create_task(work(10_000 * worker))
            while len(answered) < 40:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(server.kill)
            while StoreFailed not in map(type, events):
                await asyncio.sleep(0.01)
            await asyncio.to_thread(server.start)
            while type(events[-1]) is not StoreBack:
                await asyncio.sleep(0.01)
            stop.set()
        lived = [number for number, state in answered.items() if state is State.ACTIVE]
        for number in lived:
            lease = await store.get(builders.intent(number).id)
            assert lease is not None
            assert lease.state is State.ACTIVE
        counts = await store.count(EVERYTHING, State.ACTIVE)
        assert sum(one.count for one in counts) >= len(lived) > 0
    kinds = [type(event) for event in events]
    assert kinds.count(StoreFailed) >= 1
    assert kinds[-1] is StoreBack


async def test_reset_connections_are_replaced(database: str, proxy: PostgresProxy) -> None:
    async with opened(proxy.url(database)) as store:
        for number in range(3):
            assert await issue(store, number) is State.ACTIVE
            proxy.drop_all()
        assert await issue(store, 9) is State.ACTIVE


async def test_half_closed_connections_are_replaced(database: str, proxy: PostgresProxy) -> None:
    async with opened(proxy.url(database)) as store:
        proxy.close_half()
        assert await issue(store, 1) is State.ACTIVE


@pytest.mark.parametrize("is_write", [False, True])
async def test_a_job_whose_session_the_server_ends_is_run_again(
    server: PostgresProcess, database: str, *, is_write: bool
) -> None:
    """As in a fail-over: if the driver passes on that the server shuts down, it is as a lost connection."""
    runs = 0

    async def job(tx: Transaction) -> int:
        nonlocal runs
        runs += 1
        if runs == 1:
            await tx.row("SELECT pg_terminate_backend(pg_backend_pid())", {})
        if runs == 2:
            raise asyncpg.AdminShutdownError("terminating connection due to administrator command")
        return runs

    async with opened(server.url(database)) as store:
        assert await (store._jobs.write(job, REPEAT) if is_write else store._jobs.read(job)) == 3


async def test_a_slow_network_is_no_failure(database: str, proxy: PostgresProxy) -> None:
    events: list[Event] = []
    async with opened(proxy.url(database), events=events) as store:
        proxy.delay = 0.05
        assert await issue(store, 1) is State.ACTIVE
    assert events == []


async def test_a_server_that_refuses_is_reported_once_and_found_again(
    database: str, proxy: PostgresProxy
) -> None:
    events: list[Event] = []
    async with opened(proxy.url(database), events=events) as store:
        proxy.is_refusing = True
        proxy.drop_all()
        for number in range(3):
            assert await issue(store, number) is None
        assert [type(event) for event in events] == [StoreFailed]
        with pytest.raises(StoreUnavailable) as raised:
            await store.get_mount("aws")
        assert raised.value.retry_in is not None
        proxy.is_refusing = False
        while len(events) < 2:
            await asyncio.sleep(0.01)
        assert [type(event) for event in events] == [StoreFailed, StoreBack]
        assert await issue(store, 9) is State.ACTIVE


async def test_two_stores_never_exceed_a_limit(server: PostgresProcess, database: str) -> None:
    async with opened(server.url(database)) as one, opened(server.url(database)) as two:

        async def begin(number: int) -> bool:
            try:
                await (one, two)[number % 2].begin(builders.intent(number, max_users=30), SPAN)
            except StoreUnavailable:
                raise
            except LessorError:
                return False
            return True

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(begin(number)) for number in range(80)]
        assert sum(task.result() for task in tasks) == 30


async def test_two_stores_never_claim_the_same_lease(server: PostgresProcess, database: str) -> None:
    clock = HandClock()
    async with opened(server.url(database), clock) as one, opened(server.url(database), clock) as two:
        for number in range(60):
            lease = await one.begin(builders.intent(number, ttl=timedelta(seconds=10)), SPAN)
            await lease_steps.activate(one, lease, "AKIA")
        clock.advance(20)

        async def claim(store: PostgresStore) -> list[str]:
            found: list[str] = []
            while claims := await store.claim_due(TERMS, 7):
                found += [lease.id for lease in claims]
            return found

        first, second = await asyncio.gather(claim(one), claim(two))
        assert len(first) + len(second) == len({*first, *second}) == 60


async def test_no_issue_escapes_a_bulk_revocation_of_another_store(
    server: PostgresProcess, database: str
) -> None:
    """What was stored before the revocation was accepted is covered by it, whoever stored it."""
    async with opened(server.url(database)) as one, opened(server.url(database)) as two:
        stored: list[str] = []

        async def begin() -> None:
            for number in range(60):
                stored.append((await one.begin(builders.intent(number), SPAN)).id)

        task = asyncio.create_task(begin())
        while len(stored) < 20:
            await asyncio.sleep(0)
        before = list(stored)
        prefix, count = await two.open_prefix(IDS)
        assert count >= len(before)
        marked = await two.mark_range_revoking(prefix, "", 1000)
        assert set(before) <= set(marked)
        await task


async def test_the_limit_of_a_rule_holds_for_two_stores_and_two_mounts(
    server: PostgresProcess, database: str
) -> None:
    limit = {"owner": "ci", "policy_rule": "+/creds/*", "rule_max_leases": 3}
    async with opened(server.url(database)) as one, opened(server.url(database)) as two:
        await one.put_mount(None, builders.mount("other"))
        await one.put_root(builders.stored_root("other"), 0)

        async def begin(store: PostgresStore, mount: str, number: int) -> bool:
            with suppress(RuleFull):
                await store.begin(builders.intent(number, mount, **limit), SPAN)
                return True
            return False

        for number in range(0, 80, 4):
            mine = [begin(one, "aws", number + nth) for nth in range(4)]
            others = [begin(two, "other", number + nth) for nth in range(4)]
            assert sum(await asyncio.gather(*mine, *others)) == 3
            await one._jobs.write(lambda tx: tx.change("DELETE FROM leases", {}), None)


async def test_a_deadlock_is_retried(server: PostgresProcess, database: str) -> None:
    """The store's session notices it first, so its transaction is the one that is rolled back."""
    async with opened(server.url(database)) as store:
        ids = [(await store.begin(builders.intent(number), SPAN)).id for number in range(2)]
        prefix, _ = await store.open_prefix(IDS)
        other = await asyncpg.connect(server.url(database), server_settings={"deadlock_timeout": "10s"})
        transaction = other.transaction()
        await transaction.start()
        await other.execute("UPDATE leases SET looks = 0 WHERE id = $1", ids[1])
        marking = asyncio.create_task(store.mark_range_revoking(prefix, "", 10))
        while not await other.fetchval("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted)"):
            await asyncio.sleep(0.01)
        await other.execute("UPDATE leases SET looks = 0 WHERE id = $1", ids[0])
        await transaction.rollback()
        assert await marking == ids
        await other.close()


async def test_many_tombstones_are_purged_in_small_transactions(
    server: PostgresProcess, database: str
) -> None:
    clock = HandClock()
    async with opened(server.url(database), clock) as store:
        lease = await store.begin(builders.intent(1), SPAN)
        columns = f"{LEASE_COLUMNS}, claimed_by, gone_us".replace("id, ", "", 1)
        copied = columns.replace(" state,", " 'GONE',").replace("gone_us", "1")
        server.run(
            f"INSERT INTO leases (id, {columns}) SELECT id || n, {copied} FROM leases,"
            f" generate_series(1, {MAX_PURGED + 10}) AS n",
            database,
        )
        clock.advance(30 * 86_400)
        assert await store.purge_tombstones(builders.ACCOUNT, store.now()) == MAX_PURGED + 10
        assert (await store.get(lease.id)) is not None


async def test_a_lock_that_another_program_holds_is_waited_for_two_seconds(
    server: PostgresProcess, database: str
) -> None:
    async with opened(server.url(database)) as store:
        lease = await store.begin(builders.intent(1), SPAN)
        other = await asyncpg.connect(server.url(database))
        transaction = other.transaction()
        await transaction.start()
        await other.execute("UPDATE leases SET looks = 0 WHERE id = $1", lease.id)
        with pytest.raises(StoreUnavailable, match="lock"):
            await store.revoke(lease.id)
        await transaction.rollback()
        await other.close()
        assert await store.revoke(lease.id)


async def test_a_database_that_only_reads_is_refused(server: PostgresProcess, database: str) -> None:
    server.run(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
    with pytest.raises(DatabaseRefused, match="only reads"):
        async with open_postgres(DatabaseTarget(server.url(database)), HandDatabaseClock(HandClock())):
            pass


async def test_the_text_of_a_target_has_no_password(tmp_path: Path) -> None:
    url = "postgresql://lessor:hush@db.example/lessor?password=hush&sslmode=verify-full"
    target = DatabaseTarget(url, password_file=tmp_path / "password")
    assert "hush" not in f"{target} {target!r}"
