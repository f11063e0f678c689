"""Records which replica is responsible for a lease, and how late its end may be when that replica is missing.

The replica that sets a deadline has its timer, and the one that claims a row works on it. A replica that is
dead, stopped, starting, holding expiries, or without access to an account does neither. Any other finds a due
row by a full scan of the store, after the row fell due or after the claim of the missing replica ended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lessor_server.domain.events import AccountPaused, AccountResumed, Event, ExpiryHeld, ExpiryResumed
from lessor_server.domain.lease import State
from lessor_server.domain.rate_shares import SHARE_SECONDS
from lessor_server.engine.issuing.lease_writer import ISSUE_SPAN
from lessor_server.engine.replica_ports import SILENT_SECONDS
from lessor_server.engine.revocation.claims import CLAIM_SPAN
from lessor_server.engine.revocation.expiry_hold import ASKED, STORE_ROLLED_BACK
from lessor_server.engine.revocation.worker import FULL_SCAN_SECONDS
from tests.simulation.disk import Change
from tests.simulation.journal import suffix

if TYPE_CHECKING:
    from tests.simulation.expectations import Record
    from tests.simulation.process import Process
    from tests.simulation.world import World

CLAIMS = ("claim", "claim_due", "void_stale_claims", "void_claims_of")
TAKEN_OVER_SECONDS = 30.0
"""Within so long another replica revokes what a silent one had claimed."""
FOLLOWED_SECONDS = 6.0
"""After so long each replica knows that a hold has ended: it looks every 5 s."""

WORKED_ON_SECONDS = 2 * FULL_SCAN_SECONDS
"""Within so long a live replica notices that it does not work on what it has claimed; an attempt that nothing
disturbs is shorter."""

TAKE_UP_SECONDS = 3.0
"""How long a replica that looks at the whole store may take until it has claimed what is due."""


@dataclass(slots=True)
class _Responsibility:
    """Who is responsible for one lease."""

    watcher: Process
    """Set the deadline."""
    due_by: float = math.inf
    claimer: Process | None = None
    claimed_at: float = 0.0
    claim_ends: float = 0.0
    free_at: float = 0.0
    """When the last claim ended that was not worked on."""

    @property
    def claimer_signed_at(self) -> float:
        """Return when the claimer last gave a sign of life."""
        return self.claimer.signed_at if self.claimer is not None else 0.0

    @property
    def claim_lost(self) -> bool:
        """Return whether the claimer has been missing since it claimed."""
        return self.claimer is not None and self.claimer.attentive_since > self.claimed_at


class Responsibilities:
    """Records since when each replica works without a break, and which is responsible for a lease."""

    def __init__(self, world: World) -> None:
        """Follow the replicas of ``world``."""
        self._world = world
        self._cares: dict[str, _Responsibility] = {}

    # --- the replicas --------------------------------------------------------------------------------------

    def missing(self, process: Process, why: str) -> None:
        """Record one more reason why a replica does not work."""
        process.missing[why] = None
        process.attentive_since = math.inf
        if self._world.replicas.several and why in ("dead", "stopped"):
            for lease_id, care in self._cares.items():
                if care.claimer is process:
                    self._follow(lease_id, care.claim_ends)
                    self._follow_silence(lease_id, process)

    def back(self, process: Process, why: str) -> None:
        """Record that a replica has started or continues."""
        process.going_since = self._world.now()
        self._over(process, why)

    def _over(self, process: Process, why: str) -> None:
        """Record the end of a reason."""
        process.missing.pop(why, None)
        if not process.missing:
            process.attentive_since = self._world.now()

    def heard(self, process: Process, event: Event) -> None:
        """Record an event of a replica."""
        match event:
            case ExpiryHeld():
                self.missing(process, "held")
            case ExpiryResumed():
                self._over(process, "held")
            case AccountPaused(account=account):
                self.missing(process, account)
            case AccountResumed(account=account):
                self._over(process, account)

    @property
    def somebody_since(self) -> float:
        """Return since when at least one replica has worked without a break."""
        return min((process.attentive_since for process in self._world.replicas.running), default=math.inf)

    # --- the leases ----------------------------------------------------------------------------------------

    def wrote(self, process: Process, name: str, change: Change, record: Record) -> None:
        """Record who changed a row, by which method of the store."""
        lease_id, old, row = change
        if row is None or (old is not None and old.lease.generation == row.lease.generation):
            return
        now, care = self._world.now(), self._cares.get(suffix(lease_id))
        if care is None:
            care = self._cares[suffix(lease_id)] = _Responsibility(process)
        others = self._world.replicas.several and care.claimer not in (None, process)
        silent = name == "void_claims_of" and now - care.claimer_signed_at >= SILENT_SECONDS
        if others and name in CLAIMS and now < care.claim_ends - 0.01 and not silent:
            text = f"{name} of process {process.number} took what another had claimed"
            self._world.broken("a_claim_holds_until_it_ends", suffix(lease_id), text)
        if care.claim_lost:
            care.free_at = min(care.claim_ends, now)
        if now > record.due_by and care.watcher.attentive_since > record.due_by:
            care.free_at = max(care.free_at, record.due_by)  # it was nobody's when it fell due
        if record.due_by != care.due_by or not row.claimed_by:
            care.watcher = process
        care.due_by = record.due_by
        care.claimer = process if row.claimed_by else None
        care.claimed_at = now
        span = ISSUE_SPAN if row.lease.state is State.INTENT else CLAIM_SPAN
        care.claim_ends = now + span.total_seconds()
        if self._world.replicas.several and row.claimed_by and row.lease.state is State.REVOKING:
            self._follow_work(lease_id, row.lease.generation, process)

    def latest(self, record: Record) -> float:
        """Return the latest time at which a lease must end, without the bound."""
        care = self._cares.get(suffix(record.lease_id))
        if care is None or not self._world.replicas.several:
            return record.due_by
        # A replica that continues needs a share of the rate again.
        watched = care.watcher.attentive_since + SHARE_SECONDS <= record.due_by
        if watched and not care.free_at and not care.claim_lost:
            return record.due_by
        free_at = max(care.free_at, care.claim_ends if care.claim_lost else 0.0)
        return max(record.due_by, free_at, self.somebody_since) + FULL_SCAN_SECONDS

    def judge_resumed(self) -> None:
        """Check that every replica that worked the whole time has noticed the end of a hold."""
        world = self._world
        for process in world.replicas.running:
            why = process.engine.expiry.why if process.engine is not None else ""
            looks = not process.stopped and world.now() - process.going_since > FOLLOWED_SECONDS - 1.0
            if looks and why in (ASKED, STORE_ROLLED_BACK) and not world.store.kept_hold:
                world.broken("a_hold_ends_everywhere", "", f"process {process.number} still holds")

    def _follow(self, lease_id: str, claim_ends: float) -> None:
        """Check that another replica takes what a missing one had claimed."""
        world = self._world
        generation = world.store.rows[world.expectations.records[lease_id].lease_id].lease.generation

        def look() -> None:
            row = world.store.rows.get(world.expectations.records[lease_id].lease_id)
            if row is None or not row.claimed_by or row.lease.generation != generation:
                return
            late = world.now() - max(claim_ends, self.somebody_since) - FULL_SCAN_SECONDS
            if late >= TAKE_UP_SECONDS and not world.expectations.is_shaken(claim_ends):
                text = f"a missing replica's claim ran out {late + FULL_SCAN_SECONDS:.1f} s ago"
                world.broken("what_the_missing_claimed_is_taken_up", lease_id, text)
                return
            world.later(FULL_SCAN_SECONDS, look)

        world.later(max(claim_ends - world.now(), 0.0) + FULL_SCAN_SECONDS + TAKE_UP_SECONDS, look)

    def _follow_work(self, lease_id: str, generation: int, claimer: Process) -> None:
        """Check that a replica that works without a break ends what it has claimed, or releases it."""
        world, began = self._world, self._world.now()

        def look() -> None:
            row = world.store.rows.get(lease_id)
            if row is None or not row.claimed_by or row.lease.generation != generation:
                return
            if claimer.attentive_since <= began and world.expectations.shaken <= began:
                text = (
                    f"process {claimer.number} has claimed it for {WORKED_ON_SECONDS:.0f} s without a result"
                )
                world.broken("what_is_claimed_is_worked_on", suffix(lease_id), text)

        world.later(WORKED_ON_SECONDS, look)

    def _follow_silence(self, lease_id: str, missing: Process) -> None:
        """Check that another replica takes over the revocations of one that stays silent."""
        world, began = self._world, self._world.now()
        record = world.expectations.records[lease_id]
        generation = world.store.rows[record.lease_id].lease.generation

        def look() -> None:
            row = world.store.rows.get(record.lease_id)
            if row is None or not row.claimed_by or row.lease.generation != generation:
                return
            is_silent = missing.signed_at <= began and (missing.stopped or not missing.alive)
            if row.lease.state is not State.REVOKING or not is_silent:
                return
            others = [one for one in world.replicas.serving if not one.still]
            since = min((one.going_since for one in others), default=math.inf)
            late = world.now() - max(began, since) - TAKEN_OVER_SECONDS
            if late >= 0 and not world.options.disk_faults:
                text = f"nobody took over from process {missing.number} within {TAKEN_OVER_SECONDS:.0f} s"
                world.broken("what_the_missing_claimed_is_taken_up", lease_id, text)
            elif late < 0:
                world.later(min(max(-late, 1.0), TAKEN_OVER_SECONDS), look)

        world.later(TAKEN_OVER_SECONDS, look)
