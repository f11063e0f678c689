"""Issues sessions of STS: intent, one call, ACTIVE until AWS ends it, then the secret is returned.

A session can't be undone: if anything fails, the row is given up, and the revocation worker ends it
without a call to AWS. A session whose answer was lost reaches nobody, since its secret is lost too.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Final

from lessor_server.domain import ttl
from lessor_server.domain.aws.calls import Call
from lessor_server.domain.aws.errors import AwsRefused
from lessor_server.domain.aws.sts_calls import AssumeRole, Session
from lessor_server.domain.errors.base import (
    InternalError,
    LeaseTaken,
    LessorError,
    RowUnreadable,
    StoreUnavailable,
)
from lessor_server.domain.errors.preconditions import (
    AssumeRoleRefused,
    MfaRefused,
    RequestSpent,
    RootKindUnfit,
)
from lessor_server.domain.events import Issued, IssueFailed
from lessor_server.domain.lease import Claim, Footprint, Lease
from lessor_server.domain.policy import session
from lessor_server.domain.policy.session import SessionInputs
from lessor_server.domain.policy.template import Caller
from lessor_server.domain.role import STS_FLOOR, CredentialType
from lessor_server.domain.root import Root
from lessor_server.domain.root_kind import longest_session
from lessor_server.engine.aws.caller import Done, Outcome
from lessor_server.engine.aws.roots import IssueContext, Roots
from lessor_server.engine.background import BackgroundTasks
from lessor_server.engine.issuing import in_flight, lease_writer
from lessor_server.engine.issuing.group_policies import Groups
from lessor_server.engine.issuing.request import Credentials, IssueRequest
from lessor_server.engine.issuing.ticket import InFlightIssue
from lessor_server.engine.ports import LeaseStore
from lessor_server.engine.revocation.signals import Signals
from lessor_server.engine.supervisor import Supervisor

_SECOND_US: Final = 1_000_000
_MFA_FAILED: Final = "MultiFactorAuthentication"
"""How AWS's text of an AccessDenied begins where it is the code that was refused."""


class Sessions:
    """Makes sessions of the types ASSUMED_ROLE, FEDERATION_TOKEN and SESSION_TOKEN."""

    def __init__(
        self,
        store: LeaseStore,
        roots: Roots,
        work: BackgroundTasks,
        signals: Signals,
        rng: random.Random,
        supervisor: Supervisor,
    ) -> None:
        """Issue from ``store`` with ``roots``; ``rng`` draws the random part of every name."""
        self._supervisor = supervisor
        self._store = store
        self._roots = roots
        self._work = work
        self._signals = signals
        self._rng = rng
        self._groups = Groups(roots)

    async def issue(self, asked: IssueRequest, context: IssueContext, ongoing: InFlightIssue) -> Credentials:
        """Make a session under a lease of its own, or raise why not."""
        role = context.role
        session.require_askable(role, asked.ask, ttl.violations(asked.ttl, role, context.mount))
        root = await self._roots.bound(context.root)
        self._roots.limiter(root).require_open()
        grant = ttl.grant(
            asked.ttl, role, context.mount, await self._max_duration(root, role.credential_type)
        )
        drawn = lease_writer.draw_suffix(self._store.now(), self._rng)
        call = await self._call(asked, context, root, seconds=int(grant.ttl.total_seconds()), drawn=drawn)
        footprint = Footprint(root.account, "", "")
        intent = lease_writer.intent(asked, context, root, grant=grant, footprint=footprint, drawn=drawn)
        claim = await self._store.begin(intent, lease_writer.ISSUE_SPAN)
        self._signals.watch(claim.id, claim.lease.due_us)
        try:
            with self._supervisor.unit("make a session"):
                return await self._create_session(root, claim, call, ongoing, warnings=grant.warnings)
        except (StoreUnavailable, InternalError, RowUnreadable):
            self._work.start(
                lease_writer.abort_when_store_recovers(self._store, self._signals, claim, asked), lasting=True
            )
            raise

    async def reissue(
        self, asked: IssueRequest, context: IssueContext, lease: Lease, ongoing: InFlightIssue
    ) -> Credentials:
        """Hand out a lease once more, with a fresh session that lives for what is left of it, and no longer.

        Raises:
            RequestSpent: Less is left than the shortest session that AWS makes, or role or root have changed.
        """
        seconds = (lease.max_expires_us - self._store.now()) // _SECOND_US
        root = await self._roots.bound(context.root)
        same = (
            lease.credential_type is context.role.credential_type and lease.footprint.account == root.account
        )
        if not same or seconds < STS_FLOOR.total_seconds():
            why = "has too little time left for another session" if same else "is of another type or account"
            raise RequestSpent(f"lease {lease.id} {why}", subject=lease.id)
        session.require_askable(context.role, asked.ask, [])
        longest = await self._max_duration(root, lease.credential_type)
        seconds = min(seconds, int(longest.total_seconds()))
        drawn = lease.id.rpartition("/")[2]
        call = await self._call(asked, context, root, seconds=seconds, drawn=drawn)
        in_flight.require_wanted(lease, ongoing)
        outcome = await self._roots.caller(root).call(call)
        if not isinstance(outcome, Done):
            raise _to_caller_error(outcome, call)
        made = outcome.value
        rekeyed = None if ongoing.left else await self._store.replace_key(lease, made.access_key_id)
        if rekeyed is None:
            raise in_flight.lease_taken(lease)
        return self._handed_out(rekeyed, made, ())

    async def _max_duration(self, root: Root, credential_type: CredentialType) -> timedelta:
        """Return the longest session that the root can make, or raise ``RootKindUnfit``."""
        kind = await self._roots.kind(root)
        longest = longest_session(kind, credential_type)
        if longest is None:
            raise RootKindUnfit(
                f"the root of mount {root.mount} is of kind {kind.value}: AWS lets it make no "
                f"{credential_type.name}",
                subject=root.mount,
            )
        return longest

    async def _call(
        self, asked: IssueRequest, context: IssueContext, root: Root, *, seconds: int, drawn: str
    ) -> Call[Session]:
        caller = Caller(asked.owner, asked.labels)
        groups = await self._groups.policies(root, context.role.iam_groups)
        name = session.name(context.role, asked.ask, root.config.username_template, drawn, caller)
        return session.call(context.role, asked.ask, SessionInputs(caller, groups, name, seconds))

    async def _create_session(
        self,
        root: Root,
        claim: Claim,
        call: Call[Session],
        ongoing: InFlightIssue,
        *,
        warnings: tuple[str, ...],
    ) -> Credentials:
        """Send the one call and activate the lease; give the row up if anything fails."""
        # With a request id the work continues to ACTIVE even if the caller leaves: a repeat may come for it.
        wanted = claim.lease.request is not None
        gone = LeaseTaken(f"lease {claim.id} was revoked, or its caller left, while it was being made")
        outcome: Outcome[Session] = gone
        if wanted or not ongoing.left:
            outcome = await self._roots.caller(root).call(call)
            if not wanted and ongoing.left:
                outcome = gone
        if not isinstance(outcome, Done):
            raise await self._release(claim, outcome, call)
        made = outcome.value
        lease = await lease_writer.activate(
            self._store, claim, made.access_key_id, ongoing, ends_us=made.expires_us
        )
        if lease is None:
            raise await self._release(claim, gone, call)
        return self._handed_out(lease, made, warnings)

    def _handed_out(self, lease: Lease, made: Session, warnings: tuple[str, ...]) -> Credentials:
        self._signals.watch(lease.id, lease.due_us)
        self._signals.notify(
            Issued(lease.id, lease.access_key_id, lease.owner, lease.expires_us, lease.reason)
        )
        return Credentials(
            lease, made.secret, made.arn, warnings, token=made.token, packed_percent=made.packed_percent
        )

    async def _release(self, claim: Claim, error: LessorError, call: Call[Session]) -> LessorError:
        """Give the row up, to be ended immediately; return the error that the caller gets."""
        self._signals.notify(IssueFailed(claim.id, error.message, error.detail))
        await self._store.abort_intent(claim, error.message, 0)
        self._signals.watch(claim.id, self._store.now())
        return _to_caller_error(error, call)


def _to_caller_error(error: LessorError, call: Call[Session]) -> LessorError:
    """Return the error that a caller gets for a failed call to STS: it names what to fix."""
    told = lease_writer.to_caller_error(error)
    if isinstance(error, AwsRefused) and error.aws and error.aws.code == "AccessDenied":
        if error.detail.startswith(_MFA_FAILED):
            told = MfaRefused(error.message, subject=error.subject)
        elif isinstance(call, AssumeRole):
            told = AssumeRoleRefused(error.message, subject=error.subject)
    told.aws = error.aws
    return told
