"""Issues IAM users: intent, CreateUser, all other calls, ACTIVE, then the secret is returned.

``sts_session.py`` issues sessions. Each issue runs as a background task with its result in an
``InFlightIssue``, so a caller that disconnects cannot leave a half-created user. If anything fails, the row
becomes due, and the revocation worker deletes the user; there is no second way to undo an issue.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from lessor_server.domain import ttl, user_names
from lessor_server.domain.access import issue_limits
from lessor_server.domain.aws import plans
from lessor_server.domain.aws.iam_calls import AccessKey, CreateAccessKey, DeleteAccessKey
from lessor_server.domain.errors.base import (
    DeadlineExceeded,
    ErrorKind,
    LessorError,
    RootChanged,
    StoreUnavailable,
)
from lessor_server.domain.lease import Footprint, Lease, State
from lessor_server.domain.policy import session
from lessor_server.domain.policy.template import filled_policy, identity_fields
from lessor_server.domain.role import CredentialType, Role
from lessor_server.domain.root import Root
from lessor_server.domain.user_names import Named
from lessor_server.engine.aws.caller import Outcome, failure
from lessor_server.engine.aws.roots import IssueContext, Roots
from lessor_server.engine.background import BackgroundTasks
from lessor_server.engine.issuing import in_flight as flights
from lessor_server.engine.issuing import lease_writer
from lessor_server.engine.issuing.iam_user import IamUserBuilder
from lessor_server.engine.issuing.in_flight import InFlightIssue
from lessor_server.engine.issuing.lease_writer import LeaseWriter
from lessor_server.engine.issuing.request import Credentials, IssueRequest
from lessor_server.engine.issuing.sts_session import Sessions
from lessor_server.engine.issuing.wait_until_accepted import wait_until_accepted
from lessor_server.engine.meter import AWS_1_PHASE, AWS_2_PHASE, FAILED, OK, REFUSED, PhaseTimer
from lessor_server.engine.ports import LeaseStore

MIN_SECONDS = 2.0
"""An issue does not begin with less time left."""

TRIES = 3
"""Attempts before an issue fails if the root keeps changing."""

_TO_RETRY = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.ABORTED, ErrorKind.DEADLINE, ErrorKind.INTERNAL})
"""Errors of an issue that nobody has to fix before the next attempt, or that are Lessor's own."""


class Issuer:
    """Issues credentials of all types."""

    def __init__(
        self, store: LeaseStore, roots: Roots, writer: LeaseWriter, background: BackgroundTasks
    ) -> None:
        """Write leases with ``writer`` and call AWS for ``roots``."""
        self._store = store
        self._roots = roots
        self._writer = writer
        self._background = background
        self._in_flight: dict[tuple[str, ...], InFlightIssue] = {}
        self._sessions = Sessions(roots, writer, background)

    async def generate(self, asked: IssueRequest, seconds: float) -> Credentials:
        """Issue a credential within ``seconds``, the caller's deadline.

        Raises:
            NotFound, RootNotSet, MountDisabling, MountFull, RoleFull, RuleFull: The issue may not begin.
            PermissionDenied: The limits of the rule that allows the request do not allow it.
            AwsUnavailable, AwsRefused, RootRefused, RoleNotUsable, AwsQuota: AWS did not create it.
            RequestIdReused, RequestSpent, Aborted: The request id was used before.
            DeadlineExceeded: Time ran out; what was created is being revoked.
        """
        if seconds < MIN_SECONDS:
            raise DeadlineExceeded(f"an issue takes up to {MIN_SECONDS:g} s, and {seconds:.1f} s are left")
        until = asyncio.get_running_loop().time() + seconds
        in_flight = self._in_flight.get(asked.key)
        if in_flight is None:
            in_flight = InFlightIssue(asked)
            if asked.key:
                self._in_flight[asked.key] = in_flight
            # Life of a request, 4: a task of its own, which no caller who leaves can stop.
            self._background.start(self._run(asked, in_flight))
        in_flight.require_same(asked)
        in_flight.join()
        try:
            # Life of a request, 10.
            credentials = await in_flight.credentials(until)
            wait = in_flight.wait_usable if asked.wait_usable is None else asked.wait_usable
            if wait:
                credentials = await self._wait_until_usable(credentials, wait, until)
            in_flight.take()
            return credentials
        finally:
            in_flight.leave()
            self._settle(asked, in_flight)

    def _settle(self, asked: IssueRequest, in_flight: InFlightIssue) -> None:
        """Remove an issue that has a result and no caller; withdraw undelivered credentials."""
        if not in_flight.answered or not in_flight.left:
            return
        self._in_flight.pop(asked.key, None)  # from now on repeats find the lease in the store
        if in_flight.undelivered:
            self._background.start(self._writer.withdraw(in_flight.lease, asked))

    async def _wait_until_usable(self, credentials: Credentials, wait: float, until: float) -> Credentials:
        """Wait at most ``wait`` seconds until AWS accepts the key, and not longer than the lease lives."""
        left = (credentials.lease.expires_us - self._store.now()) / 1e6
        proven = await wait_until_accepted(self._roots, credentials, min(wait, left), until)
        return replace(credentials, usable=proven and await self._is_still_active(credentials.lease))

    async def _is_still_active(self, lease: Lease) -> bool:
        """Return whether the lease is still active after its key was verified."""
        try:
            after = await self._store.get(lease.id)
        except StoreUnavailable:
            return False  # the credential was made, and is its caller's either way
        return after is not None and after.state_at(self._store.now()) is State.ACTIVE

    async def _run(self, asked: IssueRequest, in_flight: InFlightIssue) -> None:
        """Issue one credential and set the result of the in-flight issue."""
        loop, outcome = asyncio.get_running_loop(), OK
        began = loop.time()
        try:
            with self._background.unit("issue a credential"):
                in_flight.answer(await self._issue_with_retries(asked, in_flight))
        except LessorError as error:
            outcome = FAILED if error.kind in _TO_RETRY else REFUSED
            in_flight.refuse(error)
        self._writer.meter.record_issue(in_flight.credential_type, outcome, loop.time() - began)
        self._settle(asked, in_flight)

    async def _issue_with_retries(self, asked: IssueRequest, in_flight: InFlightIssue) -> Credentials:
        """Issue one credential; if the root changes meanwhile, as by a rotation, begin again."""
        for _ in range(TRIES - 1):
            try:
                return await self._issue_once(asked, in_flight)
            except RootChanged:
                continue  # only ever raised before the intent is stored: nothing was begun
        return await self._issue_once(asked, in_flight)

    async def _issue_once(self, asked: IssueRequest, in_flight: InFlightIssue) -> Credentials:
        # Life of a request, 5: mount, role and root at one instant.
        request_id = asked.request.id if asked.request else ""
        context = await self._roots.load_context(asked.mount, asked.role, asked.owner, request_id)
        in_flight.credential_type = context.role.credential_type.name.lower()
        if context.role.wait_usable is not None:
            in_flight.wait_usable = context.role.wait_usable.total_seconds()
        issue_limits.require_allowed(asked.grant.pattern, asked.grant.limits, context.role, asked.options)
        self._roots.limiter(context.root).require_open()
        if context.earlier is not None:
            flights.require_repeatable(context.earlier, asked, self._store.now())
            if context.earlier.is_session:
                return await self._sessions.reissue(asked, context, context.earlier, in_flight)
            return await self._reissue(context.root, context.earlier, in_flight)
        if context.role.credential_type is not CredentialType.IAM_USER:
            return await self._sessions.issue(asked, context, in_flight)
        return await self._issue_user(asked, context, in_flight)

    async def _issue_user(
        self, asked: IssueRequest, context: IssueContext, in_flight: InFlightIssue
    ) -> Credentials:
        """Work out the ttl, policies and names, store the intent, and create the user."""
        role, identity = context.role, identity_fields(asked.owner, asked.labels)
        session.require_valid_options(role, asked.options, ttl.violations(asked.ttl, role, context.mount))
        document = filled_policy(role.policy_document, identity)
        if document != role.policy_document:
            role = replace(role, policy_document=document)
        root = await self._roots.bind(context.root)
        self._roots.limiter(root).require_open()
        grant = ttl.grant(asked.ttl, role, context.mount, rule=asked.grant)
        suffix = self._writer.draw_suffix()
        footprint = self._footprint(role, root, suffix, identity)
        intent = lease_writer.intent(asked, context, root, grant=grant, footprint=footprint, suffix=suffix)
        # Life of a request, 6: the intent is durable.
        lease = await self._writer.begin(intent)
        with self._writer.aborting(lease, asked), self._background.unit("make a user"):
            return await self._create_user(role, root, lease, in_flight, grant.warnings)

    def _footprint(self, role: Role, root: Root, suffix: str, identity: Named) -> Footprint:
        template = root.config.username_template
        return Footprint(
            account=root.account,
            user_name=user_names.user_name(template, role.mount, role.name, suffix, identity),
            user_path=user_names.user_path(self._roots.instance, role.user_path),
            inline_policy=plans.INLINE_POLICY if role.policy_document else "",
            policy_arns=role.policy_arns,
            groups=role.iam_groups,
        )

    async def _create_user(
        self, role: Role, root: Root, lease: Lease, in_flight: InFlightIssue, warnings: tuple[str, ...]
    ) -> Credentials:
        """Create the user and activate the lease; after an error the revocation worker deletes the user."""

        def may_retry() -> bool:
            # With a request id the work goes on to ACTIVE if the caller leaves: a repeat may come for it.
            wanted = lease.request is not None or not in_flight.left
            return wanted and self._store.now() < lease.due_us

        builder = IamUserBuilder(self._roots.caller(root), self._store.now, may_retry)
        footprint, tags = lease.footprint, plans.tags_of(self._roots.instance, lease.id, role)

        async def abort(error: LessorError) -> LessorError:
            await self._writer.abort(lease, error, builder.last_create_us)
            return lease_writer.to_caller_error(error)

        if not may_retry():
            raise await abort(lease_writer.not_issued(lease))
        # Life of a request, 7.
        with PhaseTimer(self._writer.meter, AWS_1_PHASE):
            created = await builder.create(plans.create_user(role, footprint, tags))
        if isinstance(created, LessorError):
            raise await abort(created)
        if not may_retry() or not await self._store.is_current(lease):
            raise await abort(lease_writer.not_issued(lease))
        # Life of a request, 8: everything else, with the access key.
        with PhaseTimer(self._writer.meter, AWS_2_PHASE):
            key_call = CreateAccessKey(footprint.user_name)
            outcomes = await builder.attach_all(key_call, plans.attach_all(role, footprint))
        error = failure(outcomes) or (None if may_retry() else lease_writer.not_issued(lease))
        if error is not None:
            raise await abort(error)
        key = _key(outcomes[0])
        # Life of a request, 9: ACTIVE and durable; only now may the secret leave.
        active = await self._writer.activate(lease, key.access_key_id, in_flight)
        if active is None:
            raise await abort(lease_writer.not_issued(lease))
        self._writer.report_issued(active)
        return Credentials(active, key.secret, created.arn, warnings)

    async def _reissue(self, root: Root, lease: Lease, in_flight: InFlightIssue) -> Credentials:
        """Reissue a lease with a new key, since the secret of the old key was not stored.

        If no caller waits any more, the old key stays: another process may have just delivered it. A crash
        in between leaves two keys on the user; its revocation finds both after a DeleteConflict.
        """
        flights.require_wanted(lease, in_flight)
        lease = await self._writer.reserve(lease)
        caller = self._roots.caller(await self._roots.bind(root))
        builder = IamUserBuilder(caller, self._store.now, lambda: True)
        user_name = lease.footprint.user_name

        async def is_exclusive() -> bool:
            return await self._store.is_current(lease)

        made = await builder.create_second_key(CreateAccessKey(user_name), lease.access_key_id, is_exclusive)
        if isinstance(made, LessorError):
            raise lease_writer.to_caller_error(made)
        key = made
        rekeyed = None if in_flight.left else await self._writer.replace_key(lease, key.access_key_id)
        if rekeyed is None:
            await caller.call(DeleteAccessKey(user_name, key.access_key_id))
            raise flights.not_reissued(lease)
        await caller.call(DeleteAccessKey(user_name, lease.access_key_id))
        self._writer.report_issued(rekeyed)
        return Credentials(rekeyed, key.secret, lease.footprint.arn)


def _key(outcome: Outcome[object]) -> AccessKey:
    if isinstance(outcome, AccessKey):
        return outcome
    raise AssertionError("CreateAccessKey answers with a key")
