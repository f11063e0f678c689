"""LeaseService: leases after their credentials are issued."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from google.protobuf.duration_pb2 import Duration

from lessor.v1 import lease_pb2 as pb
from lessor_server.domain.access.acl import Capability
from lessor_server.domain.access.issue_limits import NO_LIMITS
from lessor_server.domain.durations import SECOND_US
from lessor_server.domain.lease import Lease, State
from lessor_server.domain.lease_id import CREDS, IdRange, LeaseId
from lessor_server.engine.leases import Leases, Outcome
from lessor_server.engine.revocation.bulk import Prefixes, Standing
from lessor_server.engine.streams.lease_events import LeaseEventBroker
from lessor_server.engine.streams.lease_events import LeaseEventKind as Happened
from lessor_server.engine.upkeep.reconciler import FindingKind, Reconciler
from lessor_server.services import messages
from lessor_server.services.call import Caller
from lessor_server.services.messages import Problems
from lessor_server.services.role import credential_type

_STATES = {state: pb.Lease.State.Value(state.name) for state in State}
_BY_VALUE = {value: state for state, value in _STATES.items()}
_KINDS = {kind: pb.ReconcileResponse.Kind.Value(kind.name) for kind in FindingKind}
_TYPES = {kind: pb.WatchLeasesResponse.Type.Value(kind.name) for kind in Happened}
TAMPERED = (
    "the row of this lease is not as Lessor wrote it: it can be revoked, but neither renewed nor issued again"
)
INSTANCE = re.compile(r"[0-9a-f]{16}")
_OUTCOMES = {outcome: pb.RevokeLeaseResponse.Outcome.Value(outcome.name) for outcome in Outcome}


class LeaseService:
    """Serves holders of leases, and operators."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["LeaseService"]

    def __init__(
        self, leases: Leases, prefixes: Prefixes, reconciler: Reconciler, lease_events: LeaseEventBroker
    ) -> None:
        """Read and change ``leases``; ``prefixes`` accepts bulk revocations; ``reconciler`` compares."""
        self._leases = leases
        self._prefixes = prefixes
        self._reconciler = reconciler
        self._lease_events = lease_events

    async def LookupLease(self, request: pb.LookupLeaseRequest, caller: Caller) -> pb.LookupLeaseResponse:
        """Show a lease."""
        lease = await self._leases.lookup(LeaseId.parse(request.lease_id), caller.only_owner)
        answer = pb.LookupLeaseResponse(lease=_lease(lease, self._leases.now()))
        if lease.tampered:
            answer.warnings.append(TAMPERED)
        return answer

    async def ListLeases(self, request: pb.ListLeasesRequest, caller: Caller) -> pb.ListLeasesResponse:
        """List leases by id."""
        with Problems() as problems:
            ids = problems.parse(IdRange.parse, request.prefix)
            state = problems.parse(_state, request)
            size = problems.parse(messages.page_size, request.page_size)
            owner = problems.parse(messages.owner_of, request.owner)
            if request.page_token:
                problems.parse(LeaseId.parse, request.page_token, "page_token")
        found = await self._leases.page(
            ids, state, request.page_token, size + 1, owner=owner, only_owner=caller.only_owner
        )
        if not found:
            await self._leases.require_mount(ids, caller.only_owner)
        now = self._leases.now()
        page, more = await messages.fill_page(found, size, lambda lease: _lease(lease, now))
        return pb.ListLeasesResponse(leases=page, next_page_token=page[-1].lease_id if more else "")

    async def CountLeases(self, request: pb.CountLeasesRequest, caller: Caller) -> pb.CountLeasesResponse:
        """Count leases by mount, role and state."""
        with Problems() as problems:
            ids = problems.parse(IdRange.parse, request.prefix)
            chosen = problems.parse(_state, request)
            owner = problems.parse(messages.owner_of, request.owner)
        answer = pb.CountLeasesResponse()
        counts = await self._leases.count(ids, chosen, owner=owner, only_owner=caller.only_owner)
        if not counts:
            await self._leases.require_mount(ids, caller.only_owner)
        for counted in counts:
            state = _STATES[counted.state]
            answer.counts.add(mount=counted.mount, role=counted.role, state=state, count=counted.count)
            await messages.take_turns(len(answer.counts))
        return answer

    async def RenewLease(self, request: pb.RenewLeaseRequest, caller: Caller) -> pb.RenewLeaseResponse:
        """Renew a lease; its owner needs what it needs to issue one, within the same limits."""
        with Problems() as problems:
            lease_id = problems.parse(LeaseId.parse, request.lease_id)
            increment = problems.parse(messages.parse_duration, request, "increment") or None
        by, limits = caller.principal.name, NO_LIMITS
        if caller.only_owner is not None:
            await self._leases.require_owned(lease_id, caller.only_owner)
            issuing = f"{lease_id.mount}{CREDS}{lease_id.role}"
            limits = caller.require(issuing, Capability.READ).limits
        renewed = await self._leases.renew(lease_id, increment, by, caller.only_owner, limits)
        return pb.RenewLeaseResponse(
            lease_id=renewed.lease.id,
            lease_duration=messages.to_whole_seconds(renewed.ttl),
            lease_renewable=True,
            expire_time=messages.timestamp(renewed.lease.expires_us),
            warnings=renewed.warnings,
        )

    async def RevokeLease(self, request: pb.RevokeLeaseRequest, caller: Caller) -> pb.RevokeLeaseResponse:
        """Revoke a lease; OK for every well-formed id."""
        lease_id = LeaseId.parse(request.lease_id)
        revocation = await self._leases.revoke(
            lease_id, sync=request.sync, by=caller.principal.name, only_owner=caller.only_owner
        )
        return pb.RevokeLeaseResponse(
            outcome=_OUTCOMES[revocation.outcome],
            lease_id=str(lease_id),
            last_error=revocation.last_error,
            expire_time=messages.timestamp(revocation.works_until_us),
        )

    async def RevokePrefix(
        self, request: pb.RevokePrefixRequest, caller: Caller
    ) -> AsyncIterator[pb.RevokePrefixResponse]:
        """Start the revocation of a range of leases, and report its progress."""
        with Problems() as problems:
            ids = problems.parse(IdRange.parse, request.prefix)
            owner = problems.parse(messages.owner_of, request.owner)
        await self._leases.require_mount(ids)
        prefix, accepted = await self._prefixes.accept(ids, caller.principal.name, owner)
        yield _standing(Standing(accepted, 0, 0, accepted))
        if request.sync:
            async for standing in self._prefixes.follow(prefix, accepted):
                yield _standing(standing)

    async def AbandonLeases(
        self, request: pb.AbandonLeasesRequest, caller: Caller
    ) -> pb.AbandonLeasesResponse:
        """Stop the attempts to revoke; reconcile reports the users until they are deleted."""
        with Problems() as problems:
            if bool(request.lease_id) == bool(request.prefix):
                problems.add("lease_id", "and prefix are both set, or neither", "send one of the two")
            if request.lease_id:
                problems.parse(LeaseId.parse, request.lease_id)
            if request.prefix:
                problems.parse(IdRange.parse, request.prefix)
        # Single leases may be live; a prefix covers only leases that are being revoked already.
        live = bool(request.lease_id)
        ids = IdRange.parse(request.lease_id or request.prefix)
        await self._leases.require_mount(ids)
        abandoned = await self._prefixes.abandon(ids, caller.principal.name, live=live)
        return pb.AbandonLeasesResponse(abandoned=abandoned)

    async def WatchLeases(
        self, request: pb.WatchLeasesRequest, caller: Caller
    ) -> AsyncIterator[pb.WatchLeasesResponse | None]:
        """Yield events of leases from now on; the first item is None: the subscription has begun."""
        with self._lease_events.watch(IdRange.parse(request.prefix), caller.only_owner) as happenings:
            yield None
            async for one in happenings:
                yield pb.WatchLeasesResponse(
                    type=_TYPES[one.kind],
                    lease_id=one.lease_id,
                    time=messages.timestamp(one.at_us),
                    error=one.error,
                )

    async def Reconcile(
        self, request: pb.ReconcileRequest, caller: Caller
    ) -> AsyncIterator[pb.ReconcileResponse]:
        """Compare the account with the store."""
        with Problems() as problems:
            mount = problems.parse(messages.mount_of, request.mount)
            if request.instance and not INSTANCE.fullmatch(request.instance):
                fix = "give 16 hexadecimal digits, as GetInfo shows them"
                problems.add("instance", "is not a valid instance id", fix)
        async for found in self._reconciler.reconcile(
            mount, apply=request.apply, instance=request.instance, by=caller.principal.name
        ):
            yield pb.ReconcileResponse(
                kind=_KINDS[found.kind],
                user_name=found.user_name,
                lease_id=found.lease_id,
                applied=found.applied,
            )


def _standing(standing: Standing) -> pb.RevokePrefixResponse:
    return pb.RevokePrefixResponse(
        accepted=standing.accepted, done=standing.done, failed=standing.failed, left=standing.left
    )


def _state(request: pb.ListLeasesRequest | pb.CountLeasesRequest) -> State | None:
    if not request.HasField("state"):
        return None
    state = _BY_VALUE.get(request.state)
    if state is None:
        fix = f"leave it out, or give one of {', '.join(one.name for one in State)}"
        raise messages.invalid("state", "is UNSPECIFIED or unknown", fix)
    return state


def _lease(lease: Lease, now_us: int) -> pb.Lease:
    state = lease.state_at(now_us)
    left = max(lease.expires_us - now_us, 0) if state is State.ACTIVE else 0
    message = pb.Lease(
        lease_id=lease.id,
        state=_STATES[state],
        stuck=lease.stuck,
        mount=lease.mount,
        role=lease.role,
        credential_type=credential_type(lease.credential_type),
        access_key=lease.access_key_id,
        ttl=Duration(seconds=left // SECOND_US),
        renewable=state is State.ACTIVE and not lease.is_session,
        owner=lease.owner,
        attempts=lease.attempts,
        last_error=lease.last_error,
        reason=lease.reason,
        policy_rule=lease.policy_rule,
    )
    messages.set_timestamp(message.issue_time, lease.issue_us)
    messages.set_timestamp(message.last_renewal_time, lease.last_renewal_us)
    messages.set_timestamp(message.expire_time, lease.expires_us)
    messages.set_timestamp(message.max_expire_time, lease.max_expires_us)
    if lease.state is State.REVOKING:
        messages.set_timestamp(message.next_attempt_time, lease.due_us)
    return message
