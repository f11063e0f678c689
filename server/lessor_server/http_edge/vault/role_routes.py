"""Roles and static roles."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from lessor.v1 import role_pb2 as pb
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.vault.call import VaultCall, each_page, missing_is_done
from lessor_server.http_edge.vault.parameters import Parameters
from lessor_server.http_edge.vault.reply import DONE, Reply, done, listed
from lessor_server.http_edge.vault.routes import VaultOperation, VaultRoute, Verb
from lessor_server.http_edge.vault.shapes import role_shape, static_role_shape

PUT, GET, LIST = "RoleService.PutRole", "RoleService.GetRole", "RoleService.ListRoles"
DELETE = "RoleService.DeleteRole"
PUT_STATIC, GET_STATIC = "RoleService.PutStaticRole", "RoleService.GetStaticRole"
LIST_STATIC, DELETE_STATIC = "RoleService.ListStaticRoles", "RoleService.DeleteStaticRole"
ROTATE_STATIC = "RoleService.RotateStaticRole"
PAGE: Final = 1_000
_TEXTS: Final = (
    "source_identity",
    "external_id",
    "user_path",
    "permissions_boundary_arn",
    "mfa_serial_number",
)
_LISTS: Final = ("role_arns", "policy_arns", "iam_groups", "transitive_tag_keys")
_MAPS: Final = ("iam_tags", "session_tags")
_SPANS: Final = ("default_sts_ttl", "max_sts_ttl", "default_ttl", "max_ttl", "wait_usable")


async def list_roles(call: VaultCall) -> Reply:
    """Return the names of the roles."""

    def ask(token: str) -> Awaitable[pb.ListRolesResponse]:
        request = pb.ListRolesRequest(mount=call.names["mount"], page_size=PAGE, page_token=token)
        return call.ask(LIST, request, pb.ListRolesResponse)

    return listed([role.name async for page in each_page(ask) for role in page.roles])


async def write_role(call: VaultCall) -> Reply:
    """Change the members of a role that are given, or create it."""

    def change(given: Parameters) -> pb.PutRoleRequest:
        return _put_role(call, given)

    def create(given: Parameters) -> pb.PutRoleRequest:
        request = _put_role(call, given)
        request.ClearField("update_mask")
        return request

    try:
        put = await call.call(PUT, change, pb.PutRoleResponse)
    except CallRefused as refused:
        if not refused.is_missing or getattr(refused.error, "resource", "") != "role":
            raise
        put = await call.call(PUT, create, pb.PutRoleResponse)
    return done([*put.warnings, *call.warnings])


def _put_role(call: VaultCall, given: Parameters) -> pb.PutRoleRequest:
    request = pb.PutRoleRequest(mount=call.names["mount"])
    role, changed = request.role, request.update_mask.paths
    request.update_mask.SetInParent()
    role.name, role.etag = call.names["role"], given.text("etag")
    for name in (*_TEXTS, *_LISTS, *_MAPS, *_SPANS):
        if not given.has(name):
            continue
        changed.append(name)
        if name in _TEXTS:
            setattr(role, name, given.text(name))
        elif name in _LISTS:
            getattr(role, name).extend(given.texts(name))
        elif name in _MAPS:
            getattr(role, name).update(given.pairs(name))
        elif (span := given.span(name)) is not None:
            getattr(role, name).CopyFrom(span)
    if given.has("credential_type"):
        changed.append("credential_type")
        role.credential_type = _credential_type(given)
    if given.has("max_leases"):
        changed.append("max_leases")
        role.max_leases = given.number("max_leases")
    if given.has("policy_document"):
        changed.append("policy_document")
        if (document := given.document("policy_document")) is not None:
            role.policy_document.CopyFrom(document)
    return request


def _credential_type(given: Parameters) -> pb.Role.CredentialType.ValueType:
    """Return the type, which some clients send as a list of one."""
    types = given.texts("credential_type")
    known = {name.lower(): number for name, number in pb.Role.CredentialType.items() if number}
    if len(types) != 1 or types[0].lower() not in known:
        raise given.invalid(
            "credential_type", "is not one of the types", f"send one of {', '.join(sorted(known))}"
        )
    return known[types[0].lower()]


async def read_role(call: VaultCall) -> Reply:
    """Return a role."""
    found = await call.ask(
        GET, pb.GetRoleRequest(mount=call.names["mount"], name=call.names["role"]), pb.GetRoleResponse
    )
    return Reply(role_shape(found.role))


async def delete_role(call: VaultCall) -> Reply:
    """Delete a role; a missing one is deleted already."""
    with missing_is_done():
        await call.call(
            DELETE,
            lambda given: pb.DeleteRoleRequest(
                mount=call.names["mount"],
                name=call.names["role"],
                revoke_leases=given.boolean("revoke_leases"),
            ),
            pb.DeleteRoleResponse,
        )
    return DONE


async def list_static_roles(call: VaultCall) -> Reply:
    """Return the names of the static roles."""

    def ask(token: str) -> Awaitable[pb.ListStaticRolesResponse]:
        request = pb.ListStaticRolesRequest(mount=call.names["mount"], page_size=PAGE, page_token=token)
        return call.ask(LIST_STATIC, request, pb.ListStaticRolesResponse)

    return listed([role.name async for page in each_page(ask) for role in page.static_roles])


async def write_static_role(call: VaultCall) -> Reply:
    """Change the members of a static role that are given, or create it."""
    _, given = await call.identify_and_read()
    mount, name = call.names["mount"], call.names["role"]
    stored = await _find_static_role(call)
    role = pb.StaticRole(name=name)
    if stored is not None:
        role.CopyFrom(stored)
    if given.has("username"):
        role.username = given.text("username")
    if given.has("rotation_period"):
        role.ClearField("rotation_period")
        if (span := given.span("rotation_period")) is not None and span.ToMicroseconds():
            role.rotation_period.CopyFrom(span)
            role.ClearField("rotation_schedule")
            role.ClearField("rotation_window")
    if given.has("rotation_schedule"):
        role.rotation_schedule = given.text("rotation_schedule")
        if role.rotation_schedule and not given.has("rotation_period"):
            role.ClearField("rotation_period")
    if given.has("rotation_window"):
        role.ClearField("rotation_window")
        if (span := given.span("rotation_window")) is not None:
            role.rotation_window.CopyFrom(span)
    if given.has("live_keys"):
        role.live_keys = given.number("live_keys")
    if given.has("held"):
        role.held = given.boolean("held")
    if given.has("assume_role_arn"):
        role.ClearField("assume_chain")
        if arn := given.text("assume_role_arn"):
            role.assume_chain.add(role_arn=arn, external_id=given.text("external_id"))
    request = pb.PutStaticRoleRequest(
        mount=mount, static_role=role, delete_other_key=given.boolean("delete_other_key")
    )
    put = await call.ask(PUT_STATIC, request, pb.PutStaticRoleResponse)
    return Reply(static_role_shape(mount, put.static_role), warnings=call.warnings)


async def _find_static_role(call: VaultCall) -> pb.StaticRole | None:
    """Return a static role, None if there is none; the caller must be allowed to read it.

    A write that can't read it would reset what it doesn't send, such as ``held``.
    """
    request = pb.GetStaticRoleRequest(mount=call.names["mount"], name=call.names["role"])
    try:
        return (await call.ask(GET_STATIC, request, pb.GetStaticRoleResponse)).static_role
    except CallRefused as refused:
        if refused.is_missing:
            return None
        raise


async def read_static_role(call: VaultCall) -> Reply:
    """Return a static role."""
    mount = call.names["mount"]
    request = pb.GetStaticRoleRequest(mount=mount, name=call.names["role"])
    found = await call.ask(GET_STATIC, request, pb.GetStaticRoleResponse)
    return Reply(static_role_shape(mount, found.static_role))


async def delete_static_role(call: VaultCall) -> Reply:
    """Delete a static role with its keys; a missing one is deleted already."""
    with missing_is_done():
        await call.call(
            DELETE_STATIC,
            lambda given: pb.DeleteStaticRoleRequest(
                mount=call.names["mount"], name=call.names["role"], keep_key=given.boolean("keep_key")
            ),
            pb.DeleteStaticRoleResponse,
        )
    return DONE


async def rotate_static_role(call: VaultCall) -> Reply:
    """Rotate the key of a static role now."""
    await call.call(
        ROTATE_STATIC,
        lambda given: pb.RotateStaticRoleRequest(
            mount=call.names["mount"],
            name=call.names["role"],
            delete_other_key=given.boolean("delete_other_key"),
        ),
        pb.RotateStaticRoleResponse,
    )
    return done(call.warnings)


ROLE_ROUTES: Final = (
    VaultRoute("{mount}/roles", {Verb.LIST: VaultOperation(list_roles, (LIST,))}, "The names of the roles."),
    VaultRoute(
        "{mount}/roles/{role}",
        {
            Verb.READ: VaultOperation(read_role, (GET,)),
            Verb.WRITE: VaultOperation(write_role, (PUT,), says_missing=True),
            Verb.DELETE: VaultOperation(delete_role, (DELETE,)),
        },
        "A role: credential_type, policy_document, policy_arns, iam_groups, role_arns, tags and limits. A"
        " write changes the members that are given.",
    ),
    VaultRoute(
        "{mount}/static-roles",
        {Verb.LIST: VaultOperation(list_static_roles, (LIST_STATIC,))},
        "The names of the static roles.",
    ),
    VaultRoute(
        "{mount}/static-roles/{role}",
        {
            Verb.READ: VaultOperation(read_static_role, (GET_STATIC,)),
            Verb.WRITE: VaultOperation(write_static_role, (PUT_STATIC, GET_STATIC), says_missing=True),
            Verb.DELETE: VaultOperation(delete_static_role, (DELETE_STATIC,)),
        },
        "A static role: username, and rotation_period or rotation_schedule.",
    ),
    VaultRoute(
        "{mount}/rotate-role/{role}",
        {Verb.WRITE: VaultOperation(rotate_static_role, (ROTATE_STATIC,), says_missing=True)},
        "Rotates the key of a static role now.",
    ),
)
