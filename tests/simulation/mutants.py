"""Bugs planted on purpose, each of which the simulation must find; this module plants those of the engine.

A mutant changes the product inside the simulation's own process, for as long as the ``planted`` block runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from lessor_server.domain import backoff
from lessor_server.domain import lease as steps
from lessor_server.domain.aws.errors import Refusal
from lessor_server.domain.aws.iam_calls import AccessKey
from lessor_server.domain.errors.base import AwsUnavailable, LessorError, StoreUnavailable
from lessor_server.domain.events import Issued
from lessor_server.domain.lease import Intent
from lessor_server.engine import leases
from lessor_server.engine.aws import rate_limiter
from lessor_server.engine.issuing import iam_user, issuer, lease_writer
from lessor_server.engine.issuing.lease_writer import LeaseWriter
from lessor_server.engine.revocation import attempt, expiry_timer, queue, worker
from lessor_server.engine.revocation.expiry_hold import ExpiryHold
from lessor_server.engine.upkeep import reconciler


class Patch:
    """Sets attributes of the product, and restores them."""

    def __init__(self) -> None:
        """Begin with nothing changed."""
        self._before: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Change one attribute."""
        self._before.append((owner, name, vars(owner)[name]))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Restore all attributes."""
        for owner, name, value in reversed(self._before):
            setattr(owner, name, value)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug."""

    name: str
    sentence: str
    plant: Callable[[Patch], None]
    scenario: str = ""
    """Where it is looked for first, if not by seeds."""


MUTANTS: list[Mutant] = []


def mutant(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
    """Add a planted bug; its docstring describes it."""
    return mutant_in("")(plant)


def mutant_in(scenario: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Add a bug that is searched for in one scenario before all others."""

    def put(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS.append(Mutant(plant.__name__, str(plant.__doc__).strip(), plant, scenario))
        return plant

    return put


@contextmanager
def planted(bug: Mutant) -> Iterator[None]:
    """Plant a bug while the block runs."""
    patch = Patch()
    bug.plant(patch)
    try:
        yield
    finally:
        patch.undo()


def _none(*_: Any, **__: Any) -> None:
    """Do nothing."""


async def _nothing(*_: Any, **__: Any) -> None:
    """Wait for nothing and do nothing."""


# --- issuing -----------------------------------------------------------------------------------------------


@mutant
def record_after_create(patch: Patch) -> None:
    """The row is written after the user is created."""
    begin, create = LeaseWriter.begin, iam_user.IamUserBuilder.create
    unwritten: dict[str, tuple[LeaseWriter, Intent]] = {}

    async def late(self: Any, intent: Intent) -> Any:
        if not intent.footprint.user_name:
            return await begin(self, intent)
        unwritten[intent.footprint.user_name] = (self, intent)
        return steps.begin(intent, self.now(), lease_writer.ISSUE_SPAN)

    async def early(self: Any, call: Any) -> Any:
        outcome = await create(self, call)
        await begin(*unwritten.pop(call.user_name))
        return outcome

    patch.set(LeaseWriter, "begin", late)
    patch.set(iam_user.IamUserBuilder, "create", early)


@mutant
def returned_before_the_commit(patch: Patch) -> None:
    """The key is returned before the row is committed."""
    activate = LeaseWriter.activate

    async def hasty(self: Any, lease: Any, key_id: str, in_flight: Any, ends_us: int = 0) -> Any:
        self._background.start(activate(self, lease, key_id, in_flight, ends_us))
        return steps.activate(lease, key_id, self.now(), ends_us=ends_us)

    patch.set(LeaseWriter, "activate", hasty)


@mutant
def claim_not_released(patch: Patch) -> None:
    """A failed issue keeps its claim until the claim ends."""
    patch.set(LeaseWriter, "abort", _nothing)


@mutant
def abort_forgets_last_create(patch: Patch) -> None:
    """An aborted row does not say that a CreateUser was sent."""
    abort = LeaseWriter.abort

    async def forget(self: Any, lease: Any, error: LessorError, _: int) -> None:
        await abort(self, lease, error, 0)

    patch.set(LeaseWriter, "abort", forget)


@mutant_in("revoked while created")
def lost_claim_not_reopened(patch: Patch) -> None:
    """An issue that has lost its claim leaves what it created."""
    patch.set(LeaseWriter, "_reopen", _nothing)


@mutant
def create_access_key_repeated_blindly(patch: Patch) -> None:
    """CreateAccessKey is repeated after a lost answer without deleting the first key."""
    patch.set(iam_user.IamUserBuilder, "_delete_stray_keys", _nothing)


@mutant
def undelivered_not_revoked(patch: Patch) -> None:
    """An undelivered credential lives until its expiry."""
    patch.set(LeaseWriter, "withdraw", _nothing)


@mutant
def secret_in_an_event(patch: Patch) -> None:
    """The secret key is in an event."""
    seen: list[str] = []
    key_of = issuer._key

    def spy(outcome: Any) -> AccessKey:
        key = key_of(outcome)
        seen.append(key.secret.reveal())
        return key

    patch.set(issuer, "_key", spy)
    patch.set(
        lease_writer,
        "Issued",
        lambda lease, key, _, until, reason: Issued(lease, key, seen[-1] if seen else "", until, reason),
    )


# --- revoking ----------------------------------------------------------------------------------------------


@mutant
def no_such_entity_trusted_immediately(patch: Patch) -> None:
    """A user that AWS does not show is believed gone."""

    async def believe(self: Any, claim: Any, _: int) -> Any:
        return await self._finish(claim)

    patch.set(worker.RevocationWorker, "_check_again", believe)


@mutant
def finish_without_an_answer(patch: Patch) -> None:
    """A DeleteUser without an answer counts as done."""

    async def hope(caller: Any, lease: Any) -> Any:
        verdict = await tried(caller, lease)
        return attempt.UserDeleted() if isinstance(verdict, attempt.NoAnswer) else verdict

    tried = worker.attempt_revocation
    patch.set(worker, "attempt_revocation", hope)


@mutant
def given_up_after_two_attempts(patch: Patch) -> None:
    """A revocation that AWS has refused twice is ended."""
    fail = worker.RevocationWorker._reschedule

    async def give_up(self: Any, claim: Any, error: LessorError, wait: timedelta, attempts: int) -> Any:
        return await (self._finish(claim) if attempts >= 2 else fail(self, claim, error, wait, attempts))

    patch.set(worker.RevocationWorker, "_reschedule", give_up)


@mutant
def stops_at_a_missing_policy(patch: Patch) -> None:
    """A policy that is already gone stops the revocation."""
    patch.set(attempt, "_MISSING", (Refusal.NO_SUCH_USER,))


@mutant
def another_account_believed(patch: Patch) -> None:
    """A mount accepts a root of any account, which is then used for every row."""
    from lessor_server.engine.config.mounts import Mounts

    async def checked(self: Any, root: Any) -> Any:
        return replace(root, account=(await self._identity(root)).account)

    patch.set(Mounts, "_check_account", checked)

    async def believe(self: Any, lease: Any, priority: Any) -> Any:
        try:
            root = await self._roots.get(lease.mount)
            self._roots.limiter(root).require_open()
        except StoreUnavailable:
            raise
        except LessorError as error:
            silent = isinstance(error, AwsUnavailable)
            return attempt.NoAnswer(error) if silent else attempt.RefusedByAws(error)
        return await worker.attempt_revocation(self._roots.caller(root, priority), lease)

    patch.set(worker.RevocationWorker, "_attempt", believe)


@mutant
def pause_counts_an_attempt(patch: Patch) -> None:
    """An outage of AWS counts against the row."""
    record = worker.RevocationWorker._record

    async def count(self: Any, claim: Any, verdict: Any, began_us: int) -> Any:
        silent = isinstance(verdict, attempt.NoAnswer)
        return await record(self, claim, attempt.RefusedByAws(verdict.error) if silent else verdict, began_us)

    patch.set(worker.RevocationWorker, "_record", count)


@mutant
def jitterless(patch: Patch) -> None:
    """All refused rows are retried at the same time."""
    refused = backoff.refused
    patch.set(backoff, "refused", lambda attempts, _: refused(attempts, 1.0))


@mutant
def probe_never_resumes(patch: Patch) -> None:
    """A paused account stays paused although AWS answers."""
    patch.set(rate_limiter.RateLimiter, "resume", _none)


@mutant
def gone_reported_too_early(patch: Patch) -> None:
    """A revocation that was only accepted is reported as done."""
    revoke = leases.Leases.revoke

    async def lie(self: Any, lease_id: Any, *, sync: bool, by: str, only_owner: str | None = None) -> Any:
        result = await revoke(self, lease_id, sync=False, by=by, only_owner=only_owner)
        accepted = result.outcome is leases.Outcome.ACCEPTED and sync
        return replace(result, outcome=leases.Outcome.GONE) if accepted else result

    patch.set(leases.Leases, "revoke", lie)


# --- time --------------------------------------------------------------------------------------------------


@mutant
def no_full_scan(patch: Patch) -> None:
    """A row with a lost hint is never found."""

    async def hints_alone(self: Any, _: float) -> None:
        await self._wake.wait()
        self._wake.clear()

    patch.set(queue.RevocationQueue, "wait", hints_alone)


@mutant
def new_deadlines_not_watched(patch: Patch) -> None:
    """The window gets a new deadline only when it is read again."""
    patch.set(expiry_timer.ExpiryTimer, "watch", _none)


@mutant
def window_blind_after_sleep(patch: Patch) -> None:
    """The window is read again by the loop's clock, which stops during a suspend."""
    import asyncio

    async def run(self: Any) -> None:
        while True:
            await asyncio.sleep(await self._fill_or_wait())

    patch.set(expiry_timer.ExpiryTimer, "run", run)


@mutant_in("slept through")
def timer_late_after_sleep(patch: Patch) -> None:
    """The timer of a deadline runs by the loop's clock, which stops during a suspend."""
    patch.set(expiry_timer, "MAX_TIMER_SECONDS", math.inf)


@mutant
def expiry_believed_while_held(patch: Patch) -> None:
    """Leases expire by a clock that is not trusted."""
    patch.set(ExpiryHold, "held", property(lambda _: False))


@mutant
def young_users_adopted(patch: Patch) -> None:
    """A user without a row is revoked although it may belong to an issue in progress."""
    patch.set(reconciler, "_GRACE_US", 0)
