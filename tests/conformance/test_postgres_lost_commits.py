"""Checks that each job of the store is done once if its connection ends in the commit.

The commit does not arrive, or it happens and its answer is lost. In both cases the job returns and leaves in
the database what it does on a good connection.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
import pytest
from tests.support import builders
from tests.support.hand_clock import HandClock
from tests.support.login_tokens import login_token
from tests.support.plain_keyring import PlainKeyring, open_keyring
from tests.support.postgres import database_of_worker, shared_postgres
from tests.support.postgres_proxy import PostgresProxy, postgres_proxy
from tests.support.postgres_store import HandDatabaseClock, url_of
from tests.support.stores import TERMS, Bench

from lessor_server.adapters.postgres import connection, replicas
from lessor_server.adapters.postgres.store import Opening, PostgresStore, open_postgres
from lessor_server.adapters.postgres.target import DatabaseTarget
from lessor_server.adapters.sql.clock import MARK
from lessor_server.adapters.sql.transaction import Transaction
from lessor_server.domain import lease as lease_steps
from lessor_server.domain import rotation as rotation_steps
from lessor_server.domain.lease import Orphan
from lessor_server.domain.lease_id import IdRange
from lessor_server.domain.mount import MountState
from lessor_server.domain.root import StoredRoot, root_context
from lessor_server.domain.rotation import Phase, Rotation, root_subject, static_subject
from lessor_server.engine.replica_ports import ReplicaSign, SharedEvent

IDS = IdRange.of_mount("aws")
STATIC = Rotation(static_subject("aws", "nightly"), user_name="nightly", user_id="AIDA", current="AKIA1")
SILENT = 25
A_MONTH = 30 * 86_400
READS = frozenset(
    (
        "count", "find_last_event", "find_replacing_rotation", "find_static_holder", "get",
        "get_bound_account", "get_mount", "get_owner", "get_role", "get_root", "get_rotation", "is_current",
        "leases_by_user_name", "list_data_keys", "list_due_within", "list_events", "list_mounts",
        "list_owners", "list_roles", "list_static", "list_static_of_disabled",
        "list_unfinished_of_removed_mounts", "load_issue_context", "measure_leases", "mount_names",
        "next_rotation_us", "page", "prefixes", "progress",
        "read_login_chain", "status",
    )
)  # fmt: skip
REPEATED = frozenset(("mark_range_revoking", "reopen", "revoke"))
"""Jobs that count the generation of a lease up once more when they are repeated: no step is lost by that."""
TABLES = (
    "leases", "lease_counts", "mounts", "roots", "roles", "rotations", "prefixes", "sealing_keys", "row_macs",
    "replicas", "rate_shares", "lease_events", "login_tokens", "meta",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shared(Bench):
    """A store on PostgreSQL."""

    store: PostgresStore


class Jobs:
    """A method for each job that writes: it stores what the job needs, yields, and yields the result."""

    async def abandon(self, b: Shared) -> AsyncIterator[object]:
        for number in range(3):
            await b.active(number)
        yield
        yield sorted(await b.store.abandon(IDS, 10, live=True))

    async def add_data_key(self, b: Shared) -> AsyncIterator[object]:
        yield
        yield await b.store.add_data_key(replace(PlainKeyring().first, id="key-1"))

    async def add_login_token(self, b: Shared) -> AsyncIterator[object]:
        yield
        yield await b.store.add_login_token(login_token(1, b.clock.wall), 5)

    async def add_rotation(self, b: Shared) -> AsyncIterator[object]:
        yield
        yield await b.store.add_rotation(STATIC)

    async def adopt(self, b: Shared) -> AsyncIterator[object]:
        orphan = builders.intent(7)
        yield
        yield await b.store.adopt(Orphan(orphan.id, "aws", "app", orphan.footprint))

    async def append_events(self, b: Shared) -> AsyncIterator[object]:
        await b.store.append_events("other", [SharedEvent("ISSUED", "a", "alice", 1)])
        yield
        yield await b.store.append_events("me", [SharedEvent("ISSUED", one, "alice", 2) for one in "bc"])

    async def begin(self, b: Shared) -> AsyncIterator[object]:
        yield
        yield await b.begun()

    async def begin_keyring(self, b: Shared) -> AsyncIterator[object]:
        keyring = PlainKeyring()
        yield
        yield await b.store.begin_keyring(keyring.first, keyring)

    async def bind_account(self, b: Shared) -> AsyncIterator[object]:
        await b.store.put_mount(None, builders.mount("lab"))
        await b.store.put_root(builders.stored_root("lab", account=""), 0)
        yield
        yield await b.store.bind_account("lab", 1, builders.ACCOUNT)

    async def claim(self, b: Shared) -> AsyncIterator[object]:
        lease = await b.active()
        await b.store.revoke(lease.id)
        yield
        yield await b.store.claim([lease.id], TERMS)

    async def claim_due(self, b: Shared) -> AsyncIterator[object]:
        for number in range(3):
            await b.store.revoke((await b.active(number)).id)
        yield
        yield await b.store.claim_due(TERMS, 2)

    async def claim_rotation(self, b: Shared) -> AsyncIterator[object]:
        await _idle(b)
        yield
        yield await b.store.claim_rotation(STATIC.subject)

    async def claim_rotations(self, b: Shared) -> AsyncIterator[object]:
        await _idle(b)
        yield
        yield await b.store.claim_rotations(5, frozenset())

    async def close_prefix(self, b: Shared) -> AsyncIterator[object]:
        prefix, _ = await b.store.open_prefix(IDS)
        yield
        yield await b.store.close_prefix(prefix)

    async def delete_role(self, b: Shared) -> AsyncIterator[object]:
        await b.store.put_role(builders.role(), None)
        yield
        yield await b.store.delete_role("aws", "app")

    async def disable(self, b: Shared) -> AsyncIterator[object]:
        await b.active()
        yield
        yield await b.store.disable("aws")

    async def drop_data_keys(self, b: Shared) -> AsyncIterator[object]:
        await b.store.add_data_key(replace(PlainKeyring().first, id="key-1"))
        yield
        yield await b.store.drop_data_keys("key-1")

    async def end_login_token(self, b: Shared) -> AsyncIterator[object]:
        parent = login_token(1, b.clock.wall)
        await b.store.add_login_token(parent, 5)
        await b.store.add_login_token(login_token(2, b.clock.wall, parent=parent.digest, depth=1), 5)
        yield
        yield sorted(await b.store.end_login_token(parent.digest))

    async def forget_rotation(self, b: Shared) -> AsyncIterator[object]:
        rotation = await b.store.add_rotation(STATIC)
        assert rotation is not None
        yield
        yield await b.store.forget_rotation(rotation)

    async def forget_static(self, b: Shared) -> AsyncIterator[object]:
        await b.store.add_rotation(STATIC)
        await b.store.disable("aws")
        yield
        yield await b.store.forget_static("aws")

    async def lower_clock(self, b: Shared) -> AsyncIterator[object]:
        b.clock.advance(100)
        await b.begun()
        b.clock.wall -= 50_000_000
        yield
        yield await b.store.lower_clock()

    async def mark_range_revoking(self, b: Shared) -> AsyncIterator[object]:
        for number in range(3):
            await b.active(number)
        prefix, _ = await b.store.open_prefix(IDS)
        yield
        yield await b.store.mark_range_revoking(prefix, "", 10)

    async def move_rotation(self, b: Shared) -> AsyncIterator[object]:
        rotation = await b.store.add_rotation(STATIC)
        assert rotation is not None
        yield
        yield await b.store.move_rotation(replace(rotation, current="AKIA2"), done=True)

    async def note_audit_key(self, b: Shared) -> AsyncIterator[object]:
        yield
        yield await b.store.note_audit_key("public")

    async def open_prefix(self, b: Shared) -> AsyncIterator[object]:
        await b.active()
        yield
        yield await b.store.open_prefix(IDS)

    async def purge_login_tokens(self, b: Shared) -> AsyncIterator[object]:
        await b.store.add_login_token(login_token(1, b.clock.wall), 5)
        b.clock.advance(A_MONTH)
        yield
        yield await b.store.purge_login_tokens(10)

    async def purge_tombstones(self, b: Shared) -> AsyncIterator[object]:
        claimed = await b.taken()
        await b.store.write(claimed, lease_steps.finish(claimed))
        b.clock.advance(A_MONTH)
        yield
        yield await b.store.purge_tombstones(builders.ACCOUNT, b.store.now())

    async def put_mount(self, b: Shared) -> AsyncIterator[object]:
        yield
        yield await b.store.put_mount(None, builders.mount("lab"))

    async def put_role(self, b: Shared) -> AsyncIterator[object]:
        yield
        yield await b.store.put_role(builders.role(), None)

    async def put_root(self, b: Shared) -> AsyncIterator[object]:
        yield
        yield await b.store.put_root(builders.stored_root(version=2), 1)

    async def remove_disabled(self, b: Shared) -> AsyncIterator[object]:
        await b.store.put_mount(None, builders.mount("lab", state=MountState.DISABLING))
        yield
        yield await b.store.remove_disabled()

    async def remove_replica(self, b: Shared) -> AsyncIterator[object]:
        await b.store.report_alive(_sign(b, "me"))
        yield
        yield await b.store.remove_replica("me")

    async def reopen(self, b: Shared) -> AsyncIterator[object]:
        claimed = await b.taken()
        await b.store.write(claimed, lease_steps.finish(claimed))
        yield
        yield await b.store.reopen(claimed.id, 5)

    async def renew_login_token(self, b: Shared) -> AsyncIterator[object]:
        token = login_token(1, b.clock.wall)
        await b.store.add_login_token(token, 5)
        yield
        yield await b.store.renew_login_token(replace(token, expires_us=token.expires_us + 1))

    async def report_alive(self, b: Shared) -> AsyncIterator[object]:
        await b.store.report_alive(_sign(b, "other"))
        yield
        yield await b.store.report_alive(_sign(b, "me"))

    async def reseal_leases(self, b: Shared) -> AsyncIterator[object]:
        await b.active()
        await _use_another_key(b)
        yield
        yield await b.store.reseal_leases("", 10)

    async def reseal_login_tokens(self, b: Shared) -> AsyncIterator[object]:
        await b.store.add_login_token(login_token(1, b.clock.wall), 5)
        await _use_another_key(b)
        yield
        yield await b.store.reseal_login_tokens("", 10)

    async def reseal_mount(self, b: Shared) -> AsyncIterator[object]:
        sealed = PlainKeyring().seal(b"root", root_context("aws"), "2")
        await b.store.put_root(replace(builders.stored_root(version=2), sealed=sealed), 1)
        await _use_another_key(b)
        yield
        yield await b.store.reseal_mount("")

    async def revoke(self, b: Shared) -> AsyncIterator[object]:
        lease = await b.active()
        yield
        revoked = await b.store.revoke(lease.id)
        assert revoked is not None
        yield replace(revoked, generation=0)

    async def rewrap_data_keys(self, b: Shared) -> AsyncIterator[object]:
        yield
        yield await b.store.rewrap_data_keys([replace(PlainKeyring().first, wrapped=b"in another way")])

    async def set_expiry_hold(self, b: Shared) -> AsyncIterator[object]:
        yield
        yield await b.store.set_expiry_hold("REASON")

    async def share_hash_key(self, b: Shared) -> AsyncIterator[object]:
        yield
        yield await b.store.share_hash_key(b"sealed")

    async def switch_root(self, b: Shared) -> AsyncIterator[object]:
        fresh = Rotation(root_subject("aws"), phase=Phase.MADE, current="OLD", fresh="NEW", fresh_sealed=b"s")
        made = await b.store.add_rotation(fresh)
        assert made is not None
        root = StoredRoot("aws", b"new", builders.ACCOUNT, 2, "etag-2")
        yield
        yield await b.store.switch_root(rotation_steps.switch(made, 9, b.clock.wall), root)

    async def unlock(self, b: Shared) -> AsyncIterator[object]:
        yield
        yield await b.store.unlock(PlainKeyring())

    async def void_claims_of(self, b: Shared) -> AsyncIterator[object]:
        await b.store.report_alive(_sign(b, TERMS.by))
        await b.taken()
        b.clock.advance(SILENT)
        yield
        yield await b.store.void_claims_of([TERMS.by])

    async def void_lost_claims(self, b: Shared) -> AsyncIterator[object]:
        kept, _ = await b.taken(1), await b.taken(2)
        yield
        yield await b.store.void_lost_claims(TERMS.by, [kept.id])

    async def renew(self, b: Shared) -> AsyncIterator[object]:
        lease = await b.active()
        yield
        yield await b.store.renew(lease.id, lambda one, now: lease_steps.renew(one, now + 10**9, now))

    async def void_stale_claims(self, b: Shared) -> AsyncIterator[object]:
        await b.taken()
        yield
        yield await b.store.void_stale_claims()

    async def write(self, b: Shared) -> AsyncIterator[object]:
        lease = await b.begun()
        yield
        yield await b.store.write(lease, lease_steps.activate(lease, "AKIA", b.store.now()))


async def _idle(b: Shared) -> None:
    """Store an unclaimed rotation that is due."""
    rotation = await b.store.add_rotation(STATIC)
    assert rotation is not None
    assert await b.store.move_rotation(replace(rotation, due_us=b.clock.wall), done=True)


async def _use_another_key(b: Shared) -> None:
    keyring = PlainKeyring()
    await b.store.unlock(keyring)
    key = await keyring.make()
    await b.store.add_data_key(key)
    keyring.use(key.id)


def _sign(b: Shared, name: str) -> ReplicaSign:
    return ReplicaSign(name, "1.2.3", b.clock.wall)


NAMES = tuple(name for name in vars(Jobs) if not name.startswith("_"))


def test_each_job_of_the_store_is_tried() -> None:
    """A new job must be added here, whatever it does."""
    methods = {
        name
        for name, method in inspect.getmembers(PostgresStore, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    assert methods - {"backup"} == {*NAMES, *READS}
    for name in READS:
        assert "jobs.write" not in inspect.getsource(getattr(PostgresStore, name))


@pytest.fixture(name="proxy")
async def proxied(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresProxy]:
    """Run a proxy to the server of all tests."""
    monkeypatch.setattr(connection, "RECONNECT_SECONDS", 0.0)
    async with postgres_proxy(shared_postgres().folder / ".s.PGSQL.5432") as proxy:
        yield proxy


@pytest.mark.parametrize("name", NAMES)
async def test_a_job_is_done_once_if_its_connection_ends_in_the_commit(
    name: str,
    proxy: PostgresProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = await run(name, proxy, "never", tmp_path / "never", monkeypatch)
    assert await run(name, proxy, "before", tmp_path / "before", monkeypatch) == expected
    assert await run(name, proxy, "after", tmp_path / "after", monkeypatch) == expected
    assert not caplog.records


async def run(
    name: str, proxy: PostgresProxy, moment: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[object, dict[str, list[str]]]:
    """Run a job whose connection ends at that moment of its commit; return its result and all rows."""
    url = await url_of(folder)
    clock = HandClock()

    async def read_clock(_: Transaction) -> int:
        return clock.wall

    monkeypatch.setattr(replicas, "_read_clock", read_clock)
    target = DatabaseTarget(url if moment == "never" else proxy.url(database_of_worker()))
    async with open_postgres(target, HandDatabaseClock(clock), Opening(is_alone=True)) as store:
        if name != "begin_keyring":
            await open_keyring(store)
            await store.put_mount(None, builders.mount())
            await store.put_root(builders.stored_root(), 0)
        steps = getattr(Jobs(), name)(Shared(store, clock))
        await anext(steps)
        cut_off = cut_once(proxy, moment)
        result = await anext(steps)
        assert len(cut_off) == (moment != "never")
        await steps.aclose()
    return result, await rows(repeated=name in REPEATED)


def cut_once(proxy: PostgresProxy, moment: str) -> list[bytes]:
    """Cut the connection at the next commit; return the block that was cut at, once it was."""
    seen: list[bytes] = []

    def is_first(block: bytes) -> bool:
        if seen or b"COMMIT" not in block:
            return False
        seen.append(block)
        return True

    proxy.cut_before = is_first if moment == "before" else lambda _: False
    proxy.drop_answer = is_first if moment == "after" else lambda _: False
    return seen


async def rows(*, repeated: bool) -> dict[str, list[str]]:
    """Return the rows of all tables, without what is drawn or moves with the time."""
    unstable = {"generation"} if repeated else set()
    found: dict[str, list[str]] = {}
    database = await asyncpg.connect(shared_postgres().url(database_of_worker()))
    try:
        for table in TABLES:
            read = await database.fetch(f"SELECT to_jsonb(t)::text FROM {table} AS t")
            plain = [json.loads(row[0]) for row in read]
            found[table] = sorted(
                json.dumps({key: value for key, value in row.items() if key not in unstable})
                for row in plain
                if row.get("key") not in ("instance", "incarnation", MARK)
            )
    finally:
        await database.close()
    return found
