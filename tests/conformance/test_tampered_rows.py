"""Checks that both kinds of stores refuse the same calls about a row that somebody else wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support import builders
from tests.support.memory_store import MemoryStore
from tests.support.postgres import database_of_worker, shared_postgres
from tests.support.sealed_store import edit
from tests.support.stores import OPENERS, TERMS, Bench, HandClock, bench

from lessor_server.domain.errors.sealing import RowTampered
from lessor_server.domain.lease_id import EVERYTHING
from lessor_server.domain.rotation import Rotation, static_subject
from lessor_server.engine.ports import Store

STATIC = static_subject("aws", "nightly")
LEASE = builders.intent().id
EDITS = {
    "mounts/aws": "UPDATE mounts SET max_users = 1",
    "roots/aws": "UPDATE roots SET account = 'aws:999999999999'",
    "roles/aws/app": "UPDATE roles SET body = replace(body, 's3:Get*', 's3:*') WHERE name = 'app'",
    f"rotations/{STATIC}": "UPDATE rotations SET body = json_set(body, '$.user_name', 'admin')",
    f"leases/{LEASE}": "UPDATE leases SET owner = 'thief'",
    "meta/held": "INSERT OR REPLACE INTO meta VALUES ('held', 'forged')",
}
POSTGRES_EDITS = EDITS | {
    f"rotations/{STATIC}": "UPDATE rotations SET body = jsonb_set(body::jsonb, '{user_name}', '\"admin\"')",
    "meta/held": "INSERT INTO meta VALUES ('held', 'forged')",
}
WRITES = ("put_mount", "bind_account", "claim_rotation", "revoke", "claim", "disable")
CALLS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "load_issue_context": lambda store: store.load_issue_context("aws", "app"),
    "load_issue_context of another role": lambda store: store.load_issue_context("aws", "other"),
    "get_mount": lambda store: store.get_mount("aws"),
    "put_mount": lambda store: store.put_mount(builders.mount(), builders.mount(max_users=7)),
    "list_mounts": lambda store: store.list_mounts("", 10),
    "mount_names": lambda store: store.mount_names("", 10),
    "get_root": lambda store: store.get_root("aws"),
    "bind_account": lambda store: store.bind_account("aws", 1, builders.ACCOUNT),
    "get_role": lambda store: store.get_role("aws", "app"),
    "list_roles": lambda store: store.list_roles("aws", "", 10),
    "get_rotation": lambda store: store.get_rotation(STATIC),
    "claim_rotation": lambda store: store.claim_rotation(STATIC),
    "get": lambda store: store.get(LEASE),
    "page": lambda store: store.page(EVERYTHING, None, "", 10),
    "status": lambda store: store.status(),
    "revoke": lambda store: store.revoke(LEASE),
    "claim": lambda store: store.claim([LEASE], TERMS),
    "disable": lambda store: store.disable("aws"),
}


async def furnish(b: Bench) -> None:
    """Store a row of each kind."""
    for name in ("app", "other"):
        await b.store.put_role(builders.role(name), None)
    added = await b.store.add_rotation(Rotation(STATIC, user_name="nightly", user_id="AIDA", current="AKIA1"))
    assert added is not None
    await b.store.move_rotation(added, done=True)
    await b.active()


@asynccontextmanager
async def edited(kind: str, folder: Path, place: str) -> AsyncIterator[Store]:
    """Open a store of which one row was edited while it was closed."""
    clock = HandClock()
    async with bench(kind, folder, clock) as b:
        await furnish(b)
        if isinstance(b.store, MemoryStore):
            b.store.tampered.add(place)
            if b.store.seals is not None:
                await b.store.unlock(b.store.seals)
            yield b.store
            return
    if kind == "postgres":
        assert shared_postgres().run(f"{POSTGRES_EDITS[place]} RETURNING 1", database_of_worker())
    else:
        assert edit(folder, EDITS[place])
    async with OPENERS[kind](folder, clock) as store:
        yield store


async def answer(store: Store, call: str) -> str:
    """Return what became of a call, in words."""
    try:
        found = await CALLS[call](store)
    except RowTampered:
        return "refused"
    leases = found if isinstance(found, list) else [found]
    if any(getattr(one, "tampered", False) for one in leases):
        return "shown, marked"
    if call == "status":
        return f"hold {getattr(found, 'expiry_hold', '')!r}"
    return f"{len(found)} rows" if isinstance(found, list) else "answered" if found else "nothing"


@pytest.mark.parametrize("place", EDITS)
async def test_both_stores_answer_alike(tmp_path: Path, place: str) -> None:
    answers: dict[str, dict[str, str]] = {}
    for kind in ("memory", "sqlite"):
        answers[kind] = {}
        for number, call in enumerate(CALLS):
            folder = tmp_path / f"{kind}-{number}"
            folder.mkdir()
            async with edited(kind, folder, place) as store:
                answers[kind][call] = await answer(store, call)
    assert answers["memory"] == answers["sqlite"]
    assert len(set(answers["sqlite"].values())) > 1
    for call in ("revoke", "get_root", "mount_names"):
        assert answers["sqlite"][call] != "refused"


@pytest.mark.parametrize("place", EDITS)
async def test_postgres_answers_as_the_others_do(tmp_path: Path, place: str) -> None:
    async with edited("memory", tmp_path, place) as memory, edited("postgres", tmp_path, place) as store:
        for call in CALLS:
            if call not in WRITES:
                assert await answer(store, call) == await answer(memory, call), call


async def test_rows_as_they_were_written_are_never_refused(tmp_path: Path) -> None:
    for kind in OPENERS:
        async with bench(kind, tmp_path) as b:
            await furnish(b)
            for call in CALLS:
                assert await answer(b.store, call) not in ("refused", "shown, marked"), call
