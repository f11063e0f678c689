"""Planted bugs of owners and of the limits of rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lessor_server.domain.errors.access import RuleFull
from lessor_server.domain.lease import LIVE
from lessor_server.domain.lease_id import EVERYTHING
from lessor_server.engine import leases
from lessor_server.engine.issuing.lease_writer import LeaseWriter
from tests.simulation.mutants import Patch, mutant, mutant_in
from tests.support.memory_rows import MemoryRows, Row
from tests.support.memory_store import MemoryStore
from tests.support.memory_upkeep import MemoryUpkeep


@mutant_in("prefix of an owner")
def owner_of_a_prefix_not_checked(patch: Patch) -> None:
    """A bulk revocation of one owner marks the leases of all."""
    taken_in = MemoryRows._taken_in

    def of_all(self: Any, prefix: Any) -> list[Row]:
        return taken_in(self, replace(prefix, owner=""))

    patch.set(MemoryRows, "_taken_in", of_all)


@mutant_in("prefix of an owner")
def owner_of_a_prefix_forgotten(patch: Patch) -> None:
    """A bulk revocation of one owner is stored as one of all."""
    open_prefix = MemoryUpkeep.open_prefix

    async def of_all(self: Any, ids: Any, owner: str = "") -> Any:
        del owner
        return await open_prefix(self, ids)

    patch.set(MemoryUpkeep, "open_prefix", of_all)


@mutant
def rule_limit_off_by_one(patch: Patch) -> None:
    """A rule admits one lease more than its limit."""
    room = MemoryStore._require_room_by_rule

    def one_more(self: Any, intent: Any) -> None:
        most = intent.rule_max_leases
        room(self, intent if most is None else replace(intent, rule_max_leases=most + 1))

    patch.set(MemoryStore, "_require_room_by_rule", one_more)


@mutant_in("rule full")
def rule_limit_checked_before_the_insert(patch: Patch) -> None:
    """The leases of a rule are counted in one transaction, and the intent is written in another."""
    begin = LeaseWriter.begin

    async def in_two_steps(self: Any, intent: Any) -> Any:
        most = intent.rule_max_leases
        if most is not None:
            found = await self._store.page(EVERYTHING, None, "", 10_000, intent.owner)
            now = self.now()
            live = [
                lease
                for lease in found
                if lease.policy_rule == intent.policy_rule
                and (lease.state in LIVE or (lease.is_session and lease.max_expires_us > now))
            ]
            if len(live) >= most:
                raise RuleFull.of(intent.policy_rule, most)
        return await begin(self, replace(intent, rule_max_leases=None))

    patch.set(LeaseWriter, "begin", in_two_steps)


@mutant
def revoked_sessions_not_counted(patch: Patch) -> None:
    """A session that was revoked, and works, does not count against the limit of its rule."""

    def live_ones(self: Any, owner: str, policy_rule: str, _: int) -> bool:
        return self.live and (self.lease.owner, self.lease.policy_rule) == (owner, policy_rule)

    patch.set(Row, "counts_by_rule", live_ones)


@mutant
def owner_of_a_lease_not_checked(patch: Patch) -> None:
    """A caller reaches the lease of another by its id."""

    async def anybody(*_: Any) -> None:
        """Accept every caller."""

    patch.set(leases.Leases, "require_owned", anybody)


@mutant
def owner_checked_after_the_write(patch: Patch) -> None:
    """The lease of another is revoked, and then the caller is refused."""
    revoke = leases.Leases.revoke

    async def late(self: Any, lease_id: Any, *, sync: bool, by: str, only_owner: str | None = None) -> Any:
        done = await revoke(self, lease_id, sync=sync, by=by)
        await self.require_owned(lease_id, only_owner)
        return done

    patch.set(leases.Leases, "revoke", late)


@mutant
def owner_compared_without_case(patch: Patch) -> None:
    """A list has the leases of an owner whose name differs in case only."""
    page = MemoryStore.page

    async def folded(
        self: Any, ids: Any, state: Any, after: str, limit: int, owner: str | None = None
    ) -> Any:
        found = await page(self, ids, state, after, limit)
        return [one for one in found if owner is None or one.owner.casefold() == owner.casefold()]

    patch.set(MemoryStore, "page", folded)
