"""RoleService: what credentials may be asked for."""

from __future__ import annotations

from datetime import timedelta

from lessor.v1 import role_pb2 as pb
from lessor_server.domain import names, policy, tags
from lessor_server.domain.errors import Invalid, NotFound, Violation
from lessor_server.domain.role import CredentialType, Role
from lessor_server.engine.checks import Checks
from lessor_server.engine.prefixes import Prefixes
from lessor_server.engine.roles import Roles
from lessor_server.engine.rotation.static_roles import StaticRoles
from lessor_server.engine.stored import Range
from lessor_server.services import convert
from lessor_server.services.guard import Caller
from lessor_server.services.static_role import StaticRoleMethods

_TYPES = {kind: pb.Role.CredentialType.Value(kind.name) for kind in CredentialType}
_KINDS = {value: kind for kind, value in _TYPES.items()}
_SPANS = ("default_sts_ttl", "max_sts_ttl", "default_ttl", "max_ttl")


class RoleService(StaticRoleMethods):
    """Serves what operators do with roles."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["RoleService"]

    def __init__(self, roles: Roles, checks: Checks, prefixes: Prefixes, static: StaticRoles) -> None:
        """Change ``roles``; ``checks`` ask AWS about them.

        A deleted role's leases go by way of ``prefixes`` where that is asked for.
        """
        super().__init__(static)
        self._roles = roles
        self._checks = checks
        self._prefixes = prefixes

    async def PutRole(self, request: pb.PutRoleRequest, caller: Caller) -> pb.PutRoleResponse:
        """Write a role, whole or not at all."""
        mount, sent = convert.mount_of(request.mount), _sent(request)

        def change(before: Role | None) -> Role:
            return _changed(mount, before, request)

        put = await self._roles.put(mount, sent.name, sent.etag, change, caller.principal.name)
        return pb.PutRoleResponse(role=role_message(put.role), warnings=put.warnings)

    async def CheckRole(self, request: pb.CheckRoleRequest, _: Caller) -> pb.CheckRoleResponse:
        """Apply every rule to a role, ask AWS what it would meet there, and write nothing."""
        mount, sent = convert.mount_of(request.mount), _sent(request)
        before = await self._roles.get(mount, sent.name) if request.HasField("update_mask") else None
        checked = await self._roles.check(mount, _changed(mount, before, request))
        warnings = dict.fromkeys((*checked.warnings, *await self._checks.role(checked.role)))
        return pb.CheckRoleResponse(role=role_message(checked.role), warnings=warnings)

    async def GetRole(self, request: pb.GetRoleRequest, _: Caller) -> pb.GetRoleResponse:
        """Show a role."""
        role = await self._roles.get(convert.mount_of(request.mount), convert.role_of(request.name, "name"))
        return pb.GetRoleResponse(role=role_message(role))

    async def ListRoles(self, request: pb.ListRolesRequest, _: Caller) -> pb.ListRolesResponse:
        """List roles by name."""
        size = convert.page_size(request.page_size)
        found = await self._roles.list(
            convert.mount_of(request.mount), convert.token(request.page_token), size + 1
        )
        page, more = convert.cut(found, size)
        token = page[-1].name if more else ""
        return pb.ListRolesResponse(roles=[role_message(role) for role in page], next_page_token=token)

    async def DeleteRole(self, request: pb.DeleteRoleRequest, caller: Caller) -> pb.DeleteRoleResponse:
        """Delete a role; its leases still expire and revoke, or are all revoked now."""
        mount, name = convert.mount_of(request.mount), convert.role_of(request.name, "name")
        await self._roles.delete(mount, name, caller.principal.name)
        if request.revoke_leases:
            low = f"{mount}/creds/{name}/"
            await self._prefixes.accept(Range(low, f"{mount}/creds/{name}0"), caller.principal.name)
        return pb.DeleteRoleResponse()


def _sent(request: pb.PutRoleRequest | pb.CheckRoleRequest) -> pb.Role:
    """Return the role of a request, or raise ``Invalid`` where it cannot even be looked up."""
    if not request.HasField("role"):
        raise convert.invalid("role", "is missing", "send the role to write")
    if request.HasField("update_mask"):
        convert.role_of(request.role.name, "role.name")
    return request.role


def _changed(mount: str, before: Role | None, request: pb.PutRoleRequest | pb.CheckRoleRequest) -> Role:
    """Return the role as the request wants it."""
    if not request.HasField("update_mask"):
        return _role(mount, request.role)
    if before is None:
        raise NotFound("role", f"{mount}/{request.role.name}")
    if "name" in request.update_mask.paths:
        raise convert.invalid("update_mask", "name cannot be changed", "write a new role and delete this one")
    return _role(mount, convert.masked(role_message(before), request.role, request.update_mask))


def _role(mount: str, message: pb.Role) -> Role:
    """Return the role of a message; raises ``Invalid`` for what no role can hold."""
    violations: list[Violation] = []
    kind = _KINDS.get(message.credential_type)
    if kind is None:
        mend = f"give one of {', '.join(one.name for one in CredentialType)}"
        violations.append(Violation("role.credential_type", "is missing or unknown", mend))
    document = None
    if message.HasField("policy_document"):
        document = convert.document(message.policy_document, "role.policy_document")
    if kind is None:
        # The type decides the other rules; what can be told without it is told in the same answer.
        violations += _rest(message, document)
        raise Invalid(tuple(violations))
    return Role(
        mount=mount,
        name=message.name,
        credential_type=kind,
        role_arns=tuple(message.role_arns),
        policy_arns=tuple(message.policy_arns),
        policy_document=policy.canonical(document) if document is not None else "",
        iam_groups=tuple(message.iam_groups),
        iam_tags=tags.of(message.iam_tags),
        session_tags=tags.of(message.session_tags),
        transitive_tag_keys=tuple(message.transitive_tag_keys),
        source_identity=message.source_identity,
        external_id=message.external_id,
        user_path=message.user_path,
        permissions_boundary_arn=message.permissions_boundary_arn,
        max_leases=message.max_leases,
        mfa_serial_number=message.mfa_serial_number,
        default_sts_ttl=_span(message, "default_sts_ttl"),
        max_sts_ttl=_span(message, "max_sts_ttl"),
        default_ttl=_span(message, "default_ttl"),
        max_ttl=_span(message, "max_ttl"),
    )


def _rest(message: pb.Role, document: dict[str, policy.JsonValue] | None) -> list[Violation]:
    found = names.name_violations("name", message.name)
    if document is not None:
        found += policy.violations(document)
    return [violation.under("role") for violation in found]


def _span(message: pb.Role, field: str) -> timedelta | None:
    """Return a span; absent and zero both mean that the default holds."""
    return convert.span(message, field, "role") or None


def role_message(role: Role) -> pb.Role:
    """Return a role as callers see it."""
    message = pb.Role(
        name=role.name,
        credential_type=_TYPES[role.credential_type],
        role_arns=role.role_arns,
        policy_arns=role.policy_arns,
        iam_groups=role.iam_groups,
        iam_tags=dict(role.iam_tags),
        session_tags=dict(role.session_tags),
        transitive_tag_keys=role.transitive_tag_keys,
        source_identity=role.source_identity,
        external_id=role.external_id,
        user_path=role.user_path,
        permissions_boundary_arn=role.permissions_boundary_arn,
        max_leases=role.max_leases,
        mfa_serial_number=role.mfa_serial_number,
        etag=role.etag,
    )
    if role.policy_document:
        message.policy_document.CopyFrom(convert.struct(role.policy_document))
    for field in _SPANS:
        value: timedelta | None = getattr(role, field)
        if value is not None:
            getattr(message, field).FromTimedelta(value)
    return message


def credential_type(kind: CredentialType) -> pb.Role.CredentialType.ValueType:
    """Return a type as callers see it."""
    return _TYPES[kind]
