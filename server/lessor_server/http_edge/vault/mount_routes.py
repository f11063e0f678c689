"""Engines: ``sys/mounts`` and what the templating clients ask of a mount."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from lessor.v1 import config_pb2 as pb
from lessor_server.domain.access.acl import Capability
from lessor_server.domain.errors.base import ErrorKind, PermissionDenied
from lessor_server.domain.lease_id import is_name
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.vault.call import VaultCall, each_page
from lessor_server.http_edge.vault.parameters import Parameters
from lessor_server.http_edge.vault.reply import ACCEPTED, DONE, Reply, bad_request, done
from lessor_server.http_edge.vault.routes import VaultOperation, VaultRoute, Verb
from lessor_server.http_edge.vault.shapes import Shape, mount_shape, tune_shape

ENABLE, DISABLE = "ConfigService.EnableMount", "ConfigService.DisableMount"
LIST, TUNE = "ConfigService.ListMounts", "ConfigService.TuneMount"
PAGE: Final = 1_000
POLL_SECONDS, MAX_POLL_SECONDS = 0.1, 2.0
MARGIN_SECONDS: Final = 1.0
_SYSTEM: Final = "system"
"""As a limit: back to the default."""
_LIMITS: Final = ("default_lease_ttl", "max_lease_ttl")
_IDLE_CONFIG: Final = (
    "allowed_managed_keys",
    "allowed_response_headers",
    "audit_non_hmac_request_keys",
    "audit_non_hmac_response_keys",
    "listing_visibility",
    "passthrough_request_headers",
    "token_type",
    "user_lockout_config",
)
_NO_ENGINE: Final = "name an engine that exists; `lessor mounts` and `bao secrets list` show them"


async def each_mount(call: VaultCall) -> AsyncIterator[pb.Mount]:
    """Yield every mount, by name."""

    def ask(token: str) -> Awaitable[pb.ListMountsResponse]:
        return call.ask(LIST, pb.ListMountsRequest(page_size=PAGE, page_token=token), pb.ListMountsResponse)

    async for page in each_page(ask):
        for mount in page.mounts:
            yield mount


async def find_mount(call: VaultCall, name: str) -> pb.Mount | None:
    """Return a mount, None if there is none of this name."""
    async for mount in each_mount(call):
        if mount.mount == name:
            return mount
    return None


async def list_mounts(call: VaultCall) -> Reply:
    """Return all mounts, in ``data`` and beside it."""
    found: dict[str, object] = {f"{one.mount}/": mount_shape(one) async for one in each_mount(call)}
    return Reply(found, beside=found)


async def read_mount(call: VaultCall) -> Reply:
    """Return one mount; Terraform looks for the text of the error."""
    return await _show_mount(call, mount_shape)


async def _show_mount(call: VaultCall, shape_of: Callable[[pb.Mount], Shape]) -> Reply:
    mount = await find_mount(call, call.names["mount"])
    if mount is None:
        return bad_request(f"No secret engine mount at {call.names['mount']}/")
    return Reply(shape := shape_of(mount), beside=shape)


async def enable(call: VaultCall) -> Reply:
    """Enable an engine."""

    def build(given: Parameters) -> pb.EnableMountRequest:
        kind = given.text("type")
        if kind != "aws":
            raise given.invalid("type", f"{kind or 'nothing'} is not served here", "send aws")
        config = given.nested("config")
        config.ignore(_IDLE_CONFIG)
        return pb.EnableMountRequest(
            mount=call.names["mount"],
            description=given.text("description"),
            default_lease_ttl=config.span("default_lease_ttl"),
            max_lease_ttl=config.span("max_lease_ttl"),
            max_users=given.number("max_users") or config.number("max_users"),
        )

    try:
        await call.call(ENABLE, build, pb.EnableMountResponse)
    except CallRefused as refused:
        if refused.kind is not ErrorKind.EXISTS:
            raise
        return bad_request(f"path is already in use at {call.names['mount']}/")
    return done(call.warnings)


async def disable(call: VaultCall) -> Reply:
    """Disable an engine; wait until its leases are revoked, and answer 202 if that takes long."""
    name = call.names["mount"]
    try:
        await call.call(
            DISABLE,
            lambda given: pb.DisableMountRequest(mount=name, force=given.boolean("force")),
            pb.DisableMountResponse,
        )
    except CallRefused as refused:
        if refused.is_missing:
            return DONE
        raise
    try:
        pause = POLL_SECONDS
        while call.seconds > pause + MARGIN_SECONDS:
            await asyncio.sleep(pause)
            if await find_mount(call, name) is None:
                return DONE
            pause = min(pause * 2, MAX_POLL_SECONDS)
    except CallRefused as refused:
        if refused.kind is not ErrorKind.DENIED:  # who may disable an engine need not see the list
            raise
    return ACCEPTED


async def read_tune(call: VaultCall) -> Reply:
    """Return the limits of a mount."""
    return await _show_mount(call, tune_shape)


async def tune(call: VaultCall) -> Reply:
    """Change the limits of a mount; an empty text leaves one, ``system`` resets it."""

    def build(given: Parameters) -> pb.TuneMountRequest:
        given.ignore(_IDLE_CONFIG)
        request = pb.TuneMountRequest(mount=call.names["mount"])
        request.update_mask.SetInParent()
        if given.has("description"):
            request.description = given.text("description")
            request.update_mask.paths.append("description")
        for name in _LIMITS:
            text = given.text(name)
            if not text:
                continue
            request.update_mask.paths.append(name)
            if text != _SYSTEM and (span := given.span(name)) is not None:
                getattr(request, name).CopyFrom(span)
        if given.has("max_users"):
            request.max_users = given.number("max_users")
            request.update_mask.paths.append("max_users")
        return request

    await call.call(TUNE, build, pb.TuneMountResponse)
    return done(call.warnings)


async def read_ui_mount(call: VaultCall) -> Reply:
    """Return the mount of a path, for callers that may read the path; templates ask this first.

    A caller without the right to list mounts learns nothing: the answer is then the same for each name.
    """
    path = call.names["path"]
    name = path.partition("/")[0]
    principal = await call.identify()
    mount: pb.Mount | None = None
    if principal.may("sys/mounts/", Capability.LIST):
        mount = await find_mount(call, name)
    elif is_name(name) and principal.may(path, Capability.READ):
        mount = pb.Mount(mount=name)
    if mount is None:
        # Not 404: the command line would then take the path for one of an old server.
        raise PermissionDenied(f"no engine that you may use is at {name[:64]}/", fix=_NO_ENGINE)
    shape = {**mount_shape(mount), "path": f"{name}/"}
    return Reply(shape, beside=shape)


MOUNT_ROUTES: Final = (
    VaultRoute(
        "sys/mounts",
        {Verb.READ: VaultOperation(list_mounts, (LIST,)), Verb.LIST: VaultOperation(list_mounts, (LIST,))},
        "The AWS engines.",
    ),
    VaultRoute(
        "sys/mounts/{mount}",
        {
            Verb.READ: VaultOperation(read_mount, (LIST,)),
            Verb.WRITE: VaultOperation(enable, (ENABLE,), says_missing=True),
            Verb.DELETE: VaultOperation(disable, (DISABLE, LIST)),
        },
        "One engine: enable it (type, description, config), read it, disable it.",
    ),
    VaultRoute(
        "sys/mounts/{mount}/tune",
        {
            Verb.READ: VaultOperation(read_tune, (LIST,)),
            Verb.WRITE: VaultOperation(tune, (TUNE,), says_missing=True),
        },
        "The limits of an engine: description, default_lease_ttl, max_lease_ttl, max_users.",
    ),
    VaultRoute(
        "sys/internal/ui/mounts/{path...}",
        {Verb.READ: VaultOperation(read_ui_mount, (LIST,))},
        "The engine that holds a path.",
    ),
    VaultRoute(
        "{mount}",
        {},
        "An AWS engine: roles/ROLE, creds/ROLE, static-roles/ROLE, static-creds/ROLE, config/root,"
        " config/lease and config/rotate-root.",
    ),
)
