"""Revokes one lease on AWS: deletes the key, detaches what the row lists, deletes the user.

Every call only deletes, and names are never reused, so an attempt can safely be repeated, or run twice at the
same time. Only the answer to DeleteUser shows that a user is deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lessor_server.domain.aws import plans
from lessor_server.domain.aws.errors import AwsRefused, Refusal
from lessor_server.domain.aws.iam_calls import DeleteUser
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.lease import Lease
from lessor_server.engine.aws.caller import AwsCaller, Outcome, is_inconclusive

_MISSING = (Refusal.NO_SUCH_USER, Refusal.NO_SUCH_OTHER)


@dataclass(frozen=True, slots=True)
class UserDeleted:
    """AWS acknowledged that the user is deleted."""


@dataclass(frozen=True, slots=True)
class UserNotFound:
    """AWS does not know the user: it is deleted, or not visible yet."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """AWS did not answer, failed or throttled: the user's state is unknown."""

    error: LessorError


@dataclass(frozen=True, slots=True)
class RefusedByAws:
    """AWS refused."""

    error: LessorError


AttemptResult = UserDeleted | UserNotFound | NoAnswer | RefusedByAws


def _ignore() -> None: ...


async def attempt_revocation(
    caller: AwsCaller, lease: Lease, on_key_deleted: Callable[[], None] = _ignore
) -> AttemptResult:
    """Make one attempt to revoke ``lease``, and return its result.

    ``on_key_deleted`` is called when AWS has acknowledged that the lease's last key is deleted.
    """
    name = lease.footprint.user_name
    # Life of an expiry, 5.
    cut = await _cut(caller, lease)
    if cut and not any(isinstance(outcome, LessorError) for outcome in cut):
        on_key_deleted()
    # 6. Without policies and groups, a key that AWS did not let us delete can do nothing.
    if not any(is_inconclusive(outcome) for outcome in cut):
        cut += await caller.call_all(plans.detach_all(lease.footprint))
    failure = _first_failure(cut)
    if failure is not None:
        return failure
    deleted = await caller.call(DeleteUser(name))
    if isinstance(deleted, AwsRefused) and deleted.refusal is Refusal.DELETE_CONFLICT:
        return await _delete_leftovers(caller, name)  # 7
    return _result_of(deleted)


async def _cut(caller: AwsCaller, lease: Lease) -> list[Outcome[object]]:
    """End access: delete the stored key, or all keys that AWS lists if none is stored."""
    outcomes = await caller.call_all(plans.revoke_keys(lease))
    if lease.access_key_id or isinstance(outcomes[0], LessorError):
        return outcomes
    return await caller.call_all(plans.delete_keys(lease.footprint.user_name, _names(outcomes[0])))


async def _delete_leftovers(caller: AwsCaller, name: str) -> AttemptResult:
    """Delete everything that AWS lists for the user, then the user."""
    survey = plans.list_attachments(name)
    outcomes = await caller.call_all(survey)
    silent = next((outcome for outcome in outcomes if is_inconclusive(outcome)), None)
    if silent is not None:
        return _result_of(silent)
    # A denied listing counts as empty: DeleteUser fails if it was not.
    found = tuple((call, _names(outcome)) for call, outcome in zip(survey, outcomes, strict=True))
    await caller.call_all(plans.delete_attachments(name, found))
    return _result_of(await caller.call(DeleteUser(name)))


def _names(outcome: Outcome[object]) -> tuple[str, ...]:
    if not isinstance(outcome, LessorError) and isinstance(outcome, tuple):
        return tuple(str(name) for name in outcome)
    return ()


def _first_failure(outcomes: list[Outcome[object]]) -> AttemptResult | None:
    """Return why the next round must not run; ignore a missing object.

    Also ignore a name that AWS rejects as invalid, from a damaged row: DeleteUser fails if anything is left.
    """
    results = [_result_of(outcome) for outcome in outcomes if not _is_malformed(outcome)]
    bad = [result for result in results if isinstance(result, (NoAnswer, RefusedByAws))]
    return bad[0] if bad else None


def _is_malformed(outcome: Outcome[object]) -> bool:
    return isinstance(outcome, AwsRefused) and outcome.refusal is Refusal.MALFORMED


def _result_of(outcome: Outcome[object]) -> AttemptResult:
    if not isinstance(outcome, LessorError):
        return UserDeleted()
    if isinstance(outcome, AwsRefused) and outcome.refusal in _MISSING:
        return UserNotFound()
    return NoAnswer(outcome) if is_inconclusive(outcome) else RefusedByAws(outcome)
