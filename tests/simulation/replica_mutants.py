"""Planted bugs that show only with several processes on one store."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from lessor_server.domain.errors.base import StoreUnavailable
from lessor_server.domain.events import ExpiryHeld
from lessor_server.domain.rate_shares import grant_share
from lessor_server.engine.aws.shared_rate import SharedRate
from lessor_server.engine.issuing.iam_user import IamUserBuilder
from lessor_server.engine.issuing.lease_writer import LeaseWriter
from lessor_server.engine.replica_ports import ReplicaStatus
from lessor_server.engine.replicas.registry import ReplicaRegistry
from lessor_server.engine.revocation.claims import RevocationClaims
from lessor_server.engine.revocation.expiry_hold import ExpiryHold
from tests.simulation.disk import Disk, DurableStore
from tests.simulation.mutants import Patch, mutant, mutant_in
from tests.support import memory_replicas
from tests.support.memory_replicas import MemoryReplicas
from tests.support.memory_rows import Row
from tests.support.memory_store import MemoryStore


@mutant
def claims_of_live_processes_voided(patch: Patch) -> None:
    """A start voids every claim, also those of live processes."""
    start = ReplicaRegistry.start

    async def void(self: Any) -> int:
        return await MemoryStore.void_stale_claims(self)

    async def start_and_void(self: Any) -> None:
        await start(self)
        await self._me.store.void_stale_claims()

    patch.set(DurableStore, "void_stale_claims", void)
    patch.set(ReplicaRegistry, "start", start_and_void)


@mutant
def what_others_claimed_is_taken(patch: Patch) -> None:
    """A full scan takes leases that another process has claimed."""
    due = Row.due

    def free(self: Any, now: int, *, held: bool = False) -> bool:
        return due(self, now, held=held) or (self.live and bool(self.claimed_by))

    patch.set(Row, "due", free)


@mutant
def claims_never_lapse(patch: Patch) -> None:
    """The claims of a dead process last for a day."""
    claim, begin = MemoryStore._claim, MemoryStore.begin
    day = timedelta(days=1)

    def long(self: Any, row: Row, terms: Any, at: int) -> Any:
        return claim(self, row, replace(terms, span=day), at)

    async def begin_long(self: Any, intent: Any, span: timedelta) -> Any:
        del span
        return await begin(self, intent, day)

    patch.set(MemoryStore, "_claim", long)
    patch.set(MemoryStore, "begin", begin_long)


@mutant
def requests_unique_in_one_process_alone(patch: Patch) -> None:
    """Two processes that serve one request at the same time create a lease each."""
    room = MemoryStore._require_room

    def blind(self: Any, intent: Any) -> None:
        room(self, replace(intent, request=None))

    patch.set(MemoryStore, "_require_room", blind)


@mutant
def returned_again_by_two(patch: Patch) -> None:
    """Two processes that serve repeats of one request delete each other's keys."""

    async def as_it_is(_: Any, lease: Any) -> Any:
        return lease

    clear = IamUserBuilder._delete_stray_keys

    async def blindly(self: Any, user_name: str, keep: tuple[str, ...], _: Any = None) -> Any:
        return await clear(self, user_name, keep)

    patch.set(LeaseWriter, "reserve", as_it_is)
    patch.set(IamUserBuilder, "_delete_stray_keys", blindly)


@mutant_in("repeat and leave")
def reserved_lease_not_watched(patch: Patch) -> None:
    """A process that reserves a lease for a repeat, and then fails, does not set its timer."""
    reserve = LeaseWriter.reserve

    async def unwatched(self: Any, lease: Any) -> Any:
        watch, self._watch = self._watch, lambda *_: None
        try:
            return await reserve(self, lease)
        finally:
            self._watch = watch

    patch.set(LeaseWriter, "reserve", unwatched)


@mutant
def hold_known_to_one_process(patch: Patch) -> None:
    """An operator's hold counts only in one process until the others notice it."""
    patch.set(MemoryStore, "_holds", lambda _, terms: terms.held)


@mutant
def end_of_a_hold_not_noticed(patch: Patch) -> None:
    """A process notices another's hold, but not its end."""

    async def look(self: Any) -> None:
        try:
            why = (await self._store.status()).expiry_hold
        except StoreUnavailable:
            return
        if why and not self._why:
            self._why = why
            self._notify(ExpiryHeld(why))

    patch.set(ExpiryHold, "_look_at_the_hold", look)


@mutant
def each_machine_its_own_clock(patch: Patch) -> None:
    """Each process uses the wall clock of its own machine."""
    ask = Disk.__getattr__

    def by_the_wall(self: Any, name: str) -> Any:
        if name != "now":
            return ask(self, name)
        ahead = self._world.replicas.wall_ahead
        return lambda: self._store.now() + int(ahead.get(self._process.seat, 0.0) * 1e6)

    def drift_us(self: Any) -> int:
        return int(self._store.drift_us())

    patch.set(Disk, "__getattr__", by_the_wall)
    patch.set(Disk, "drift_us", drift_us)


# --- silent replicas -------------------------------------------------------------------------------------


@mutant_in("revoke elsewhere")
def nobody_takes_over(patch: Patch) -> None:
    """The claims of a silent replica stay until they end."""

    async def void(*_: Any) -> int:
        return 0

    patch.set(MemoryReplicas, "void_claims_of", void)


@mutant
def live_replicas_taken_over(patch: Patch) -> None:
    """A replica counts as silent between two signs of life."""
    patch.set(ReplicaStatus, "is_silent", lambda self, now_us: self.seen_us <= now_us - 1_000_000)


@mutant_in("revoke elsewhere")
def lost_claims_kept(patch: Patch) -> None:
    """A replica that does not get the answer to a claim lets it last until it ends."""

    async def release(*_: Any, **__: Any) -> int:
        return 0

    patch.set(RevocationClaims, "release_lost", release)


# --- the shared rate -------------------------------------------------------------------------------------


@mutant_in("shared rate")
def each_replica_uses_the_whole_rate(patch: Patch) -> None:
    """Every replica gets the rate of the setting as its share."""
    patch.set(memory_replicas, "grant_share", _granted(lambda asked, _: asked.rate))


@mutant_in("shared rate")
def shares_of_replicas_without_a_sign_given_away(patch: Patch) -> None:
    """What a replica has reserved counts for nothing; each gets the share of its demand immediately."""
    patch.set(memory_replicas, "grant_share", _granted(lambda _, granted: granted.wanted))


@mutant_in("shared rate")
def share_used_after_its_end(patch: Patch) -> None:
    """A replica that was stopped uses its old share until it has a new one."""
    patch.set(SharedRate, "share", property(lambda self: self._granted.share))


def _granted(share_of: Any) -> Any:
    """Return ``grant_share`` with another result, which is reserved too."""

    def grant(replica: str, asked: Any, *what: Any) -> Any:
        row, granted = grant_share(replica, asked, *what)
        share = share_of(asked, granted)
        return replace(row, share=share, reserved=share), replace(granted, share=share)

    return grant
