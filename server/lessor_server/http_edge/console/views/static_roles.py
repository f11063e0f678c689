"""Static roles: IAM users whose keys Lessor rotates."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from aiohttp.web import StreamResponse

from lessor.v1 import creds_pb2
from lessor.v1 import role_pb2 as pb
from lessor_server.domain.errors.base import ErrorKind
from lessor_server.http_edge.answers import http_status
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.console.answers import page_link
from lessor_server.http_edge.console.forms import Control, ControlKind, FormProblem, fill_form, typed_of
from lessor_server.http_edge.console.problems import form_problems
from lessor_server.http_edge.console.visit import Visit

CONTROLS: Final = (
    Control("name", "Name", required=True, hint="Letters, digits and . _ -, at most 64."),
    Control(
        "username", "IAM user", required=True, hint="It must exist. Its keys are rotated, and nothing else."
    ),
    Control("rotation_period", "Rotate every", ControlKind.DURATION, "As in 24h; at least 1m."),
    Control("rotation_schedule", "Or by a schedule", hint="Five fields of cron, in UTC, as in 0 3 * * *."),
    Control("rotation_window", "Window", ControlKind.DURATION, "How late a scheduled rotation may begin."),
    Control(
        "live_keys",
        "Live keys",
        ControlKind.INTEGER,
        "1: the old key is deleted immediately. 2: it works until the next rotation. Empty means 2.",
    ),
    Control(
        "assume_chain",
        "Roles to assume",
        ControlKind.STEPS,
        "For a user in another account: one ARN a line, after a comma its external id.",
    ),
    Control("held", "Hold: no rotation until it is resumed", ControlKind.CHECKBOX),
)
ROTATE_SECONDS: Final = 60.0
_NAMES: Final = frozenset(one.name for one in CONTROLS)


async def show_static_roles(visit: Visit) -> StreamResponse:
    """List the static roles of an engine."""
    mount = await visit.find_mount()
    request = pb.ListStaticRolesRequest(mount=mount, page_size=100, page_token=visit.query("page"))
    answer = await visit.call("RoleService.ListStaticRoles", request, pb.ListStaticRolesResponse)
    return await visit.render(
        "static_roles.html",
        title=f"Static roles of {mount}",
        mount=mount,
        mounts=await visit.list_mount_names(mount),
        roles=answer.static_roles,
        next_page=answer.next_page_token,
    )


async def show_new_static_role(visit: Visit) -> StreamResponse:
    """Show the form of a new static role."""
    return await _render_form(visit, await visit.find_mount(), {}, [])


async def _render_form(
    visit: Visit,
    mount: str,
    typed: dict[str, str],
    problems: list[FormProblem],
    status: HTTPStatus = HTTPStatus.OK,
) -> StreamResponse:
    return await visit.render(
        "static_role_edit.html",
        title=f"New static role in {mount}",
        status=status,
        mount=mount,
        controls=CONTROLS,
        typed=typed,
        problems=problems,
    )


async def save_static_role(visit: Visit) -> StreamResponse:
    """Store a new static role; one that exists is not replaced."""
    mount, role = visit.path["mount"], pb.StaticRole()
    typed = dict(visit.typed)
    problems = fill_form(role, CONTROLS, typed)
    if not problems and role.name and await _exists(visit, mount, role.name):
        # Saving would also release one that is held.
        problems.append(FormProblem("name", "is the name of a static role that exists; choose another one"))
    if problems:
        return await _render_form(visit, mount, typed, problems, HTTPStatus.BAD_REQUEST)
    other = bool(typed.get("delete_other_key"))
    request = pb.PutStaticRoleRequest(mount=mount, static_role=role, delete_other_key=other)
    try:
        await visit.call(
            "RoleService.PutStaticRole", request, pb.PutStaticRoleResponse, seconds=ROTATE_SECONDS
        )
    except CallRefused as failed:
        problems = form_problems(failed, _NAMES, typed)
        return await _render_form(visit, mount, typed, problems, http_status(failed.kind))
    return visit.go(page_link("static-roles", mount, role.name), f"Saved {mount}/{role.name}.")


async def _exists(visit: Visit, mount: str, name: str) -> bool:
    request = pb.GetStaticRoleRequest(mount=mount, name=name)
    try:
        await visit.call("RoleService.GetStaticRole", request, pb.GetStaticRoleResponse)
    except CallRefused as failed:
        if failed.kind in (ErrorKind.NOT_FOUND, ErrorKind.DENIED, ErrorKind.INVALID):
            return False
        raise
    return True


async def show_static_role(visit: Visit) -> StreamResponse:
    """Show a static role."""
    return await _render_role(visit, [])


async def _render_role(
    visit: Visit,
    problems: list[FormProblem],
    status: HTTPStatus = HTTPStatus.OK,
    key: creds_pb2.GetStaticCredentialsResponse | None = None,
) -> StreamResponse:
    mount, name = visit.path["mount"], visit.path["role"]
    request = pb.GetStaticRoleRequest(mount=mount, name=name)
    role = (await visit.call("RoleService.GetStaticRole", request, pb.GetStaticRoleResponse)).static_role
    return await visit.render(
        "static_role.html",
        title=f"Static role {mount}/{name}",
        status=status,
        mount=mount,
        role=role,
        typed=typed_of(role, CONTROLS),
        problems=problems,
        key=key,
    )


async def rotate_static_key(visit: Visit) -> StreamResponse:
    """Rotate the key of a static role."""
    mount, name = visit.path["mount"], visit.path["role"]
    other = bool(visit.typed.get("delete_other_key"))
    request = pb.RotateStaticRoleRequest(mount=mount, name=name, delete_other_key=other)
    try:
        answer = await visit.call(
            "RoleService.RotateStaticRole", request, pb.RotateStaticRoleResponse, seconds=ROTATE_SECONDS
        )
    except CallRefused as failed:
        return await _render_role(visit, form_problems(failed, (), {}), http_status(failed.kind))
    return visit.go(
        page_link("static-roles", mount, name), f"Rotated: the key is now {answer.static_role.access_key}."
    )


async def resume_static_role(visit: Visit) -> StreamResponse:
    """Release a static role that is held."""
    mount, name = visit.path["mount"], visit.path["role"]
    request = pb.ResumeStaticRoleRequest(mount=mount, name=name)
    try:
        await visit.call(
            "RoleService.ResumeStaticRole", request, pb.ResumeStaticRoleResponse, seconds=ROTATE_SECONDS
        )
    except CallRefused as failed:
        return await _render_role(visit, form_problems(failed, (), {}), http_status(failed.kind))
    return visit.go(page_link("static-roles", mount, name), f"Resumed {mount}/{name}.")


async def show_static_key(visit: Visit) -> StreamResponse:
    """Show the current key of a static role."""
    mount, name = visit.path["mount"], visit.path["role"]
    request = creds_pb2.GetStaticCredentialsRequest(mount=mount, role=name)
    try:
        key = await visit.call(
            "CredsService.GetStaticCredentials", request, creds_pb2.GetStaticCredentialsResponse
        )
    except CallRefused as failed:
        return await _render_role(visit, form_problems(failed, (), {}), http_status(failed.kind))
    return await _render_role(visit, [], key=key)


async def ask_to_delete_static_role(visit: Visit) -> StreamResponse:
    """Ask whether to delete a static role."""
    mount, name = visit.path["mount"], visit.path["role"]
    return await visit.render(
        "static_role_delete.html", title=f"Delete {mount}/{name}", mount=mount, name=name
    )


async def remove_static_role(visit: Visit) -> StreamResponse:
    """Delete a static role."""
    mount, name = visit.path["mount"], visit.path["role"]
    keep = bool(visit.typed.get("keep_key"))
    request = pb.DeleteStaticRoleRequest(mount=mount, name=name, keep_key=keep)
    answer = await visit.call(
        "RoleService.DeleteStaticRole", request, pb.DeleteStaticRoleResponse, seconds=ROTATE_SECONDS
    )
    pending = ", ".join(answer.pending_keys)
    late = (f"AWS has not deleted {pending} yet; the deletion is retried.",) if pending else ()
    return visit.go(page_link("static-roles", mount=mount), f"Deleted {mount}/{name}.", warnings=late)
