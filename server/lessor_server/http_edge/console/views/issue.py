"""Issue a credential; it is shown once.

The form has a request id of its own, so that a form that is sent again never creates a second user.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from aiohttp.web import StreamResponse
from google.protobuf.duration_pb2 import Duration

from lessor.v1 import creds_pb2 as pb
from lessor.v1 import role_pb2
from lessor_server.domain.errors.base import ErrorKind
from lessor_server.http_edge.answers import http_status
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.console.forms import Control, ControlKind, FormProblem, fill_form
from lessor_server.http_edge.console.pages import type_name
from lessor_server.http_edge.console.problems import form_problems
from lessor_server.http_edge.console.visit import Visit

MAX_ROLES: Final = 1_000
WAIT_USABLE_SECONDS: Final = 10
ISSUE_SECONDS: Final = 40.0
REQUEST: Final = (
    Control("reason", "Reason", hint="Stored with the lease, and shown in lists. At most 256 characters."),
    Control("ttl", "Lifetime", ControlKind.DURATION, "As in 1h30m. Empty means the role's."),
)
SESSION: Final = (
    Control("role_arn", "IAM role", hint="ARN of the role to assume, if the Lessor role allows several."),
    Control("role_session_name", "Session name", hint="2 to 64 characters. Empty means a generated one."),
    Control("mfa_code", "MFA code", hint="6 digits, if the role has an MFA device."),
    Control("session_policy", "Session policy", ControlKind.JSON, "Narrows this session. JSON."),
)
CONTROLS: Final = (*REQUEST, *SESSION)
_NAMES: Final = frozenset(("role", *(one.name for one in CONTROLS)))


async def show_issue_form(visit: Visit) -> StreamResponse:
    """Show the form."""
    mount = await visit.find_mount()
    return await _render(visit, mount, {"role": visit.query("role"), "wait_usable": "on"}, [])


async def _render(
    visit: Visit,
    mount: str,
    typed: dict[str, str],
    problems: list[FormProblem],
    status: HTTPStatus = HTTPStatus.OK,
) -> StreamResponse:
    roles = await _list_roles(visit, mount)
    if (chosen := typed.get("role", "")) and chosen not in {name for name, _ in roles}:
        roles.insert(0, (chosen, "not among those you may use"))
    return await visit.render(
        "issue.html",
        title="Issue a credential",
        status=status,
        mount=mount,
        mounts=await visit.list_mount_names(mount),
        roles=roles,
        request_controls=REQUEST,
        session_controls=SESSION,
        typed=typed,
        problems=problems,
        request_id=visit.draw_request_id(),
    )


async def _list_roles(visit: Visit, mount: str) -> list[tuple[str, str]]:
    """Return the names and types of the roles that the person may use."""
    found: list[tuple[str, str]] = []
    token = ""
    while len(found) < MAX_ROLES:
        request = role_pb2.ListUsableRolesRequest(mount=mount, page_size=MAX_ROLES, page_token=token)
        try:
            answer = await visit.call(
                "RoleService.ListUsableRoles", request, role_pb2.ListUsableRolesResponse
            )
        except CallRefused as failed:
            if failed.kind is ErrorKind.INVALID:  # the address names an engine that can't exist
                return []
            raise
        found += [(one.name, type_name(one.credential_type)) for one in answer.roles]
        token = answer.next_page_token
        if not token:
            break
    return found


async def issue_credential(visit: Visit) -> StreamResponse:
    """Issue a credential, and show it."""
    typed = dict(visit.typed)
    mount = typed.get("mount", "")
    request = pb.GenerateCredentialsRequest(
        mount=mount, role=typed.get("role", "").strip(), request_id=typed.get("request_id", "")
    )
    problems = fill_form(request, CONTROLS, typed)
    if not request.role:
        problems.insert(0, FormProblem("role", "is empty; choose a role"))
    if typed.get("wait_usable"):
        request.wait_usable.CopyFrom(Duration(seconds=WAIT_USABLE_SECONDS))
    if problems:
        return await _render(visit, mount, typed, problems, HTTPStatus.BAD_REQUEST)
    try:
        issued = await visit.call(
            "CredsService.GenerateCredentials",
            request,
            pb.GenerateCredentialsResponse,
            seconds=ISSUE_SECONDS,
        )
    except CallRefused as failed:
        return await _render(
            visit, mount, typed, form_problems(failed, _NAMES, typed), http_status(failed.kind)
        )
    page = await visit.render(
        "issued.html",
        title="Credential issued",
        mount=mount,
        role=request.role,
        issued=issued,
        snippet=shell_snippet(issued),
        waited=bool(typed.get("wait_usable")),
    )
    return await visit.deliver(page, issued.lease_id)


def shell_snippet(issued: pb.GenerateCredentialsResponse) -> str:
    """Return lines for a shell that use a credential; AWS's keys hold no character that a shell reads."""
    lines = [
        f"export AWS_ACCESS_KEY_ID='{issued.access_key}'",
        f"export AWS_SECRET_ACCESS_KEY='{issued.secret_key}'",
    ]
    token = issued.security_token
    lines.append(f"export AWS_SESSION_TOKEN='{token}'" if token else "unset AWS_SESSION_TOKEN")
    return "\n".join(lines)
