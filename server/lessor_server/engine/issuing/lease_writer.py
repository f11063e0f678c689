"""What every issue has in common, whatever it makes: its intent, how it gets to live, how it is given up."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Final

from lessor_server.domain import names
from lessor_server.domain.aws.errors import AwsCallFailed, AwsUnknown, for_caller
from lessor_server.domain.errors.base import AwsUnavailable, LessorError, StoreUnavailable
from lessor_server.domain.events import IssueFailed
from lessor_server.domain.lease import Claim, Footprint, Intent, Lease, State
from lessor_server.domain.root import Root
from lessor_server.domain.ttl import Grant
from lessor_server.engine.aws.roots import IssueContext
from lessor_server.engine.issuing.request import IssueRequest
from lessor_server.engine.issuing.ticket import InFlightIssue
from lessor_server.engine.ports import LeaseStore
from lessor_server.engine.revocation.signals import Signals

STORE_RETRY_SECONDS: Final = 1.0

ISSUE_SPAN: Final = timedelta(minutes=3)
"""How long an intent is claimed: longer than its calls are repeated, so no CreateUser is sent after it."""


def draw_suffix(now_us: int, rng: random.Random) -> str:
    """Draw the part by which a lease and its user differ from all others."""
    return names.suffix_of(now_us // 1000, rng.randrange(names.RANDOM_BOUND))


def intent(
    asked: IssueRequest, context: IssueContext, root: Root, *, grant: Grant, footprint: Footprint, drawn: str
) -> Intent:
    """Return the intent of a lease that may begin; ``drawn`` is its suffix."""
    return Intent(
        id=str(names.LeaseId(context.mount.name, context.role.name, drawn)),
        mount=context.mount.name,
        role=context.role.name,
        credential_type=context.role.credential_type,
        owner=asked.owner,
        footprint=footprint,
        ttl=grant.ttl,
        max_ttl=grant.max_ttl,
        max_users=context.mount.max_users,
        max_leases=context.role.max_leases,
        root_version=root.version,
        request=asked.request,
        reason=asked.reason,
    )


def to_caller_error(error: LessorError) -> LessorError:
    """Return the error that a caller gets for a failed call, a lost answer's too."""
    if not isinstance(error, AwsUnknown) or isinstance(error, AwsCallFailed):
        return for_caller(error)
    lost = AwsUnavailable(
        f"{error.message}; credentials that AWS may have created reach nobody", retry_in=1.0
    )
    lost.aws = error.aws
    return lost


async def activate(
    store: LeaseStore, claim: Claim, key_id: str, ongoing: InFlightIssue, ends_us: int = 0
) -> Lease | None:
    """Make the lease ACTIVE, for a minute if nobody waits for it; whole again if a repeat came since."""
    lease = await store.activate(claim, key_id, ends_us=ends_us, undelivered=ongoing.left)
    if lease is None or not lease.undelivered or ongoing.left:
        return lease
    return await store.replace_key(lease, key_id)


async def withdraw(store: LeaseStore, signals: Signals, lease: Lease, asked: IssueRequest) -> None:
    """Take back a credential whose caller went away: immediately, or in a minute if a repeat may come."""
    signals.notify(IssueFailed(lease.id, "its caller went away", ""))
    try:
        after = await (store.mark_undelivered(lease) if asked.request else store.revoke(lease.id))
    except StoreUnavailable:
        return  # the lease is durable and lives to its expiry at most
    if after is not None:
        signals.watch(after.id, after.due_us)


async def abort_when_store_recovers(
    store: LeaseStore, signals: Signals, claim: Claim, asked: IssueRequest
) -> None:
    """Release a row as soon as the store works again, and not only when its claim runs out."""
    while store.now() < claim.lease.due_us:
        await asyncio.sleep(STORE_RETRY_SECONDS)
        try:
            await _give_up(store, signals, claim, asked)
        except StoreUnavailable:
            continue
        return


async def _give_up(store: LeaseStore, signals: Signals, claim: Claim, asked: IssueRequest) -> None:
    """Release a row of which nobody knows what the store made of it last.

    It may be ACTIVE: then nobody was given its key. It may be lost: then what was made late is sought.
    """
    last_create_us = claim.lease.last_create_us
    if not await store.abort_intent(claim, "the store failed", last_create_us):
        lease = await store.get(claim.id)
        if lease is not None and lease.state is State.ACTIVE:
            if lease.generation == claim.generation + 1:  # nothing happened to it since
                await withdraw(store, signals, lease, asked)
            return
        await store.reopen(claim.id, last_create_us)
    signals.watch(claim.id, store.now())
