"""The RPCs of RoleService and CredsService about static roles."""

from __future__ import annotations

from lessor.v1 import creds_pb2, role_pb2
from lessor_server.domain.root import Hop
from lessor_server.domain.rotation import Rotation
from lessor_server.domain.schedule import Schedule
from lessor_server.domain.static_role import MAX_KEYS, StaticRole
from lessor_server.engine.rotation.static_roles import StaticRoles
from lessor_server.services import messages
from lessor_server.services.call import Caller
from lessor_server.services.messages import Problems


class StaticRoleMethods:
    """RoleService's RPCs about static roles."""

    def __init__(self, static: StaticRoles) -> None:
        """Change ``static``."""
        self._static = static

    async def PutStaticRole(
        self, request: role_pb2.PutStaticRoleRequest, caller: Caller
    ) -> role_pb2.PutStaticRoleResponse:
        """Store a static role; a new one has its first key when this returns."""
        with Problems() as problems:
            mount = problems.parse(messages.mount_of, request.mount)
            role = problems.parse(_role, mount, request)
        row = await self._static.put(
            role,
            caller.principal.name,
            delete_other_key=request.delete_other_key,
            create_only=caller.creates_only,
        )
        return role_pb2.PutStaticRoleResponse(static_role=_message(row))

    async def GetStaticRole(
        self, request: role_pb2.GetStaticRoleRequest, _: Caller
    ) -> role_pb2.GetStaticRoleResponse:
        """Show a static role."""
        row = await self._static.get(*messages.named(request.mount, request.name, "name"))
        return role_pb2.GetStaticRoleResponse(static_role=_message(row))

    async def DeleteStaticRole(
        self, request: role_pb2.DeleteStaticRoleRequest, caller: Caller
    ) -> role_pb2.DeleteStaticRoleResponse:
        """Delete a static role and its keys; its user stays in AWS."""
        mount, name = messages.named(request.mount, request.name, "name")
        pending = await self._static.delete(mount, name, caller.principal.name, keep_key=request.keep_key)
        return role_pb2.DeleteStaticRoleResponse(pending_keys=pending)

    async def RotateStaticRole(
        self, request: role_pb2.RotateStaticRoleRequest, caller: Caller
    ) -> role_pb2.RotateStaticRoleResponse:
        """Replace a static role's key now."""
        mount, name = messages.named(request.mount, request.name, "name")
        by = caller.principal.name
        row = await self._static.rotate(mount, name, by, delete_other_key=request.delete_other_key)
        return role_pb2.RotateStaticRoleResponse(static_role=_message(row))

    async def ResumeStaticRole(
        self, request: role_pb2.ResumeStaticRoleRequest, caller: Caller
    ) -> role_pb2.ResumeStaticRoleResponse:
        """Release a static role that is held."""
        mount, name = messages.named(request.mount, request.name, "name")
        by = caller.principal.name
        row = await self._static.resume(mount, name, by, delete_other_key=request.delete_other_key)
        return role_pb2.ResumeStaticRoleResponse(static_role=_message(row))

    async def ListStaticRoles(
        self, request: role_pb2.ListStaticRolesRequest, _: Caller
    ) -> role_pb2.ListStaticRolesResponse:
        """List static roles by name."""
        with Problems() as problems:
            mount = problems.parse(messages.mount_of, request.mount)
            size = problems.parse(messages.page_size, request.page_size)
            after = problems.parse(messages.parse_page_token, request.page_token)
        found = await self._static.list(mount, after, size + 1)
        page, more = await messages.fill_page(found, size, _message)
        token = page[-1].name if more else ""
        return role_pb2.ListStaticRolesResponse(static_roles=page, next_page_token=token)


class StaticCredentialMethods:
    """CredsService's RPCs about static roles."""

    def __init__(self, static: StaticRoles) -> None:
        """Read keys from ``static``."""
        self._static = static

    async def GetStaticCredentials(
        self, request: creds_pb2.GetStaticCredentialsRequest, caller: Caller
    ) -> creds_pb2.GetStaticCredentialsResponse:
        """Return the current key of a static role."""
        mount, role = messages.named(request.mount, request.role, "role")
        found = await self._static.credentials(mount, role, caller.principal.name)
        return creds_pb2.GetStaticCredentialsResponse(
            access_key=found.access_key_id,
            secret_key=found.secret.reveal(),
            next_rotation_time=messages.timestamp(found.next_us),
            rotation_period=messages.to_duration(found.period),
        )


def _role(mount: str, request: role_pb2.PutStaticRoleRequest) -> StaticRole:
    """Return the static role of a request, or raise ``Invalid`` with all problems of its shape."""
    if not request.HasField("static_role"):
        raise messages.invalid("static_role", "is missing", "send the static role to store")
    message = request.static_role
    with Problems() as problems:
        name = problems.parse(messages.role_of, message.name, "static_role.name")
        spans = problems.parse(
            messages.parse_durations, message, ("rotation_period", "rotation_window"), "static_role"
        )
    return StaticRole(
        mount=mount,
        name=name,
        username=message.username,
        schedule=Schedule(spans["rotation_period"], message.rotation_schedule, spans["rotation_window"]),
        live_keys=message.live_keys or MAX_KEYS,
        assume_chain=tuple(Hop(hop.role_arn, hop.external_id) for hop in message.assume_chain),
        held=message.held,
    )


def _message(row: Rotation) -> role_pb2.StaticRole:
    """Return a static role as a message."""
    message = role_pb2.StaticRole(
        name=row.name,
        username=row.user_name,
        rotation_period=messages.to_duration(row.schedule.period),
        rotation_schedule=row.schedule.cron,
        rotation_window=messages.to_duration(row.schedule.window),
        live_keys=row.live_keys,
        access_key=row.current,
        next_rotation_time=messages.timestamp(row.next_us),
        held=row.held,
    )
    for hop in row.assume_chain:
        message.assume_chain.add(role_arn=hop.role_arn, external_id=hop.external_id)
    return message
