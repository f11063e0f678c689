"""Issues sessions of STS: intent, one call, ACTIVE until AWS ends the session, then the secret is returned.

A session cannot be revoked. If anything fails, the lease is aborted, and the revocation worker ends it
without a call to AWS. If AWS's answer is lost, so is the secret: no caller has the session.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lessor_server.domain import ttl
from lessor_server.domain.aws.errors import AwsRefused
from lessor_server.domain.aws.iam_calls import Call
from lessor_server.domain.aws.sts_calls import AssumeRole, Session
from lessor_server.domain.durations import MICROSECOND, SECOND_US
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.errors.preconditions import (
    AssumeRoleRefused,
    MfaRefused,
    RequestSpent,
    RootKindUnfit,
)
from lessor_server.domain.lease import Footprint, Lease
from lessor_server.domain.policy import session
from lessor_server.domain.policy.session import SessionInputs
from lessor_server.domain.policy.template import identity_fields
from lessor_server.domain.role import STS_FLOOR, CredentialType
from lessor_server.domain.root import Root
from lessor_server.domain.root_kind import longest_session
from lessor_server.engine.aws.caller import Outcome
from lessor_server.engine.aws.roots import IssueContext, Roots
from lessor_server.engine.background import BackgroundTasks
from lessor_server.engine.issuing import in_flight as flights
from lessor_server.engine.issuing import lease_writer
from lessor_server.engine.issuing.group_policies import Groups
from lessor_server.engine.issuing.in_flight import InFlightIssue
from lessor_server.engine.issuing.lease_writer import LeaseWriter
from lessor_server.engine.issuing.request import Credentials, IssueRequest
from lessor_server.engine.meter import AWS_1_PHASE, PhaseTimer

_MFA_FAILED: Final = "MultiFactorAuthentication"
"""How AWS's text of an AccessDenied begins if the MFA code was refused."""

_CALL_US: Final = SECOND_US
"""The time until AWS has the call: it counts the session's seconds from then on."""


class Sessions:
    """Issues sessions of the types ASSUMED_ROLE, FEDERATION_TOKEN and SESSION_TOKEN."""

    def __init__(self, roots: Roots, writer: LeaseWriter, background: BackgroundTasks) -> None:
        """Write leases with ``writer`` and call AWS for ``roots``."""
        self._roots = roots
        self._writer = writer
        self._background = background
        self._groups = Groups(roots)

    async def issue(
        self, asked: IssueRequest, context: IssueContext, in_flight: InFlightIssue
    ) -> Credentials:
        """Issue a session under a new lease."""
        role = context.role
        session.require_valid_options(role, asked.options, ttl.violations(asked.ttl, role, context.mount))
        root = await self._roots.bind(context.root)
        self._roots.limiter(root).require_open()
        longest = await self._max_duration(root, role.credential_type)
        grant = ttl.grant(asked.ttl, role, context.mount, longest, rule=asked.grant)
        suffix = self._writer.draw_suffix()
        call = await self._call(asked, context, root, seconds=int(grant.ttl.total_seconds()), suffix=suffix)
        footprint = Footprint(root.account, "", "")
        intent = lease_writer.intent(asked, context, root, grant=grant, footprint=footprint, suffix=suffix)
        lease = await self._writer.begin(intent)
        with self._writer.aborting(lease, asked), self._background.unit("make a session"):
            return await self._create_session(root, lease, call, in_flight, grant.warnings)

    async def reissue(
        self, asked: IssueRequest, context: IssueContext, lease: Lease, in_flight: InFlightIssue
    ) -> Credentials:
        """Reissue a lease with a new session that ends no later than the lease, and than the rule allows.

        Raises:
            RequestSpent: Less is left than the shortest session that AWS makes, or role or root have changed.
        """
        bound_us = _bound_us(lease, asked)
        seconds = (bound_us - self._writer.now() - _CALL_US) // SECOND_US
        root = await self._roots.bind(context.root)
        same = (
            lease.credential_type is context.role.credential_type and lease.footprint.account == root.account
        )
        if not same or seconds < STS_FLOOR.total_seconds():
            why = "has too little time left for another session" if same else "is of another type or account"
            raise RequestSpent(f"lease {lease.id} {why}", subject=lease.id)
        session.require_valid_options(context.role, asked.options, [])
        longest = await self._max_duration(root, lease.credential_type)
        seconds = min(seconds, int(longest.total_seconds()))
        suffix = lease.id.rpartition("/")[2]
        call = await self._call(asked, context, root, seconds=seconds, suffix=suffix)
        flights.require_wanted(lease, in_flight)
        outcome = await self._roots.caller(root).call(call)
        if isinstance(outcome, LessorError):
            raise _to_caller_error(outcome, call)
        made = outcome
        rekeyed = (
            None if in_flight.left else await self._writer.replace_key(lease, made.access_key_id, bound_us)
        )
        if rekeyed is None:
            raise flights.not_reissued(lease)
        capped = f"the session ends earlier than the lease's first one, by the rule {asked.grant.pattern}"
        warnings = (capped,) if bound_us < lease.max_expires_us else ()
        return self._hand_out(rekeyed, made, warnings)

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
        self, asked: IssueRequest, context: IssueContext, root: Root, *, seconds: int, suffix: str
    ) -> Call[Session]:
        identity = identity_fields(asked.owner, asked.labels)
        groups = await self._groups.policies(root, context.role.iam_groups)
        name = session.name(context.role, asked.options, root.config.username_template, suffix, identity)
        return session.call(context.role, asked.options, SessionInputs(identity, groups, name, seconds))

    async def _create_session(
        self,
        root: Root,
        lease: Lease,
        call: Call[Session],
        in_flight: InFlightIssue,
        warnings: tuple[str, ...],
    ) -> Credentials:
        """Send the call and activate the lease; abort the lease after an error."""

        def is_wanted() -> bool:
            # With a request id the work goes on to ACTIVE if the caller leaves: a repeat may come for it.
            return lease.request is not None or not in_flight.left

        outcome: Outcome[Session] | None = None
        if is_wanted():
            with PhaseTimer(self._writer.meter, AWS_1_PHASE):
                outcome = await self._roots.caller(root).call(call)
        if isinstance(outcome, Session) and is_wanted():
            active = await self._writer.activate(lease, outcome.access_key_id, in_flight, outcome.expires_us)
            if active is not None:
                return self._hand_out(active, outcome, warnings)
        error = (
            outcome if isinstance(outcome, LessorError) and is_wanted() else lease_writer.not_issued(lease)
        )
        await self._writer.abort(lease, error, 0)
        raise _to_caller_error(error, call)

    def _hand_out(self, lease: Lease, made: Session, warnings: tuple[str, ...]) -> Credentials:
        self._writer.report_issued(lease)
        return Credentials(
            lease,
            made.secret,
            made.arn,
            warnings,
            token=made.token,
            packed_percent=made.packed_percent,
        )


def _bound_us(lease: Lease, asked: IssueRequest) -> int:
    """Return when another session of a lease must end, in microseconds."""
    longest = asked.grant.limits.max_ttl
    if longest is None:
        return lease.max_expires_us
    return min(lease.max_expires_us, lease.issue_us + longest // MICROSECOND)


def _to_caller_error(error: LessorError, call: Call[Session]) -> LessorError:
    """Return the error that a caller gets for a failed call to STS."""
    caller_error = lease_writer.to_caller_error(error)
    if isinstance(error, AwsRefused) and error.aws and error.aws.code == "AccessDenied":
        if error.detail.startswith(_MFA_FAILED):
            caller_error = MfaRefused(error.message, subject=error.subject)
        elif isinstance(call, AssumeRole):
            caller_error = AssumeRoleRefused(error.message, subject=error.subject)
    caller_error.aws = error.aws
    return caller_error
