"""Engines: enable, tune, disable, lease defaults and the root."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from aiohttp.web import StreamResponse
from google.protobuf.field_mask_pb2 import FieldMask

from lessor.v1 import config_pb2 as pb
from lessor.v1 import lease_pb2
from lessor_server.domain.errors.base import ErrorKind
from lessor_server.http_edge.answers import http_status
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.console.answers import page_link, redirect
from lessor_server.http_edge.console.forms import Control, ControlKind, FormProblem, fill_form, typed_of
from lessor_server.http_edge.console.problems import form_problems
from lessor_server.http_edge.console.visit import Visit

LIMITS: Final = (
    Control("description", "Description", hint="For people. At most 1,000 characters."),
    Control(
        "default_lease_ttl",
        "Default lease",
        ControlKind.DURATION,
        "How long an IAM user's lease lasts if nothing else says so, as in 1h30m or 7d. Empty means 768h.",
        placeholder="768h",
    ),
    Control(
        "max_lease_ttl",
        "Longest lease",
        ControlKind.DURATION,
        "From its issue on, renewals included. Empty means 768h.",
        placeholder="768h",
    ),
    Control(
        "max_users",
        "Most IAM users",
        ControlKind.INTEGER,
        "At the same time. Empty means 5,000, AWS's default limit of an account.",
        placeholder="5000",
    ),
)
NEW: Final = (Control("mount", "Name", hint="The first part of its lease ids.", required=True), *LIMITS)
DEFAULTS: Final = (
    Control("lease", "Lease", ControlKind.DURATION, "Used if neither the request nor the role sets one."),
    Control("lease_max", "Longest lease", ControlKind.DURATION, "From its issue on, renewals included."),
)


async def show_first_page(visit: Visit) -> StreamResponse:
    """Lead to the engines, or a person who may not list them to the page that issues credentials."""
    return redirect("/engines" if await visit.find_mounts() is not None else "/issue")


async def show_engines(visit: Visit) -> StreamResponse:
    """List the engines."""
    request = pb.ListMountsRequest(page_size=100, page_token=visit.query("page"))
    answer = await visit.call("ConfigService.ListMounts", request, pb.ListMountsResponse)
    return await visit.render(
        "engines.html", title="Engines", mounts=answer.mounts, next_page=answer.next_page_token
    )


async def show_new_engine(visit: Visit) -> StreamResponse:
    """Show the form of a new engine."""
    return await _render_new(visit, [])


async def _render_new(
    visit: Visit, problems: list[FormProblem], status: HTTPStatus = HTTPStatus.OK
) -> StreamResponse:
    return await visit.render(
        "engine_new.html",
        title="Enable an engine",
        status=status,
        controls=NEW,
        typed=visit.typed,
        problems=problems,
    )


async def enable_engine(visit: Visit) -> StreamResponse:
    """Enable an engine."""
    request = pb.EnableMountRequest()
    problems = fill_form(request, NEW, visit.typed)
    if not request.mount:
        problems.append(FormProblem("mount", "is empty; give the engine a name, such as aws"))
    if problems:
        return await _render_new(visit, problems, HTTPStatus.BAD_REQUEST)
    try:
        await visit.call("ConfigService.EnableMount", request, pb.EnableMountResponse)
    except CallRefused as failed:
        return await _render_new(visit, _problems(failed, visit), http_status(failed.kind))
    return visit.go(page_link("engines", request.mount), f"Enabled {request.mount}. Next, give it a root.")


async def show_engine(visit: Visit) -> StreamResponse:
    """Show an engine, with the forms of its limits, defaults and root."""
    return await render_engine(visit, {}, [])


async def render_engine(
    visit: Visit, typed: dict[str, str], problems: list[FormProblem], status: HTTPStatus = HTTPStatus.OK
) -> StreamResponse:
    """Show an engine; ``typed`` and ``problems`` are those of the form that was sent."""
    name = visit.path["mount"]
    mount = await _find_mount(visit, name)
    root, root_problem = await find_stored_root(visit, name)
    defaults, defaults_typed = await _find_defaults(visit, name)
    return await visit.render(
        "engine.html",
        title=f"Engine {name}",
        status=status,
        name=name,
        mount=mount,
        root=root,
        root_problem=root_problem,
        limits=LIMITS,
        limits_typed={**typed_of(mount, LIMITS), **typed} if mount is not None else typed,
        defaults=DEFAULTS if defaults is not None else (),
        defaults_typed={**defaults_typed, **typed},
        problems=problems,
    )


async def _find_mount(visit: Visit, name: str) -> pb.Mount | None:
    mounts = await visit.list_mounts()
    for one in mounts:
        if one.mount == name:
            return one
    if mounts:
        # The call refuses as every other one would: the name is wrong, or nothing has it.
        request = pb.GetLeaseDefaultsRequest(mount=name)
        await visit.call("ConfigService.GetLeaseDefaults", request, pb.GetLeaseDefaultsResponse)
    return None


async def find_stored_root(visit: Visit, mount: str) -> tuple[pb.RootConfig | None, str]:
    """Return the root of an engine, or None and why it can't be shown."""
    try:
        answer = await visit.call("ConfigService.GetRoot", pb.GetRootRequest(mount=mount), pb.GetRootResponse)
    except CallRefused as failed:
        if failed.kind is ErrorKind.DENIED:
            return None, "denied"
        if failed.kind is ErrorKind.PRECONDITION:
            return None, "not set"
        raise
    return answer.config, ""


async def _find_defaults(
    visit: Visit, mount: str
) -> tuple[pb.GetLeaseDefaultsResponse | None, dict[str, str]]:
    request = pb.GetLeaseDefaultsRequest(mount=mount)
    method = "ConfigService.GetLeaseDefaults"
    answer = await visit.call_if_allowed(method, request, pb.GetLeaseDefaultsResponse)
    return answer, {} if answer is None else typed_of(answer, DEFAULTS)


async def tune_engine(visit: Visit) -> StreamResponse:
    """Change an engine's limits."""
    name = visit.path["mount"]
    mask = FieldMask(paths=[one.name for one in LIMITS])
    request = pb.TuneMountRequest(mount=name, update_mask=mask)
    if problems := fill_form(request, LIMITS, visit.typed):
        return await render_engine(visit, dict(visit.typed), problems, HTTPStatus.BAD_REQUEST)
    try:
        await visit.call("ConfigService.TuneMount", request, pb.TuneMountResponse)
    except CallRefused as failed:
        problems = _problems(failed, visit)
        return await render_engine(visit, dict(visit.typed), problems, http_status(failed.kind))
    return visit.go(page_link("engines", name), f"Saved the limits of {name}.")


async def save_lease_defaults(visit: Visit) -> StreamResponse:
    """Change an engine's lease defaults."""
    name = visit.path["mount"]
    request = pb.SetLeaseDefaultsRequest(mount=name)
    if problems := fill_form(request, DEFAULTS, visit.typed):
        return await render_engine(visit, dict(visit.typed), problems, HTTPStatus.BAD_REQUEST)
    try:
        await visit.call("ConfigService.SetLeaseDefaults", request, pb.SetLeaseDefaultsResponse)
    except CallRefused as failed:
        problems = _problems(failed, visit)
        return await render_engine(visit, dict(visit.typed), problems, http_status(failed.kind))
    return visit.go(page_link("engines", name), f"Saved the lease defaults of {name}.")


async def ask_to_disable(visit: Visit) -> StreamResponse:
    """Ask whether to disable an engine, and say what that ends."""
    return await _render_disable(visit, "")


async def _render_disable(visit: Visit, problem: str, status: HTTPStatus = HTTPStatus.OK) -> StreamResponse:
    name = visit.path["mount"]
    return await visit.render(
        "engine_disable.html",
        title=f"Disable {name}",
        status=status,
        name=name,
        live=await count_live_leases(visit, f"{name}/"),
        problem=problem,
    )


async def count_live_leases(visit: Visit, prefix: str) -> int | None:
    """Return how many leases under a prefix have not ended; None if the person may not count them."""
    request = lease_pb2.CountLeasesRequest(prefix=prefix)
    answer = await visit.call_if_allowed("LeaseService.CountLeases", request, lease_pb2.CountLeasesResponse)
    if answer is None:
        return None
    ended = (lease_pb2.Lease.GONE, lease_pb2.Lease.ABANDONED)
    return sum(one.count for one in answer.counts if one.state not in ended)


async def disable_engine(visit: Visit) -> StreamResponse:
    """Disable an engine, once its name was typed."""
    name = visit.path["mount"]
    if visit.typed.get("confirm", "").strip() != name:
        problem = f"is not the engine's name; type {name} to disable it"
        return await _render_disable(visit, problem, HTTPStatus.BAD_REQUEST)
    request = pb.DisableMountRequest(mount=name, force=bool(visit.typed.get("force")))
    answer = await visit.call("ConfigService.DisableMount", request, pb.DisableMountResponse)
    left = answer.leases_left
    what = "abandoned" if request.force else "still to revoke"
    return visit.go("/engines", f"Disabling {name}: {left} {'lease' if left == 1 else 'leases'} {what}.")


def _problems(failed: CallRefused, visit: Visit) -> list[FormProblem]:
    names = {one.name for one in (*NEW, *DEFAULTS)}
    return form_problems(failed, names, visit.typed)
