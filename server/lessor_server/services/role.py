"""RoleService: roles and static roles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from lessor.v1 import role_pb2 as pb
from lessor_server.domain.access.acl import Capability
from lessor_server.domain.aws import tags
from lessor_server.domain.errors.base import NotFound
from lessor_server.domain.lease_id import IdRange
from lessor_server.domain.policy import policy
from lessor_server.domain.role import CredentialType, Role
from lessor_server.engine.config.roles import Roles
from lessor_server.engine.config.root_checker import RootChecker
from lessor_server.engine.revocation.bulk import Prefixes
from lessor_server.engine.rotation.static_roles import StaticRoles
from lessor_server.services import messages
from lessor_server.services.call import Caller
from lessor_server.services.messages import Problems
from lessor_server.services.static_role import StaticRoleMethods

_TYPES = {kind: pb.Role.CredentialType.Value(kind.name) for kind in CredentialType}
_KINDS = {value: kind for kind, value in _TYPES.items()}
_SPANS = ("default_sts_ttl", "max_sts_ttl", "default_ttl", "max_ttl", "wait_usable")
_CHANGEABLE = tuple(name for name in pb.Role.DESCRIPTOR.fields_by_name if name != "name")
"""A role cannot be renamed: its name identifies it."""


class RoleService(StaticRoleMethods):
    """Serves operators who manage roles."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["RoleService"]

    def __init__(
        self, roles: Roles, root_checker: RootChecker, prefixes: Prefixes, static: StaticRoles
    ) -> None:
        """Change ``roles``; ``root_checker`` asks AWS about them; ``prefixes`` revokes a role's leases."""
        super().__init__(static)
        self._roles = roles
        self._root_checker = root_checker
        self._prefixes = prefixes

    async def PutRole(self, request: pb.PutRoleRequest, caller: Caller) -> pb.PutRoleResponse:
        """Store a role, completely or not at all."""
        wish, sent, by = _written(request), request.role, caller.principal.name
        put = await self._roles.put(
            wish.mount, sent.name, sent.etag, wish.change, by, create_only=caller.creates_only
        )
        return pb.PutRoleResponse(role=role_message(put.role), warnings=put.warnings)

    async def CheckRole(self, request: pb.CheckRoleRequest, _: Caller) -> pb.CheckRoleResponse:
        """Apply every rule to a role, check it on AWS, and write nothing."""
        wish = _written(request)
        before = await self._roles.find(wish.mount, request.role.name, request.role.etag)
        checked = await self._roles.check(wish.mount, wish.change(before))
        warnings = dict.fromkeys((*checked.warnings, *await self._root_checker.check_role(checked.role)))
        return pb.CheckRoleResponse(role=role_message(checked.role), warnings=warnings)

    async def GetRole(self, request: pb.GetRoleRequest, _: Caller) -> pb.GetRoleResponse:
        """Show a role."""
        role = await self._roles.get(*messages.named(request.mount, request.name, "name"))
        return pb.GetRoleResponse(role=role_message(role))

    async def ListRoles(self, request: pb.ListRolesRequest, _: Caller) -> pb.ListRolesResponse:
        """List roles by name."""
        with Problems() as problems:
            mount = problems.parse(messages.mount_of, request.mount)
            size = problems.parse(messages.page_size, request.page_size)
            after = problems.parse(messages.parse_page_token, request.page_token)
        found = await self._roles.list(mount, after, size + 1)
        page, more = await messages.fill_page(found, size, role_message)
        return pb.ListRolesResponse(roles=page, next_page_token=page[-1].name if more else "")

    async def ListUsableRoles(
        self, request: pb.ListUsableRolesRequest, caller: Caller
    ) -> pb.ListUsableRolesResponse:
        """List the roles whose credentials the caller may read, without their other fields."""
        with Problems() as problems:
            mount = problems.parse(messages.mount_of, request.mount)
            size = problems.parse(messages.page_size, request.page_size)
            after = problems.parse(messages.parse_page_token, request.page_token)
        try:
            found = await self._roles.list(mount, after, size + 1)
        except NotFound:
            found = []  # whether a mount exists is not for everyone to see
        looked_at, usable = found[:size], []
        for number, role in enumerate(looked_at):
            if caller.principal.may(f"{mount}/creds/{role.name}", Capability.READ):
                usable.append(pb.UsableRole(name=role.name, credential_type=_TYPES[role.credential_type]))
            await messages.take_turns(number)
        more = looked_at[-1].name if len(found) > size else ""
        return pb.ListUsableRolesResponse(roles=usable, next_page_token=more)

    async def DeleteRole(self, request: pb.DeleteRoleRequest, caller: Caller) -> pb.DeleteRoleResponse:
        """Delete a role; its leases stay, or are all revoked now."""
        mount, name = messages.named(request.mount, request.name, "name")
        await self._roles.delete(mount, name, caller.principal.name)
        if request.revoke_leases:
            await self._prefixes.accept(IdRange.of_role(mount, name), caller.principal.name)
        return pb.DeleteRoleResponse()


Write = pb.PutRoleRequest | pb.CheckRoleRequest


@dataclass(frozen=True, slots=True)
class _Written:
    """A request to write a role: ``change`` returns the new role, given the stored one."""

    mount: str
    change: Callable[[Role | None], Role]


def _written(request: Write) -> _Written:
    """Parse a request to write a role, or raise ``Invalid`` with all problems of its shape."""
    masked, sent = request.HasField("update_mask"), request.role
    with Problems() as problems:
        mount = problems.parse(messages.mount_of, request.mount)
        paths = messages.paths(
            request.update_mask, _CHANGEABLE, "name fields of Role, whole, all but name", problems
        )
        if request.HasField("role"):
            # With a mask, only the fields that it names are read.
            named = pb.Role(name=sent.name, credential_type=pb.Role.IAM_USER)
            role = problems.parse(_role, mount, messages.apply_mask(named, sent, paths) if masked else sent)
        else:
            problems.add("role", "is missing", "send the role to write")

    def change(before: Role | None) -> Role:
        if not masked:
            return role
        if before is None:
            raise NotFound("role", f"{mount}/{sent.name}")
        return _role(mount, messages.apply_mask(role_message(before), sent, paths))

    return _Written(mount, change)


def _role(mount: str, message: pb.Role) -> Role:
    """Return the role of a message, or raise ``Invalid`` with all problems of its shape."""
    with Problems() as problems:
        name = problems.parse(messages.role_of, message.name, "role.name")
        kind = problems.parse(_kind, message.credential_type)
        spans = problems.parse(messages.parse_durations, message, _SPANS, "role")
        document = problems.parse(_policy, message)
    return Role(
        mount=mount,
        name=name,
        credential_type=kind,
        role_arns=tuple(message.role_arns),
        policy_arns=tuple(message.policy_arns),
        policy_document=document,
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
        default_sts_ttl=spans["default_sts_ttl"],
        max_sts_ttl=spans["max_sts_ttl"],
        default_ttl=spans["default_ttl"],
        max_ttl=spans["max_ttl"],
        wait_usable=spans["wait_usable"],
    )


def _kind(value: pb.Role.CredentialType.ValueType) -> CredentialType:
    """Return a type, or raise ``Invalid`` if it is missing or unknown."""
    if value not in _KINDS:
        fix = f"give one of {', '.join(one.name for one in CredentialType)}"
        raise messages.invalid("role.credential_type", "is missing or unknown", fix)
    return _KINDS[value]


def _policy(message: pb.Role) -> str:
    """Return the canonical text of a role's policy, empty if it has none. Raises ``Invalid``."""
    if not message.HasField("policy_document"):
        return ""
    return policy.canonical(messages.parse_document(message.policy_document, "role.policy_document"))


def role_message(role: Role) -> pb.Role:
    """Return a role as a message."""
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
        message.policy_document.CopyFrom(messages.struct(role.policy_document))
    for field in _SPANS:
        value: timedelta | None = getattr(role, field)
        if value is not None:
            getattr(message, field).FromTimedelta(value)
    return message


def credential_type(kind: CredentialType) -> pb.Role.CredentialType.ValueType:
    """Return a type as an enum of the protocol."""
    return _TYPES[kind]
