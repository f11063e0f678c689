"""Issues credentials: intent, CreateUser, all other calls together, ACTIVE, then the secret is returned.

This is for IAM users; ``sts_session.py`` issues sessions.

The work runs as a task of the engine's group and answers through an in-flight issue, so that a caller
that goes away can't leave a half-created user. If anything fails, the row becomes due, and the revocation
worker cleans up by the ordinary revocation; there is no second way back.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace

from lessor_server.domain import names, ttl
from lessor_server.domain.aws import plans
from lessor_server.domain.aws.calls import AccessKey, CreateAccessKey, DeleteAccessKey
from lessor_server.domain.errors.base import (
    Aborted,
    DeadlineExceeded,
    InternalError,
    LeaseTaken,
    LessorError,
    RootChanged,
    RowUnreadable,
    StoreUnavailable,
)
from lessor_server.domain.events import Issued, IssueFailed
from lessor_server.domain.lease import Claim, Footprint, Intent, Lease, State
from lessor_server.domain.policy import session
from lessor_server.domain.policy.template import Caller, filled_policy
from lessor_server.domain.role import CredentialType, Role
from lessor_server.domain.root import Root
from lessor_server.engine.aws.caller import Done, Outcome, failure
from lessor_server.engine.aws.roots import IssueContext, Roots
from lessor_server.engine.background import BackgroundTasks
from lessor_server.engine.issuing import acceptance, in_flight, lease_writer
from lessor_server.engine.issuing.iam_user import IamUserBuilder
from lessor_server.engine.issuing.in_flight import InFlightRequests
from lessor_server.engine.issuing.request import Credentials, IssueRequest
from lessor_server.engine.issuing.sts_session import Sessions
from lessor_server.engine.issuing.ticket import InFlightIssue
from lessor_server.engine.ports import LeaseStore
from lessor_server.engine.revocation.signals import Signals
from lessor_server.engine.supervisor import Supervisor

MIN_SECONDS = 2.0
"""With less time left than this an issue is not begun."""

TRIES = 3
"""How often an issue reads what it stands on, where the root changes before the intent is stored."""


@dataclass(frozen=True, slots=True)
class _UserPlan:
    """An issue that may begin."""

    role: Role
    root: Root
    intent: Intent
    warnings: tuple[str, ...]


class Issuer:
    """Makes IAM users, has sessions made, and hands out what they sign with."""

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
        self._requests = InFlightRequests()
        self._sessions = Sessions(store, roots, work, signals, rng, supervisor)

    async def generate(self, asked: IssueRequest, seconds: float) -> Credentials:
        """Return a credential within ``seconds``, the time that the caller has left.

        Raises:
            NotFound, RootNotSet, MountDisabling, MountFull, RoleFull: It may not begin.
            AwsUnavailable, AwsRefused, RootRefused, RoleNotUsable, AwsQuota: AWS did not make it.
            RequestIdReused, RequestSpent, Aborted: The request id was used before.
            DeadlineExceeded: Time ran out; what was made is being revoked.
        """
        if seconds < MIN_SECONDS:
            raise DeadlineExceeded(f"an issue takes up to {MIN_SECONDS:g} s, and {seconds:.1f} s are left")
        until = asyncio.get_running_loop().time() + seconds
        ongoing = self._requests.under_way(asked)
        if ongoing is None:
            ongoing = InFlightIssue(asked.request.digest if asked.request else "")
            self._requests.begin(asked, ongoing)
            # Life of a request, 4: a task of its own, which no caller who leaves can stop.
            self._work.start(self._run(asked, ongoing))
        try:
            with ongoing.waiting():
                # Life of a request, 10.
                credentials = await self._wait_until_usable(await ongoing.credentials(until), asked, until)
                ongoing.take()
                return credentials
        finally:
            self._settle(asked, ongoing)

    def _settle(self, asked: IssueRequest, ongoing: InFlightIssue) -> None:
        """Close an in-flight issue that is answered and has no caller; take back undelivered credentials."""
        if not ongoing.answered or not ongoing.left:
            return
        self._requests.end(asked)
        if ongoing.undelivered:
            self._work.start(lease_writer.withdraw(self._store, self._signals, ongoing.lease, asked))

    async def _wait_until_usable(
        self, credentials: Credentials, asked: IssueRequest, until: float
    ) -> Credentials:
        """Wait for AWS to accept the key, if the request asks for it, and at most until the lease ends."""
        if not asked.wait_usable:
            return credentials
        left = (credentials.lease.expires_us - self._store.now()) / 1e6
        proven = await acceptance.wait_until_accepted(
            self._roots, credentials, min(asked.wait_usable, left), until
        )
        return replace(credentials, usable=proven and await self._is_still_active(credentials.lease))

    async def _is_still_active(self, lease: Lease) -> bool:
        """Return whether the lease is still active after its key was verified."""
        try:
            after = await self._store.get(lease.id)
        except StoreUnavailable:
            return False  # the credential was made, and is its caller's either way
        return after is not None and after.state_at(self._store.now()) is State.ACTIVE

    async def _run(self, asked: IssueRequest, ongoing: InFlightIssue) -> None:
        """Issue one credential and answer the in-flight issue."""
        try:
            with self._supervisor.unit("issue a credential"):
                ongoing.answer(await self._issue_with_retries(asked, ongoing))
        except LessorError as error:
            ongoing.refuse(error)
        self._settle(asked, ongoing)

    async def _issue_with_retries(self, asked: IssueRequest, ongoing: InFlightIssue) -> Credentials:
        """Make one credential; a root that changes under it, as by a rotation, is read again."""
        for _ in range(TRIES - 1):
            try:
                return await self._issue_once(asked, ongoing)
            except RootChanged:
                continue  # only ever raised before the intent is stored: nothing was begun
        return await self._issue_once(asked, ongoing)

    async def _issue_once(self, asked: IssueRequest, ongoing: InFlightIssue) -> Credentials:
        # Life of a request, 5: mount, role and root at one instant.
        context = await self._roots.load_context(asked.mount, asked.role, in_flight.request_key(asked))
        self._roots.limiter(context.root).require_open()
        if context.earlier is not None:
            in_flight.require_repeatable(context.earlier, asked, self._store.now())
            if context.earlier.is_session:
                return await self._sessions.reissue(asked, context, context.earlier, ongoing)
            return await self._reissue(context.root, context.earlier, ongoing)
        if context.role.credential_type is not CredentialType.IAM_USER:
            return await self._sessions.issue(asked, context, ongoing)
        plan = await self._plan(asked, context)
        # Life of a request, 6: the intent is durable.
        claim = await self._store.begin(plan.intent, lease_writer.ISSUE_SPAN)
        self._signals.watch(claim.id, claim.lease.due_us)
        try:
            with self._supervisor.unit("make a user"):
                return await self._create_user(plan, claim, ongoing)
        except (StoreUnavailable, InternalError, RowUnreadable):
            self._work.start(
                lease_writer.abort_when_store_recovers(self._store, self._signals, claim, asked), lasting=True
            )
            raise

    async def _plan(self, asked: IssueRequest, context: IssueContext) -> _UserPlan:
        """Decide how long the lease lives and what it may do, and draw its names."""
        session.require_askable(
            context.role, asked.ask, ttl.violations(asked.ttl, context.role, context.mount)
        )
        caller = Caller(asked.owner, asked.labels)
        document = filled_policy(context.role.policy_document, caller)
        root = await self._roots.bound(context.root)
        self._roots.limiter(root).require_open()
        grant = ttl.grant(asked.ttl, context.role, context.mount)
        drawn = lease_writer.draw_suffix(self._store.now(), self._rng)
        footprint = self._footprint(context, root, drawn, caller)
        intent = lease_writer.intent(asked, context, root, grant=grant, footprint=footprint, drawn=drawn)
        return _UserPlan(replace(context.role, policy_document=document), root, intent, grant.warnings)

    def _footprint(self, context: IssueContext, root: Root, drawn: str, caller: Caller) -> Footprint:
        role, template = context.role, root.config.username_template
        return Footprint(
            account=root.account,
            user_name=names.user_name(template, context.mount.name, role.name, drawn, caller.value),
            user_path=names.user_path(self._roots.instance, role.user_path),
            inline_policy=plans.INLINE_POLICY if role.policy_document else "",
            policy_arns=role.policy_arns,
            groups=role.iam_groups,
        )

    async def _create_user(self, plan: _UserPlan, claim: Claim, ongoing: InFlightIssue) -> Credentials:
        """Run the two rounds and activate the lease; if anything fails, the revocation worker undoes it."""
        # With a request id the work continues to ACTIVE even if the caller leaves: a repeat may come for it.
        wanted = plan.intent.request is not None

        def may_retry() -> bool:
            return (wanted or not ongoing.left) and self._store.now() < claim.lease.due_us

        builder = IamUserBuilder(self._roots.caller(plan.root), self._store.now, may_retry)
        tags = plans.tags_of(self._roots.instance, claim.id, plan.role)
        calls = plans.issue(plan.role, claim.lease.footprint, tags)
        gone = LeaseTaken(f"lease {claim.id} was revoked, or its caller left, while it was being made")
        if not builder.may_retry():
            raise await self._release(claim, gone, 0)
        # Life of a request, 7.
        made = await builder.create(calls.create)
        if not isinstance(made, Done):
            raise await self._release(claim, made, builder.last_create_us)
        if not builder.may_retry() or not await self._store.claim_is_valid(claim):
            raise await self._release(claim, gone, builder.last_create_us)
        # Life of a request, 8: everything else, with the access key.
        outcomes = await builder.attach_all(calls)
        error = failure(outcomes) or (None if builder.may_retry() else gone)
        if error is not None:
            raise await self._release(claim, error, builder.last_create_us)
        key = _key(outcomes[0])
        # Life of a request, 9: ACTIVE and durable; only now may the secret leave.
        lease = await lease_writer.activate(self._store, claim, key.access_key_id, ongoing)
        if lease is None:
            raise await self._release(claim, gone, builder.last_create_us)
        self._signals.watch(lease.id, lease.due_us)
        self._signals.notify(Issued(lease.id, key.access_key_id, lease.owner, lease.expires_us, lease.reason))
        return Credentials(lease, key.secret, made.value.arn, plan.warnings)

    async def _reissue(self, root: Root, lease: Lease, ongoing: InFlightIssue) -> Credentials:
        """Hand out a lease once more, with a fresh key: the old one's secret was never kept.

        Where nobody waits any more the key stays as it is: another process may just have handed it out.
        A crash in between leaves two keys on the user, which its revocation finds by DeleteConflict.
        """
        in_flight.require_wanted(lease, ongoing)
        lease = await self._reserve(lease)
        caller = self._roots.caller(await self._roots.bound(root))
        builder = IamUserBuilder(caller, self._store.now, lambda: True)
        user_name = lease.footprint.user_name

        async def alone() -> bool:
            return await self._store.claim_is_valid(Claim(lease))

        made = await builder.create_second_key(CreateAccessKey(user_name), lease.access_key_id, alone)
        if not isinstance(made, Done):
            raise lease_writer.to_caller_error(made)
        rekeyed = None if ongoing.left else await self._store.replace_key(lease, made.value.access_key_id)
        if rekeyed is None:
            await caller.call(DeleteAccessKey(user_name, made.value.access_key_id))
            raise in_flight.lease_taken(lease)
        self._signals.watch(rekeyed.id, rekeyed.due_us)
        await caller.call(DeleteAccessKey(user_name, lease.access_key_id))
        self._signals.notify(
            Issued(rekeyed.id, rekeyed.access_key_id, rekeyed.owner, rekeyed.expires_us, rekeyed.reason)
        )
        return Credentials(rekeyed, made.value.secret, lease.footprint.arn, ())

    async def _reserve(self, lease: Lease) -> Lease:
        """Return the lease in a new generation: only the last of several processes hands it out again.

        The others' keys never get into the row, so none that a caller was given is deleted as a stray.
        """
        if lease.undelivered:
            reserved = await self._store.mark_undelivered(lease)
        else:
            reserved = await self._store.replace_key(lease, lease.access_key_id)
        if reserved is None:
            raise Aborted(f"lease {lease.id} is being handed out by another process", retry_in=0.5)
        # Also where it is not handed out after all: the process that set the deadline may be gone.
        self._signals.watch(reserved.id, reserved.due_us)
        return reserved

    async def _release(self, claim: Claim, error: LessorError, last_create_us: int) -> LessorError:
        """Make the row due for revocation immediately; return the error that the caller gets."""
        self._signals.notify(IssueFailed(claim.id, error.message, error.detail))
        if not await self._store.abort_intent(claim, error.message, last_create_us):
            await self._store.reopen(claim.id, last_create_us)
        self._signals.watch(claim.id, self._store.now())
        return lease_writer.to_caller_error(error)


def _key(outcome: Outcome[object]) -> AccessKey:
    if isinstance(outcome, Done) and isinstance(outcome.value, AccessKey):
        return outcome.value
    raise AssertionError("CreateAccessKey answers with a key")
