"""Takes random steps on the store in memory and on one in a database, and compares all answers and rows."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.support import builders, lease_steps
from tests.support.stores import OPENERS, SPAN, HandClock

from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.lease import LIVE, Lease, Orphan, Request, State
from lessor_server.domain.lease_id import EVERYTHING, IdRange
from lessor_server.domain.mount import MountState
from lessor_server.engine.ports import Store
from lessor_server.engine.store_types import ClaimTerms

NUMBERS = st.integers(0, 5)
ALL = IdRange("aws/", "aws0")
RANGES = st.sampled_from([ALL, IdRange("aws/creds/app/", "aws/creds/app0"), IdRange("b/", "b0")])
OWNERS = st.sampled_from(["alice", "bob"])
REQUESTS = st.sampled_from([None, Request("one", "x"), Request("one", "y"), Request("two", "x")])
SECONDS = st.integers(1, 200)
LIMITS: dict[str, Any] = {"max_users": 4, "max_leases": 3}
RULES = st.sampled_from(
    [
        {},
        {"policy_rule": "aws/creds/*", "rule_max_leases": 1},
        {"policy_rule": "aws/creds/*", "rule_max_leases": 2},
        {"policy_rule": "aws/creds/app", "rule_max_leases": None},
        {"policy_rule": "", "rule_max_leases": 1},
    ]
)
STATES = st.sampled_from([None, *State])


def plain(value: object) -> object:
    """Return an answer in a shape that compares: errors by class and subject, claims by their rows."""
    if isinstance(value, LessorError):
        return type(value), value.subject
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value


async def ids_of(found: Awaitable[list[str]]) -> list[str]:
    """Return ids in one order: which of them come first is a store's own affair."""
    return sorted(await found)


async def hold_of(store: Store) -> str:
    """Return why expiry is held."""
    return (await store.status()).expiry_hold


def assert_same_ids(answers: tuple[object, object]) -> None:
    """Fail unless no id comes twice."""
    assert isinstance(answers[0], list)
    assert len(answers[0]) == len(set(answers[0]))


class BothStores(RuleBasedStateMachine):
    """Does the same to the store in memory and to SQLite."""

    kind = "sqlite"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = HandClock()
        self.stack = AsyncExitStack()
        self.claims: list[tuple[Lease, Lease]] = []
        self.folder = tempfile.TemporaryDirectory()
        self.memory, self.other = self.loop.run_until_complete(self._open())

    async def _open(self) -> tuple[Store, Store]:
        folder = Path(self.folder.name)
        memory = await self.stack.enter_async_context(OPENERS["memory"](folder, self.clock))
        return memory, await self.stack.enter_async_context(OPENERS[self.kind](folder, self.clock))

    def both(self, ask: Callable[[Store], Awaitable[object]]) -> tuple[object, object]:
        """Ask both the same; the answers must be equal."""

        async def one(store: Store) -> object:
            try:
                return await ask(store)
            except LessorError as error:
                return error

        answers = tuple(self.loop.run_until_complete(one(store)) for store in (self.memory, self.other))
        assert plain(answers[0]) == plain(answers[1])
        return answers[0], answers[1]

    def keep(self, answers: tuple[object, object]) -> None:
        """Remember the claims that both gave."""
        mine, theirs = answers
        if isinstance(mine, Lease) and isinstance(theirs, Lease):
            self.claims.append((mine, theirs))
        if isinstance(mine, list) and isinstance(theirs, list):
            self.claims += zip(mine, theirs, strict=True)

    def held(self, number: int) -> Lease | None:
        """Return some claim that was once given, good or void; both stores' are equal."""
        return self.claims[number % len(self.claims)][0] if self.claims else None

    @initialize()
    def configure(self) -> None:
        """Begin with a mount and a root."""
        self.both(lambda store: store.put_mount(None, builders.mount()))
        self.both(lambda store: store.put_root(builders.stored_root(), 0))

    @rule(seconds=SECONDS)
    def pass_time(self, seconds: int) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    @rule(
        number=NUMBERS,
        role=st.sampled_from(["app", "other"]),
        seconds=SECONDS,
        owner=OWNERS,
        request=REQUESTS,
        session=st.booleans(),
        rule=RULES,
    )
    def begin(
        self,
        number: int,
        role: str,
        seconds: int,
        owner: str,
        request: Request | None,
        session: bool,
        rule: dict[str, Any],
    ) -> None:
        """Store an intent of a user or a session whose name is free; its request may have been made."""
        changes: dict[str, Any] = {"owner": owner, "request": request, **LIMITS, **rule}
        if session:
            made = builders.session_intent()
            changes |= {"footprint": made.footprint, "credential_type": made.credential_type}
        wanted = builders.intent(number, role_name=role, ttl=timedelta(seconds=seconds), **changes)
        if request is not None:
            request_id = request.id
            self.both(lambda store: store.load_issue_context("aws", role, owner, request_id))
        if self.both(lambda store: store.get(wanted.id))[0] is None:
            self.keep(self.both(lambda store: store.begin(wanted, SPAN)))

    @rule(
        number=st.integers(0, 50),
        seconds=SECONDS,
        what=st.sampled_from(["activate", "release", "fail"]),
        undelivered=st.booleans(),
    )
    def step(self, number: int, seconds: int, what: str, undelivered: bool) -> None:
        """Take a step with a claim, be it still good or long void."""
        claim = self.held(number)
        if claim is None:
            return
        span = timedelta(seconds=seconds)
        match what:
            case "activate":
                # What AWS says of a session's end may lie in the past, if its clock is behind.
                ends_us = self.clock.wall + (seconds - 3) * 10**6 + number if claim.is_session else 0
                self.both(
                    lambda store: lease_steps.activate(
                        store, claim, "AKIA", ends_us=ends_us, undelivered=undelivered
                    )
                )
            case "release":
                self.both(lambda store: lease_steps.abort(store, claim, "no", seconds))
            case _:
                wait = span if undelivered else timedelta(0)
                self.both(lambda store: lease_steps.reschedule(store, claim, "no", wait, seconds, number))

    @rule(number=st.integers(0, 50))
    def finish(self, number: int) -> None:
        """Finish a claim, be it still good or void."""
        claim = self.held(number)
        if claim is not None:
            self.both(lambda store: lease_steps.is_unchanged(store, claim))
            self.both(lambda store: lease_steps.finish(store, claim))

    @rule(
        number=NUMBERS,
        seconds=SECONDS,
        what=st.sampled_from(["renew", "replace_key", "mark_undelivered", "revoke", "reopen", "claim"]),
        held=st.booleans(),
    )
    def by_id(self, number: int, seconds: int, what: str, held: bool) -> None:
        """Do something to a lease by its id."""
        lease_id = builders.intent(number).id
        lease = self.loop.run_until_complete(self.memory.get(lease_id))
        match what:
            case "renew" if lease is not None:
                self.both(lambda store: lease_steps.renew(store, lease, self.clock.wall + seconds * 10**6))
            case "replace_key" if lease is not None:
                self.both(lambda store: lease_steps.replace_key(store, lease, f"AKIA{seconds}"))
            case "mark_undelivered" if lease is not None:
                self.both(lambda store: lease_steps.mark_undelivered(store, lease))
            case "revoke":
                self.both(lambda store: store.revoke(lease_id))
            case "reopen":
                self.both(lambda store: store.reopen(lease_id, seconds))
            case _:
                self.keep(self.both(lambda store: store.claim([lease_id], ClaimTerms("test", SPAN, held))))

    @rule(limit=st.integers(1, 4), left_out=st.booleans(), held=st.booleans())
    def claim_due(self, limit: int, left_out: bool, held: bool) -> None:
        """Claim what is due."""
        without = frozenset({builders.ACCOUNT}) if left_out else frozenset[str]()
        self.keep(self.both(lambda store: store.claim_due(ClaimTerms("test", SPAN, held), limit, without)))

    @rule(ids=RANGES, owner=st.sampled_from(["", "alice", "bob"]))
    def open_prefix(self, ids: IdRange, owner: str) -> None:
        """Put a range up for revocation, of one owner or of all."""
        self.both(lambda store: store.open_prefix(ids, owner))

    @rule(number=st.integers(0, 9), close=st.booleans())
    def work_off(self, number: int, close: bool) -> None:
        """Mark all leases of an open range, and close it, whether it is still open or not."""
        found = self.both(lambda store: store.prefixes())[0]
        assert isinstance(found, list)
        if not found:
            return
        prefix = found[number % len(found)]
        self.both(lambda store: store.progress(prefix))
        assert_same_ids(self.both(lambda store: ids_of(store.mark_range_revoking(prefix, "", 1000))))
        if close:
            self.both(lambda store: store.close_prefix(prefix))

    @rule(ids=RANGES, live=st.booleans())
    def abandon(self, ids: IdRange, live: bool) -> None:
        """Abandon what is being revoked of a range, or all of it."""
        assert_same_ids(self.both(lambda store: ids_of(store.abandon(ids, 1000, live=live))))

    @rule(number=st.integers(0, 7))
    def adopt(self, number: int) -> None:
        """Find a user of a lease, and adopt it unless it is known; its lease's id may be."""
        lost = builders.intent(number)
        lost = replace(lost, footprint=replace(lost.footprint, user_name=f"made-for-{lost.role}-{number}"))
        if not self.both(lambda store: store.leases_by_user_name([lost.footprint.user_name, "nobody"]))[0]:
            self.both(lambda store: store.adopt(Orphan(lost.id, "aws", "app", lost.footprint)))

    @rule(days=st.integers(1, 8), ago=st.integers(0, 2000))
    def purge_tombstones(self, days: int, ago: int) -> None:
        """Let days pass, and drop the tombstones that a complete listing some seconds ago did not show."""
        self.clock.advance(days * 86_400)
        listed_us = self.clock.wall - ago * 10**6
        self.both(lambda store: store.purge_tombstones(builders.ACCOUNT, listed_us))
        self.both(lambda store: store.purge_tombstones("", 0))

    @rule(why=st.sampled_from(["", "ASKED", "STORE_ROLLED_BACK"]))
    def hold(self, why: str) -> None:
        """Hold expiries, or let them go."""
        self.both(lambda store: store.set_expiry_hold(why))
        assert self.both(hold_of)[0] == why

    @rule(disabling=st.booleans())
    def disable(self, disabling: bool) -> None:
        """Let the mount be disabled or enabled, and remove it once nothing of it lives."""
        before = self.loop.run_until_complete(self.memory.get_mount("aws"))
        if before is None:
            self.configure()
            return
        if disabling:
            self.both(lambda store: store.disable("aws"))
        else:
            after = replace(before, state=MountState.ENABLED)
            self.both(lambda store: store.put_mount(before, after))
        self.both(lambda store: store.remove_disabled())
        self.both(lambda store: store.get_mount("aws"))
        self.both(lambda store: store.get_root("aws"))

    @rule()
    def void_stale_claims(self) -> None:
        """Void all claims, as a new process does."""
        self.both(lambda store: store.void_stale_claims())

    @rule(seconds=SECONDS, limit=st.integers(1, 5), state=STATES, owner=OWNERS)
    def look(self, seconds: int, limit: int, state: State | None, owner: str) -> None:
        """Read in every way that there is."""
        self.both(lambda store: store.list_due_within(timedelta(seconds=seconds), limit))
        self.both(lambda store: store.page(EVERYTHING, state, "", limit))
        self.both(lambda store: store.count(EVERYTHING, state))
        self.both(lambda store: store.count(IdRange(builders.intent(limit).id, ALL.high), state))
        self.both(lambda store: store.page(ALL, state, "", limit, owner))
        self.both(lambda store: store.count(ALL, state, owner))
        self.both(lambda store: store.list_owners("", limit))
        self.both(lambda store: store.get_owner(builders.intent(limit).id))
        if (lease := self.held(seconds)) is not None:
            self.both(lambda store: store.is_current(lease))
        assert self.memory.drift_us() == self.other.drift_us()
        self.both(lambda store: store.get_bound_account("aws"))

    @invariant()
    def rows_and_counts_agree(self) -> None:
        """Both hold the same rows; the counts are a recount of them, within the limits."""
        answers = self.both(lambda store: store.page(EVERYTHING, None, "", 1000))
        rows = answers[1]
        assert isinstance(rows, list)
        recount = Counter((row.role, row.state_at(self.clock.wall)) for row in rows)
        counted = self.both(lambda store: store.count(EVERYTHING, None))[1]
        assert isinstance(counted, list)
        assert {(one.role, one.state): one.count for one in counted} == dict(recount)
        live = [row for row in rows if row.state in LIVE]
        # What is reopened, adopted or taken up again may pass the limit: it is there.
        assert sum(row.role == "app" for row in live) <= 8
        named = [(row.owner, row.role, row.request.id) for row in rows if row.request]
        assert len(named) == len(set(named)), "a request id names two leases"

    def teardown(self) -> None:
        """Close both."""
        self.loop.run_until_complete(self.stack.aclose())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()


class BothStoresOnPostgres(BothStores):
    """Does the same to the store in memory and to PostgreSQL."""

    kind = "postgres"


TestBothStores = BothStores.TestCase
TestBothStores.settings = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestBothStoresOnPostgres = BothStoresOnPostgres.TestCase
TestBothStoresOnPostgres.settings = settings(TestBothStores.settings, max_examples=12)
