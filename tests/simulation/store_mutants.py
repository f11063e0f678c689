"""Planted bugs of the store, of bulk revocations, and of what is beside the engine's main path."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

from lessor_server.domain import lease as steps
from lessor_server.domain.aws.sts_calls import GetServerTime
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.lease import Lease, State
from lessor_server.domain.lease_id import IdRange
from lessor_server.domain.mount import MountState
from lessor_server.engine import leases
from lessor_server.engine.aws import outage_probe
from lessor_server.engine.aws.caller import is_inconclusive
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.issuing import sts_session
from lessor_server.engine.revocation import bulk
from lessor_server.engine.revocation.expiry_hold import ExpiryHold
from lessor_server.engine.revocation.worker import RevocationWorker
from tests.simulation.disk import DurableStore
from tests.simulation.mutants import Patch, mutant, mutant_in
from tests.support.memory_rows import MemoryRows, Row, takes
from tests.support.memory_store import MemoryStore
from tests.support.memory_upkeep import MemoryUpkeep


@mutant
def activate_without_generation(patch: Patch) -> None:
    """A row is activated although another process has claimed it."""
    write = MemoryStore.write

    async def lax(self: Any, before: Lease, after: Lease) -> bool:
        row = self.rows.get(before.id)
        if row is None or after.state is not State.ACTIVE or before.state is not State.INTENT:
            return await write(self, before, after)
        self.rows[before.id] = replace(row, lease=after, claimed_by="")
        return True

    patch.set(MemoryStore, "write", lax)


@mutant
def renew_without_the_state(patch: Patch) -> None:
    """A renewal makes a row in revocation ACTIVE."""

    def revive(lease: Lease, expires_us: int, now_us: int) -> Lease:
        generation = steps.next_generation(lease.generation)
        changes = {"expires_us": expires_us, "due_us": expires_us, "last_renewal_us": now_us}
        return replace(lease, state=State.ACTIVE, generation=generation, **changes)

    patch.set(leases, "_refusal", lambda *_: None)
    patch.set(steps, "renew", revive)
    patch.set(MemoryStore, "_may_become", lambda *_: True)


@mutant
def open_prefixes_not_checked(patch: Patch) -> None:
    """A lease of an open prefix becomes ACTIVE, or is renewed."""
    patch.set(MemoryRows, "_covered", lambda *_: False)


@mutant
def cut_off_not_checked(patch: Patch) -> None:
    """A prefix includes leases that were begun after it."""

    def taken_in(self: Any, prefix: Any) -> list[Row]:
        ever = replace(prefix, cutoff_us=2**62)
        return [row for _, row in sorted(self.rows.items()) if row.live and takes(ever, row.lease)]

    patch.set(MemoryRows, "_taken_in", taken_in)
    close = MemoryUpkeep.close_prefix

    async def linger(self: Any, prefix: Any) -> None:
        if self.now() - prefix.cutoff_us > 30_000_000:
            await close(self, prefix)

    patch.set(MemoryUpkeep, "close_prefix", linger)


@mutant
def hints_believed(patch: Patch) -> None:
    """Deadlines fire as soon as they are known, and are claimed whether due or not."""
    from lessor_server.engine.revocation.expiry_timer import ExpiryTimer

    patch.set(ExpiryTimer, "watch", lambda self, lease_id, _: self._fire([lease_id]))

    async def claim(self: Any, ids: Any, terms: Any) -> Any:
        rows = [self.rows[one] for one in dict.fromkeys(ids) if one in self.rows]
        return [self._claim(row, terms, self.now()) for row in rows if row.live]

    patch.set(MemoryStore, "claim", claim)


@mutant
def stale_claims_not_voided(patch: Patch) -> None:
    """A start does not void the claims of a dead process."""

    async def leave(_: Any) -> int:
        return 0

    patch.set(MemoryStore, "void_stale_claims", leave)


@mutant
def tombstones_dropped_early(patch: Patch) -> None:
    """A reconcile run drops each tombstone whose user is not listed."""

    async def purge_tombstones(self: Any, account: str, _: int) -> int:
        gone = [
            lease_id
            for lease_id, row in self.rows.items()
            if row.lease.state is State.GONE and row.lease.footprint.account == account
        ]
        for lease_id in gone:
            del self.rows[lease_id]
        return len(gone)

    patch.set(MemoryUpkeep, "purge_tombstones", purge_tombstones)


@mutant
def counts_not_kept(patch: Patch) -> None:
    """The limits of mount and role are not checked."""
    room = MemoryStore._require_room

    def boundless(self: Any, intent: Any) -> None:
        room(self, replace(intent, max_users=1_000_000, max_leases=0))

    patch.set(MemoryStore, "_require_room", boundless)


@mutant
def disabling_mounts_take_leases(patch: Patch) -> None:
    """An intent is written although its mount is being disabled."""
    room = MemoryStore._require_room

    def blind(self: Any, intent: Any) -> None:
        mount = self.mounts.get(intent.mount)
        if mount is None or mount.state is MountState.ENABLED:
            room(self, intent)

    patch.set(MemoryStore, "_require_room", blind)
    from lessor_server.engine.aws.roots import IssueContext

    async def load_context(self: Any, mount: str, role: str, owner: str = "", request_id: str = "") -> Any:
        found = await self._store.load_issue_context(mount, role, owner, request_id)
        if found.mount is None or found.root is None or found.role is None:
            raise LessorError("not there")
        return IssueContext(found.mount, found.role, self._open(found.root), found.earlier)

    patch.set(Roots, "load_context", load_context)


@mutant
def request_ids_not_unique(patch: Patch) -> None:
    """The store does not record the request id of a lease."""
    patch.set(MemoryRows, "_earlier", lambda *_: None)


@mutant
def undelivered_never_expires(patch: Patch) -> None:
    """An undelivered lease lives as long as any other."""
    activate = steps.activate

    def deliver(lease: Lease, key_id: str, now_us: int, *, ends_us: int, **_: Any) -> Lease:
        return activate(lease, key_id, now_us, ends_us=ends_us)

    def keep(lease: Lease, _: int) -> Lease:
        return replace(lease, undelivered=True, generation=steps.next_generation(lease.generation))

    patch.set(steps, "activate", deliver)
    patch.set(steps, "mark_undelivered", keep)


@mutant
def wall_clock_used(patch: Patch) -> None:
    """Deadlines are compared with the wall clock."""
    patch.set(MemoryRows, "now", lambda self: self._clock.wall_us())


@mutant
def refused_row_due_immediately(patch: Patch) -> None:
    """A refused row is retried without a delay."""
    reschedule = steps.reschedule

    def at_once(lease: Lease, error: str, _: timedelta, now_us: int, **counts: int) -> Lease:
        return reschedule(lease, error, timedelta(0), now_us, **counts)

    patch.set(steps, "reschedule", at_once)


@mutant
def time_runs_back_at_a_start(patch: Patch) -> None:
    """A start uses the wall clock, although the store has a later time."""

    def restart(self: Any) -> None:
        self._offset_us = self._clock.wall_us() - self._clock.boot_us()
        self._first_start = True

    patch.set(DurableStore, "restart", restart)


# --- faults that the product has had -----------------------------------------------------------------------


@mutant
def probes_for_a_mount_that_is_gone(patch: Patch) -> None:
    """An account stays paused after the mount whose root probed it was disabled."""

    async def trouble(self: Any, mount: str, limiter: Any) -> str | None:
        try:
            root = await self._roots.get(mount)
        except LessorError as error:
            return error.message
        if self._roots.limiter(root) is not limiter:
            return None
        outcome = await self._roots.caller(root).call(outage_probe.GetUser(outage_probe.PROBE_USER))
        return str(outcome) if is_inconclusive(outcome) else None

    patch.set(outage_probe.OutageProbe, "_trouble", trouble)


@mutant
def clock_not_checked_without_a_root(patch: Patch) -> None:
    """With one mount without a root expiries stay held after a start."""

    async def ahead_us(self: Any) -> int | None:
        try:
            roots = [await self._roots.get(mount.name) for mount in await self._store.list_mounts("", 100)]
        except LessorError:
            return None
        for root in roots:
            answer = await self._roots.caller(root).call(GetServerTime())
            if not isinstance(answer, LessorError):
                return self._store.now() - answer if answer else 0
        return None

    patch.set(ExpiryHold, "_skew_us", ahead_us)


@mutant
def prefix_forgotten_when_its_caller_leaves(patch: Patch) -> None:
    """A prefix whose caller left during the commit waits for the next start."""

    async def run(self: Any) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._work_off()

    patch.set(bulk.Prefixes, "run", run)


@mutant_in("handed over")
def root_of_a_removed_mount_used(patch: Patch) -> None:
    """A mount that is enabled again is called with the key of its namesake, if neither has an account yet."""
    newest = Roots._newest

    def any_newer(self: Any, root: Any) -> Any:
        _, opened = self._opened.get(root.mount, (None, root))
        new = opened.config
        keys = {"access_key": new.access_key, "secret_key": new.secret_key, "etag": new.etag}
        unbound = not root.account and not opened.account and opened.version > root.version
        return opened if unbound and replace(root.config, **keys) == new else newest(self, root)

    patch.set(Roots, "_newest", any_newer)


# --- ranges ------------------------------------------------------------------------------------------------


@mutant
def like_for_a_prefix(patch: Patch) -> None:
    """An underscore in a prefix matches any character."""

    def covers(self: Any, text: str) -> bool:
        return re.match(re.escape(self.low).replace("_", "."), text) is not None

    patch.set(IdRange, "covers", covers)


@mutant
def prefix_without_its_slash(patch: Patch) -> None:
    """The prefix of a role includes every role whose name begins the same."""
    parse = IdRange.parse

    def wider(_: Any, text: str, field: str = "prefix") -> IdRange:
        return IdRange.of_prefix(parse(text, field).low.rstrip("/"))

    patch.set(IdRange, "parse", classmethod(wider))


@mutant_in("asleep")
def old_answers_believed(patch: Patch) -> None:
    """The grace is checked when an answer arrives, not when its request was sent."""
    look_again = RevocationWorker._check_again

    async def late(self: Any, claim: Any, _: int) -> None:
        await look_again(self, claim, self._store.now())

    patch.set(RevocationWorker, "_check_again", late)


@mutant_in("clock")
def grace_by_an_untrusted_clock(patch: Patch) -> None:
    """A start by a wall clock that is ahead ends every grace."""
    look_again = RevocationWorker._check_again

    async def trusting(self: Any, claim: Any, began_us: int) -> None:
        hold, self._claims._expiry = self._claims._expiry, _Free()
        try:
            await look_again(self, claim, began_us)
        finally:
            self._claims._expiry = hold

    patch.set(RevocationWorker, "_check_again", trusting)


class _Free:
    """An expiry hold that is never on."""

    held = False


# --- sessions ------------------------------------------------------------------------------------------


@mutant
def session_begun_after_the_call(patch: Patch) -> None:
    """The row of a session is written after STS has issued it."""
    call_of = sts_session.Sessions._call

    async def early(self: Any, asked: Any, context: Any, root: Any, **what: Any) -> Any:
        call = await call_of(self, asked, context, root, **what)
        await self._roots.caller(root).call(call)
        return call

    patch.set(sts_session.Sessions, "_call", early)


@mutant
def session_lives_by_its_ttl(patch: Patch) -> None:
    """A session's lease has the requested ttl, not AWS's expiration."""
    activate = steps.activate

    def later(lease: Lease, key_id: str, now_us: int, *, ends_us: int, undelivered: bool) -> Lease:
        later_us = ends_us + 5_000_000 if ends_us else 0
        return activate(lease, key_id, now_us, ends_us=later_us, undelivered=undelivered)

    patch.set(steps, "activate", later)
