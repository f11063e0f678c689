"""The root of a mount, and the life of its leases: ``{mount}/config``."""

from __future__ import annotations

from typing import Final

from lessor.v1 import config_pb2 as pb
from lessor_server.domain.errors.preconditions import RootNotSet
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.vault.call import VaultCall
from lessor_server.http_edge.vault.parameters import Parameters, go_span
from lessor_server.http_edge.vault.reply import MISSING, Reply, done
from lessor_server.http_edge.vault.routes import VaultOperation, VaultRoute, Verb
from lessor_server.http_edge.vault.shapes import root_shape

SET_ROOT, GET_ROOT = "ConfigService.SetRoot", "ConfigService.GetRoot"
ROTATE_ROOT = "ConfigService.RotateRoot"
SET_LEASE, GET_LEASE = "ConfigService.SetLeaseDefaults", "ConfigService.GetLeaseDefaults"
_TEXTS: Final = (
    "access_key",
    "secret_key",
    "region",
    "iam_endpoint",
    "sts_endpoint",
    "sts_region",
    "username_template",
    "identity_token_file",
    "identity_token_audience",
    "rotation_schedule",
    "etag",
)
_LISTS: Final = ("sts_fallback_endpoints", "sts_fallback_regions")
_SPANS: Final = ("rotation_period", "rotation_window")
_IDLE: Final = ("identity_token_ttl", "disable_automated_rotation")


async def write_root(call: VaultCall) -> Reply:
    """Change the members of the root that are given."""

    def build(given: Parameters) -> pb.SetRootRequest:
        given.ignore(_IDLE)
        request = pb.SetRootRequest(mount=call.names["mount"])
        request.config.SetInParent()
        request.update_mask.SetInParent()
        changed = request.update_mask.paths
        for name in (*_TEXTS, *_LISTS, *_SPANS):
            if not given.has(name):
                continue
            if name != "etag":
                changed.append(name)
            if name in _TEXTS:
                setattr(request.config, name, given.text(name))
            elif name in _LISTS:
                getattr(request.config, name).extend(given.texts(name))
            elif (span := given.span(name)) is not None:
                getattr(request.config, name).CopyFrom(span)
        if given.has("max_retries"):
            changed.append("max_retries")
            if (retries := given.number("max_retries")) >= 0:
                request.config.max_retries = retries
        if given.has("role_arn"):
            changed.append("assume_chain")
            if role_arn := given.text("role_arn"):
                request.config.assume_chain.add(role_arn=role_arn, external_id=given.text("external_id"))
        return request

    await call.call(SET_ROOT, build, pb.SetRootResponse)
    return done(call.warnings)


async def read_root(call: VaultCall) -> Reply:
    """Return the root, without its secret key."""
    try:
        root = await call.ask(GET_ROOT, pb.GetRootRequest(mount=call.names["mount"]), pb.GetRootResponse)
    except CallRefused as refused:
        if isinstance(refused.error, RootNotSet):
            return MISSING
        raise
    return Reply(root_shape(root.config))


async def rotate_root(call: VaultCall) -> Reply:
    """Replace the key of the root."""
    rotated = await call.call(
        ROTATE_ROOT,
        lambda given: pb.RotateRootRequest(
            mount=call.names["mount"], delete_other_key=given.boolean("delete_other_key")
        ),
        pb.RotateRootResponse,
    )
    return Reply({"access_key": rotated.access_key}, warnings=call.warnings)


async def write_lease(call: VaultCall) -> Reply:
    """Set the default life of users' leases; what is not given stays."""
    mount = call.names["mount"]
    _, given = await call.identify_and_read()
    request = pb.SetLeaseDefaultsRequest(
        mount=mount, lease=given.span("lease"), lease_max=given.span("lease_max")
    )
    if not (given.has("lease") and given.has("lease_max")):
        before = await call.ask(
            GET_LEASE, pb.GetLeaseDefaultsRequest(mount=mount), pb.GetLeaseDefaultsResponse
        )
        if not given.has("lease") and before.HasField("lease"):
            request.lease.CopyFrom(before.lease)
        if not given.has("lease_max") and before.HasField("lease_max"):
            request.lease_max.CopyFrom(before.lease_max)
    await call.ask(SET_LEASE, request, pb.SetLeaseDefaultsResponse)
    return done(call.warnings)


async def read_lease(call: VaultCall) -> Reply:
    """Return the default life of users' leases."""
    found = await call.ask(
        GET_LEASE, pb.GetLeaseDefaultsRequest(mount=call.names["mount"]), pb.GetLeaseDefaultsResponse
    )
    if not found.HasField("lease") and not found.HasField("lease_max"):
        return MISSING
    return Reply({"lease": go_span(found.lease.seconds), "lease_max": go_span(found.lease_max.seconds)})


_ROTATE: Final = VaultOperation(rotate_root, (ROTATE_ROOT,), says_missing=True)
CONFIG_ROUTES: Final = (
    VaultRoute(
        "{mount}/config/root",
        {
            Verb.READ: VaultOperation(read_root, (GET_ROOT,)),
            Verb.WRITE: VaultOperation(write_root, (SET_ROOT,), says_missing=True),
        },
        "The credentials with which this server calls AWS: access_key, secret_key, region, endpoints,"
        " role_arn, max_retries, username_template, rotation_period or rotation_schedule. The secret key is"
        " never returned.",
    ),
    VaultRoute(
        "{mount}/config/rotate-root",
        {Verb.WRITE: _ROTATE},
        "Replaces the root's access key by a new one.",
    ),
    VaultRoute(
        "{mount}/config/lease",
        {
            Verb.READ: VaultOperation(read_lease, (GET_LEASE,)),
            Verb.WRITE: VaultOperation(write_lease, (SET_LEASE, GET_LEASE), says_missing=True),
        },
        "The default life (lease) and the longest life (lease_max) of IAM users.",
    ),
)
