"""The root of an engine: set, check and rotate it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from aiohttp.web import StreamResponse
from google.protobuf.field_mask_pb2 import FieldMask

from lessor.v1 import config_pb2 as pb
from lessor_server.http_edge.answers import http_status
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.console.answers import page_link
from lessor_server.http_edge.console.forms import (
    Control,
    ControlKind,
    FormProblem,
    fill_form,
    typed_of,
    without_secrets,
)
from lessor_server.http_edge.console.problems import form_problems
from lessor_server.http_edge.console.views.engines import find_stored_root, render_engine
from lessor_server.http_edge.console.visit import Visit

SOURCE: Final = (
    Control(
        "access_key",
        "Access key id",
        hint="Of the root's IAM user. Empty means the server's own credentials, if its settings allow that.",
    ),
    Control(
        "secret_key",
        "Secret access key",
        ControlKind.SECRET,
        "Stored encrypted, and shown by no page. Empty keeps the stored one.",
    ),
    Control("region", "Region", hint="Of STS; it decides the partition.", placeholder="us-east-1"),
    Control(
        "assume_chain",
        "Roles to assume",
        ControlKind.STEPS,
        "In this order, one ARN a line; after a comma its external id. The last one is the root.",
    ),
)
ROTATION: Final = (
    Control(
        "rotation_period",
        "Rotate every",
        ControlKind.DURATION,
        "As in 720h. Empty means no automatic rotation.",
    ),
    Control("rotation_schedule", "Or by a schedule", hint="Five fields of cron, in UTC, as in 0 3 * * 0."),
    Control("rotation_window", "Window", ControlKind.DURATION, "How late a scheduled rotation may begin."),
)
MORE: Final = (
    Control(
        "identity_token_file",
        "Web identity token file",
        hint="Path on the server, for the first role above.",
    ),
    Control("identity_token_audience", "Its audience"),
    Control("iam_endpoint", "IAM endpoint", hint="Empty means AWS's own."),
    Control("sts_endpoint", "STS endpoint", hint="Empty means AWS's own for the region."),
    Control("sts_region", "STS region"),
    Control(
        "sts_fallback_endpoints",
        "Further STS endpoints",
        ControlKind.LINES,
        "Tried in this order, one a line.",
    ),
    Control("sts_fallback_regions", "Their regions", ControlKind.LINES, "One for each, one a line."),
    Control(
        "max_retries", "Retries", ControlKind.INTEGER, "Of a failed call, 0 to 10. Empty: the server decides."
    ),
    Control(
        "username_template",
        "Names of users and sessions",
        hint="A template. Empty means lessor-MOUNT-ROLE-SUFFIX.",
    ),
)
CONTROLS: Final = (*SOURCE, *ROTATION, *MORE)


async def show_root(visit: Visit) -> StreamResponse:
    """Show the root's form."""
    root, why = await find_stored_root(visit, visit.path["mount"])
    if why == "denied":  # refused with the reason
        await visit.call(
            "ConfigService.GetRoot", pb.GetRootRequest(mount=visit.path["mount"]), pb.GetRootResponse
        )
    typed = typed_of(root, CONTROLS) if root is not None else {}
    return await _render(visit, {**typed, "etag": root.etag if root is not None else ""}, [])


async def _render(
    visit: Visit, typed: dict[str, str], problems: list[FormProblem], status: HTTPStatus = HTTPStatus.OK
) -> StreamResponse:
    name = visit.path["mount"]
    return await visit.render(
        "root.html",
        title=f"Root of {name}",
        status=status,
        name=name,
        source=SOURCE,
        rotation=ROTATION,
        more=MORE,
        typed=typed,
        problems=problems,
    )


async def save_root(visit: Visit) -> StreamResponse:
    """Store the root; without a typed secret the stored one stays."""
    name = visit.path["mount"]
    request = pb.SetRootRequest(mount=name)
    problems = fill_form(request.config, CONTROLS, visit.typed)
    request.config.SetInParent()
    request.config.etag = visit.typed.get("etag", "")
    if request.config.etag:
        kept = {"secret_key"} if not request.config.secret_key else set()
        paths = [one.name for one in CONTROLS if one.name not in kept]
        request.update_mask.CopyFrom(FieldMask(paths=paths))
    typed = without_secrets(visit.typed, CONTROLS)
    if problems:
        return await _render(visit, typed, problems, HTTPStatus.BAD_REQUEST)
    try:
        await visit.call("ConfigService.SetRoot", request, pb.SetRootResponse)
    except CallRefused as failed:
        problems = form_problems(failed, {one.name for one in CONTROLS}, typed)
        return await _render(visit, typed, problems, http_status(failed.kind))
    return visit.go(
        page_link("engines", name), f"Saved the root of {name}. Check it to see whether AWS accepts it."
    )


async def check_stored_root(visit: Visit) -> StreamResponse:
    """Ask AWS who the root is and what it may do."""
    name = visit.path["mount"]
    try:
        checked = await visit.call(
            "ConfigService.CheckRoot", pb.CheckRootRequest(mount=name), pb.CheckRootResponse
        )
    except CallRefused as failed:
        return await render_engine(visit, {}, form_problems(failed, (), {}), http_status(failed.kind))
    return await visit.render(
        "root_check.html",
        title=f"Check of the root of {name}",
        name=name,
        checked=checked,
        kind=pb.CheckRootResponse.RootKind.Name(checked.root_kind),
        verdicts=[(one.action, pb.RootAction.Verdict.Name(one.verdict)) for one in checked.actions],
    )


async def rotate_root_key(visit: Visit) -> StreamResponse:
    """Replace the root's access key."""
    name = visit.path["mount"]
    request = pb.RotateRootRequest(mount=name, delete_other_key=bool(visit.typed.get("delete_other_key")))
    try:
        answer = await visit.call("ConfigService.RotateRoot", request, pb.RotateRootResponse, seconds=60)
    except CallRefused as failed:
        return await render_engine(visit, {}, form_problems(failed, (), {}), http_status(failed.kind))
    return visit.go(page_link("engines", name), f"Rotated: the root of {name} is now {answer.access_key}.")
