"""Leases: ``sys/leases``, and the older ``sys/renew`` and ``sys/revoke``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import Final

from lessor.v1 import config_pb2
from lessor.v1 import lease_pb2 as pb
from lessor_server.domain.errors.preconditions import (
    LeaseAbandoned,
    LeaseExpired,
    LeaseRevoking,
    NotRenewable,
)
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.vault.call import VaultCall, each_page, missing_is_done
from lessor_server.http_edge.vault.mount_routes import LIST as LIST_MOUNTS
from lessor_server.http_edge.vault.mount_routes import each_mount
from lessor_server.http_edge.vault.parameters import Parameters
from lessor_server.http_edge.vault.reply import (
    ACCEPTED,
    DONE,
    MISSING,
    Reply,
    bad_request,
    listed,
    unavailable,
)
from lessor_server.http_edge.vault.routes import VaultOperation, VaultRoute, Verb
from lessor_server.http_edge.vault.shapes import lease_shape

LOOKUP, LIST, COUNT = "LeaseService.LookupLease", "LeaseService.ListLeases", "LeaseService.CountLeases"
RENEW, REVOKE = "LeaseService.RenewLease", "LeaseService.RevokeLease"
REVOKE_PREFIX, ABANDON = "LeaseService.RevokePrefix", "LeaseService.AbandonLeases"
PAGE: Final = 1_000
MAX_KEYS: Final = 10_000
"""The maximum number of leases in one answer."""
RETRY_SECONDS: Final = 5.0
ATTEMPT_SECONDS: Final = 15.0
"""The time of the one attempt to revoke before leases are given up by force."""
_LIVE: Final = (pb.Lease.ACTIVE, pb.Lease.REVOKING)
_ENDED: Final = (pb.Lease.GONE,)


def prefix_of(path: str) -> str:
    """Return a range of lease ids as our services write it: the slash at the end was dropped."""
    return path if path.count("/") >= 3 else f"{path}/"


async def lookup(call: VaultCall) -> Reply:
    """Return a lease that has not ended."""
    try:
        found = await call.call(
            LOOKUP,
            lambda given: pb.LookupLeaseRequest(lease_id=_lease_id(call, given)),
            pb.LookupLeaseResponse,
        )
    except CallRefused as refused:
        if refused.is_missing:
            return bad_request("invalid lease")
        raise
    if found.lease.state in _ENDED:
        return bad_request("invalid lease")
    return Reply(lease_shape(found.lease), warnings=[*found.warnings, *call.warnings])


async def list_leases(call: VaultCall) -> Reply:
    """Return the next parts of the ids below a prefix: folders end with a slash."""
    path = call.names.get("prefix", "")
    if not path:
        return listed(
            [f"{mount.mount}/" async for mount in each_mount(call) if await _has_leases(call, mount)]
        )
    prefix = prefix_of(path)
    if prefix.count("/") < 3:
        try:
            found = await call.ask(COUNT, pb.CountLeasesRequest(prefix=prefix), pb.CountLeasesResponse)
        except CallRefused as refused:
            if refused.is_missing:
                return MISSING
            raise
        roles = sorted({one.role for one in found.counts if one.state in _LIVE})
        if prefix.count("/") == 1:
            return listed(["creds/"] if roles else [])
        return listed([f"{role}/" for role in roles])
    keys: list[str] = []
    with missing_is_done():
        for state in _LIVE:
            async for lease in _each_lease(call, prefix, state):
                keys.append(lease.lease_id.rpartition("/")[2])
                if len(keys) >= MAX_KEYS:
                    return listed(sorted(keys), f"only {MAX_KEYS} leases are listed")
    return listed(sorted(keys))


async def extend_lease(call: VaultCall) -> Reply:
    """Extend a lease."""

    def build(given: Parameters) -> pb.RenewLeaseRequest:
        return pb.RenewLeaseRequest(lease_id=_lease_id(call, given), increment=given.span("increment"))

    try:
        renewed = await call.call(RENEW, build, pb.RenewLeaseResponse)
    except CallRefused as refused:
        error = refused.error
        if refused.is_missing or isinstance(error, LeaseRevoking | LeaseAbandoned):
            return bad_request("lease not found", f"{error.message}; {error.fix}")
        if isinstance(error, LeaseExpired):
            return bad_request("lease expired", f"{error.message}; {error.fix}")
        if isinstance(error, NotRenewable):
            return bad_request("lease is not renewable", f"{error.message}; {error.fix}")
        raise
    return Reply(
        lease_id=renewed.lease_id,
        lease_seconds=renewed.lease_duration.seconds,
        renewable=renewed.lease_renewable,
        warnings=[*renewed.warnings, *call.warnings],
    )


async def end_lease(call: VaultCall) -> Reply:
    """Revoke a lease, and wait for that unless ``sync`` is false."""
    waits = True

    def build(given: Parameters) -> pb.RevokeLeaseRequest:
        nonlocal waits
        waits = given.boolean("sync", default=True)
        return pb.RevokeLeaseRequest(lease_id=_lease_id(call, given), sync=waits)

    revoked = await call.call(REVOKE, build, pb.RevokeLeaseResponse)
    if not waits:
        return ACCEPTED
    if revoked.outcome == pb.RevokeLeaseResponse.ACCEPTED:
        return _not_yet(revoked.last_error)
    return DONE


async def revoke_prefix(call: VaultCall) -> Reply:
    """Revoke all leases below a prefix, and wait for that unless ``sync`` is false."""
    waits = True

    def build(given: Parameters) -> pb.RevokePrefixRequest:
        nonlocal waits
        waits = given.boolean("sync", default=True)
        return pb.RevokePrefixRequest(
            prefix=prefix_of(call.names["prefix"]), sync=waits, owner=given.text("owner")
        )

    progress = await call.call(REVOKE_PREFIX, build, pb.RevokePrefixResponse)
    if not waits:
        return ACCEPTED
    if progress.failed or progress.left:
        return _not_yet(
            f"{progress.failed + progress.left} of {progress.accepted} leases are not revoked yet"
        )
    return DONE


async def revoke_force(call: VaultCall) -> Reply:
    """Try to revoke all leases below a prefix once, then stop the attempts for those that are left."""
    prefix = prefix_of(call.names["prefix"])
    with suppress(CallRefused):
        order = pb.RevokePrefixRequest(prefix=prefix, sync=True)
        await call.call(REVOKE_PREFIX, lambda _: order, pb.RevokePrefixResponse, at_most=ATTEMPT_SECONDS)
    await call.ask(ABANDON, pb.AbandonLeasesRequest(prefix=prefix), pb.AbandonLeasesResponse)
    return DONE


async def tidy(call: VaultCall) -> Reply:
    """Do nothing: there is nothing to tidy."""
    await call.identify()
    return DONE


async def count_stuck(call: VaultCall) -> Reply:
    """Count the leases whose revocation AWS refuses, by mount."""
    if problem := await _require_irrevocable(call):
        return problem
    counts: dict[str, int] = {}
    async for lease in _each_stuck(call):
        counts[f"{lease.mount}/"] = counts.get(f"{lease.mount}/", 0) + 1
    shape: dict[str, object] = {"lease_count": sum(counts.values()), "counts": counts}
    return Reply(shape, beside=shape)


async def list_stuck(call: VaultCall) -> Reply:
    """Return the leases whose revocation AWS refuses."""
    if problem := await _require_irrevocable(call):
        return problem
    leases = [
        {"lease_id": lease.lease_id, "mount_id": f"{lease.mount}/", "error": lease.last_error}
        async for lease in _each_stuck(call)
    ]
    shape: dict[str, object] = {"lease_count": len(leases), "leases": leases[:MAX_KEYS]}
    return Reply(shape, beside=shape)


async def _require_irrevocable(call: VaultCall) -> Reply | None:
    _, given = await call.identify_and_read()
    given.ignore(("limit", "include_child_namespaces"))
    if given.text("type") == "irrevocable":
        return None
    return bad_request("type: is not irrevocable; send type=irrevocable")


async def _each_stuck(call: VaultCall) -> AsyncIterator[pb.Lease]:
    async for mount in each_mount(call):
        async for lease in _each_lease(call, f"{mount.mount}/", pb.Lease.REVOKING):
            if lease.stuck:
                yield lease


async def _each_lease(
    call: VaultCall, prefix: str, state: pb.Lease.State.ValueType
) -> AsyncIterator[pb.Lease]:

    def ask(token: str) -> Awaitable[pb.ListLeasesResponse]:
        request = pb.ListLeasesRequest(prefix=prefix, state=state, page_size=PAGE, page_token=token)
        return call.ask(LIST, request, pb.ListLeasesResponse)

    async for page in each_page(ask):
        for lease in page.leases:
            yield lease


async def _has_leases(call: VaultCall, mount: config_pb2.Mount) -> bool:
    found = await call.ask(COUNT, pb.CountLeasesRequest(prefix=f"{mount.mount}/"), pb.CountLeasesResponse)
    return any(one.state in _LIVE for one in found.counts)


def _lease_id(call: VaultCall, given: Parameters) -> str:
    """Return the lease in the path, or in the body."""
    in_body = given.text("lease_id")
    return call.names.get("lease_id") or in_body


def _not_yet(why: str) -> Reply:
    return unavailable(f"the revocation is stored and goes on, and AWS has not done it: {why}", RETRY_SECONDS)


_LOOKUP: Final = VaultOperation(lookup, (LOOKUP,), says_missing=True)
_LIST: Final = VaultOperation(list_leases, (LIST, COUNT, LIST_MOUNTS))
_RENEW: Final = VaultOperation(extend_lease, (RENEW,), says_missing=True)
_REVOKE: Final = VaultOperation(end_lease, (REVOKE,), says_missing=True)
_PREFIX: Final = VaultOperation(revoke_prefix, (REVOKE_PREFIX,), says_missing=True)
_FORCE: Final = VaultOperation(revoke_force, (ABANDON, REVOKE_PREFIX), says_missing=True)
_STUCK_RPCS: Final = (LIST, LIST_MOUNTS)

LEASE_ROUTES: Final = (
    VaultRoute(
        "sys/leases/lookup",
        {Verb.WRITE: _LOOKUP, Verb.LIST: _LIST},
        "A lease (lease_id), or the engines that have leases.",
    ),
    VaultRoute("sys/leases/lookup/{prefix...}", {Verb.LIST: _LIST}, "The leases below a prefix."),
    VaultRoute("sys/leases/renew", {Verb.WRITE: _RENEW}, "Extends a lease: lease_id, increment."),
    VaultRoute("sys/leases/renew/{lease_id...}", {Verb.WRITE: _RENEW}, "Extends a lease: increment."),
    VaultRoute("sys/renew", {Verb.WRITE: _RENEW}, "Extends a lease: lease_id, increment."),
    VaultRoute("sys/renew/{lease_id...}", {Verb.WRITE: _RENEW}, "Extends a lease: increment."),
    VaultRoute("sys/leases/revoke", {Verb.WRITE: _REVOKE}, "Revokes a lease: lease_id, sync."),
    VaultRoute("sys/leases/revoke/{lease_id...}", {Verb.WRITE: _REVOKE}, "Revokes a lease: sync."),
    VaultRoute("sys/revoke", {Verb.WRITE: _REVOKE}, "Revokes a lease: lease_id, sync."),
    VaultRoute("sys/revoke/{lease_id...}", {Verb.WRITE: _REVOKE}, "Revokes a lease: sync."),
    VaultRoute(
        "sys/leases/revoke-prefix/{prefix...}", {Verb.WRITE: _PREFIX}, "Revokes the leases of a prefix."
    ),
    VaultRoute("sys/revoke-prefix/{prefix...}", {Verb.WRITE: _PREFIX}, "Revokes the leases of a prefix."),
    VaultRoute(
        "sys/leases/revoke-force/{prefix...}",
        {Verb.WRITE: _FORCE},
        "Tries to revoke all leases below a prefix once, then stops the attempts.",
    ),
    VaultRoute("sys/revoke-force/{prefix...}", {Verb.WRITE: _FORCE}, "As sys/leases/revoke-force."),
    VaultRoute("sys/leases/tidy", {Verb.WRITE: VaultOperation(tidy)}, "There is nothing to tidy."),
    VaultRoute(
        "sys/leases/count",
        {Verb.READ: VaultOperation(count_stuck, _STUCK_RPCS)},
        "How many leases can't be revoked (type=irrevocable).",
    ),
    VaultRoute(
        "sys/leases",
        {Verb.READ: VaultOperation(list_stuck, _STUCK_RPCS)},
        "The leases that can't be revoked (type=irrevocable).",
    ),
)
