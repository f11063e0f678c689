"""Roles: list, write, check and delete them."""

from __future__ import annotations

import json
from http import HTTPStatus

from aiohttp.web import Response, StreamResponse
from google.protobuf.field_mask_pb2 import FieldMask

from lessor.v1 import role_pb2 as pb
from lessor_server.domain.errors.base import ErrorKind
from lessor_server.domain.policy import policy
from lessor_server.http_edge.answers import http_status
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.console import documents
from lessor_server.http_edge.console.answers import page_link, protect
from lessor_server.http_edge.console.forms import FormProblem, fill_form, typed_of
from lessor_server.http_edge.console.problems import MAX_PROBLEMS, form_problems
from lessor_server.http_edge.console.views import role_forms
from lessor_server.http_edge.console.views.engines import count_live_leases
from lessor_server.http_edge.console.visit import Visit

_NAMES = {one.name for one in role_forms.CONTROLS}


async def show_roles(visit: Visit) -> StreamResponse:
    """List the roles of an engine."""
    mount = await visit.find_mount()
    request = pb.ListRolesRequest(mount=mount, page_size=100, page_token=visit.query("page"))
    answer = await visit.call("RoleService.ListRoles", request, pb.ListRolesResponse)
    return await visit.render(
        "roles.html",
        title=f"Roles of {mount}",
        mount=mount,
        mounts=await visit.list_mount_names(mount),
        roles=answer.roles,
        next_page=answer.next_page_token,
    )


async def show_new_role(visit: Visit) -> StreamResponse:
    """Show the form of a new role, filled from a template if one was chosen."""
    chosen = role_forms.TEMPLATES.get(visit.query("template"))
    typed = {"credential_type": role_forms.USER, **(chosen.typed if chosen else {})}
    return await _render(visit, await visit.find_mount(), typed, [], is_new=True)


async def show_role(visit: Visit) -> StreamResponse:
    """Show a role in its form."""
    mount, name = visit.path["mount"], visit.path["role"]
    request = pb.GetRoleRequest(mount=mount, name=name)
    role = (await visit.call("RoleService.GetRole", request, pb.GetRoleResponse)).role
    typed = {**typed_of(role, role_forms.CONTROLS), "etag": role.etag}
    return await _render(visit, mount, typed, [])


async def _render(
    visit: Visit,
    mount: str,
    typed: dict[str, str],
    problems: list[FormProblem],
    *,
    is_new: bool = False,
    warnings: list[str] | None = None,
    status: HTTPStatus = HTTPStatus.OK,
) -> StreamResponse:
    name = "" if is_new else visit.path["role"]
    return await visit.render(
        "role.html",
        title=f"New role in {mount}" if is_new else f"Role {mount}/{name}",
        status=status,
        mount=mount,
        name=name,
        typed=typed,
        problems=problems,
        warnings=warnings,
        forms=role_forms,
        shown_lines=_shown_lines(typed.get("policy_document", ""), problems),
    )


def _shown_lines(text: str, problems: list[FormProblem]) -> dict[int, str]:
    """Return the lines of the policy that have a problem, by number."""
    lines = text.split("\n")
    numbers = {one.line for one in problems if one.field == "policy_document"}
    return {number: lines[number - 1] for number in sorted(numbers) if 0 < number <= len(lines)}


async def create_role(visit: Visit) -> StreamResponse:
    """Store a new role; one that exists is not replaced."""
    mount, role = visit.path["mount"], pb.Role()
    problems = fill_form(role, role_forms.CONTROLS, visit.typed)
    if not role.name:
        problems.insert(0, FormProblem("name", "is empty; give the role a name"))
    elif not problems and await _exists(visit, mount, role.name):
        problems.append(FormProblem("name", "is the name of a role that exists; open that one to change it"))
    if problems:
        return await _show_problems(visit, problems, HTTPStatus.BAD_REQUEST, is_new=True)
    request = pb.PutRoleRequest(mount=mount, role=role)
    return await _put(visit, request, is_new=True)


async def save_role(visit: Visit) -> StreamResponse:
    """Change a stored role; fields that the form does not show stay."""
    mount, role = visit.path["mount"], pb.Role()
    problems = fill_form(role, role_forms.CONTROLS, visit.typed)
    if problems:
        return await _show_problems(visit, problems, HTTPStatus.BAD_REQUEST)
    role.name, role.etag = visit.path["role"], visit.typed.get("etag", "")
    mask = FieldMask(paths=role_forms.CHANGEABLE)
    return await _put(visit, pb.PutRoleRequest(mount=mount, role=role, update_mask=mask))


async def _put(visit: Visit, request: pb.PutRoleRequest, *, is_new: bool = False) -> StreamResponse:
    try:
        answer = await visit.call("RoleService.PutRole", request, pb.PutRoleResponse)
    except CallRefused as failed:
        problems = form_problems(failed, _NAMES, visit.typed)
        return await _show_problems(visit, problems, http_status(failed.kind), is_new=is_new)
    path = page_link("roles", request.mount, answer.role.name)
    return visit.go(path, f"Saved {request.mount}/{answer.role.name}.", warnings=tuple(answer.warnings))


async def _show_problems(
    visit: Visit, problems: list[FormProblem], status: HTTPStatus, *, is_new: bool = False
) -> StreamResponse:
    typed = dict(visit.typed)
    return await _render(visit, visit.path["mount"], typed, problems, is_new=is_new, status=status)


async def _exists(visit: Visit, mount: str, name: str) -> bool:
    request = pb.GetRoleRequest(mount=mount, name=name)
    try:
        await visit.call("RoleService.GetRole", request, pb.GetRoleResponse)
    except CallRefused as failed:
        if failed.kind in (ErrorKind.NOT_FOUND, ErrorKind.DENIED, ErrorKind.INVALID):
            return False
        raise
    return True


async def check_typed_role(visit: Visit) -> StreamResponse:
    """Check a role as it is typed, on AWS too, and store nothing."""
    mount, role = visit.path["mount"], pb.Role()
    is_new = "role" not in visit.path
    problems = fill_form(role, role_forms.CONTROLS, visit.typed)
    if problems:
        return await _show_problems(visit, problems, HTTPStatus.BAD_REQUEST, is_new=is_new)
    request = pb.CheckRoleRequest(mount=mount, role=role)
    if not is_new:
        role.name = visit.path["role"]
        request = pb.CheckRoleRequest(
            mount=mount, role=role, update_mask=FieldMask(paths=role_forms.CHANGEABLE)
        )
    try:
        answer = await visit.call("RoleService.CheckRole", request, pb.CheckRoleResponse)
    except CallRefused as failed:
        problems = form_problems(failed, _NAMES, visit.typed)
        return await _show_problems(visit, problems, http_status(failed.kind), is_new=is_new)
    return await _render(visit, mount, dict(visit.typed), [], is_new=is_new, warnings=list(answer.warnings))


async def check_typed_policy(visit: Visit) -> StreamResponse:
    """Return the problems of a policy that is being typed, as JSON; AWS is not asked."""
    text = visit.typed.get("policy_document", "").strip()
    found: list[dict[str, str | int]] = []
    if text:
        try:
            document, lines = documents.parse_json_text(text), documents.LineFinder(text)
        except documents.NotADocument as error:
            found = [{"line": error.line, "text": str(error)}]
        else:
            for one in policy.violations(document, field="")[:MAX_PROBLEMS]:
                field = one.field.lstrip(".")
                problem = f"{field}: {one.problem}" if field else one.problem
                found.append({"line": lines.find(field), "text": f"{problem}; {one.fix}"})
    response = Response(body=json.dumps({"problems": found}).encode())
    protect(response)
    response.headers["Content-Type"] = "application/json"
    return response


async def ask_to_delete_role(visit: Visit) -> StreamResponse:
    """Ask whether to delete a role."""
    mount, name = visit.path["mount"], visit.path["role"]
    return await visit.render(
        "role_delete.html",
        title=f"Delete {mount}/{name}",
        mount=mount,
        name=name,
        live=await count_live_leases(visit, f"{mount}/creds/{name}/"),
    )


async def remove_role(visit: Visit) -> StreamResponse:
    """Delete a role, and if asked revoke its leases."""
    mount, name = visit.path["mount"], visit.path["role"]
    revoke = bool(visit.typed.get("revoke_leases"))
    request = pb.DeleteRoleRequest(mount=mount, name=name, revoke_leases=revoke)
    await visit.call("RoleService.DeleteRole", request, pb.DeleteRoleResponse)
    leases = "Its leases are being revoked." if revoke else "Its leases stay until they end."
    return visit.go(page_link("roles", mount=mount), f"Deleted {mount}/{name}. {leases}")
