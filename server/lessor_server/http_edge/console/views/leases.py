"""Leases: search, look up, renew and revoke them, one or all under a prefix."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from aiohttp.web import StreamResponse

from lessor.v1 import lease_pb2 as pb
from lessor_server.domain.errors.base import ErrorKind, Invalid
from lessor_server.domain.lease_id import LeaseId
from lessor_server.http_edge.answers import http_status
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.console.answers import lease_link, page_link, redirect
from lessor_server.http_edge.console.forms import Control, ControlKind, FormProblem, fill_form
from lessor_server.http_edge.console.problems import form_problems
from lessor_server.http_edge.console.views.engines import count_live_leases
from lessor_server.http_edge.console.visit import Visit

STATES: Final = tuple(name for name in pb.Lease.State.keys() if name != "UNSPECIFIED")  # noqa: SIM118 - an enum
LIVE: Final = "live"
"""The filter that a page begins with: every state but GONE."""
PAGE: Final = 50
MAX_PAGES: Final = 20
"""The number of pages that are read for one page of live leases: most of them may have ended."""
RENEWAL: Final = (
    Control(
        "increment",
        "New lifetime",
        ControlKind.DURATION,
        "From now on, as in 1h. Empty means the same again.",
    ),
)
ACTIONS: Final = {
    "ACCEPTED": "The revocation is recorded, and retried until AWS acknowledges it.",
    "GONE": "Revoked. AWS has acknowledged that the key and the user are deleted.",
    "ALREADY_GONE": "The lease had ended before.",
    "UNKNOWN": "There is no such lease.",
    "FORGOTTEN": "The lease has ended, but AWS cannot end the session before it expires.",
}


def complete_prefix(text: str) -> str:
    """Return a prefix as the protocol has it: with its last slash, which people leave out."""
    if not text or text.endswith("/"):
        return text
    try:
        LeaseId.parse(text)
    except Invalid:
        steps = text.split("/")
        return f"{steps[0]}/creds/{steps[1]}/" if len(steps) == 2 and steps[1] != "creds" else f"{text}/"
    return text


async def show_leases(visit: Visit) -> StreamResponse:
    """List leases; a whole lease id leads to its page."""
    prefix = complete_prefix(visit.query("prefix").strip())
    if prefix and not prefix.endswith("/"):
        return redirect(lease_link(prefix))
    if not prefix:
        prefix = f"{await visit.find_mount()}/"
    state, owner = visit.query("state") or LIVE, visit.query("owner").strip()
    problems: list[FormProblem] = []
    leases: list[pb.Lease] = []
    next_page, status = "", HTTPStatus.OK
    try:
        leases, next_page = await _list_page(visit, prefix, state, owner)
    except CallRefused as failed:
        if failed.kind not in (ErrorKind.INVALID, ErrorKind.NOT_FOUND):
            raise
        problems, status = form_problems(failed, ("prefix", "state", "owner"), {}), http_status(failed.kind)
    return await visit.render(
        "leases.html",
        title="Leases",
        status=status,
        prefix=prefix,
        chosen=state,
        owner=owner,
        states=STATES,
        leases=leases,
        next_page=next_page,
        problems=problems,
        mounts=await visit.list_mount_names(),
        now=visit.person.server_time,
    )


async def _list_page(visit: Visit, prefix: str, state: str, owner: str) -> tuple[list[pb.Lease], str]:
    """Return a page of leases and the token of the next one; live leases may need several reads."""
    request = pb.ListLeasesRequest(prefix=prefix, owner=owner, page_size=PAGE, page_token=visit.query("page"))
    if state in STATES:
        request.state = pb.Lease.State.Value(state)
    found: list[pb.Lease] = []
    for _ in range(MAX_PAGES):
        answer = await visit.call("LeaseService.ListLeases", request, pb.ListLeasesResponse)
        found += [one for one in answer.leases if state != LIVE or one.state != pb.Lease.GONE]
        request.page_token = answer.next_page_token
        if not request.page_token or len(found) >= PAGE:
            break
    return found, request.page_token


async def show_lease(visit: Visit) -> StreamResponse:
    """Show a lease."""
    return await _render_lease(visit, visit.path["lease_id"], [])


async def _render_lease(
    visit: Visit, lease_id: str, problems: list[FormProblem], status: HTTPStatus = HTTPStatus.OK
) -> StreamResponse:
    request = pb.LookupLeaseRequest(lease_id=lease_id)
    answer = await visit.call("LeaseService.LookupLease", request, pb.LookupLeaseResponse)
    return await visit.render(
        "lease.html",
        title=f"Lease {lease_id}",
        status=status,
        lease=answer.lease,
        warnings=answer.warnings,
        controls=RENEWAL,
        typed=visit.typed,
        problems=problems,
        now=visit.person.server_time,
    )


async def renew_lease(visit: Visit) -> StreamResponse:
    """Renew a lease."""
    lease_id = visit.typed.get("lease_id", "")
    request = pb.RenewLeaseRequest(lease_id=lease_id)
    problems = fill_form(request, RENEWAL, visit.typed)
    if problems:
        return await _render_lease(visit, lease_id, problems, HTTPStatus.BAD_REQUEST)
    try:
        answer = await visit.call("LeaseService.RenewLease", request, pb.RenewLeaseResponse)
    except CallRefused as failed:
        if failed.kind in (ErrorKind.NOT_FOUND, ErrorKind.DENIED):
            raise
        problems = form_problems(failed, ("increment",), visit.typed)
        return await _render_lease(visit, lease_id, problems, http_status(failed.kind))
    until = f"{answer.expire_time.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"
    return visit.go(lease_link(lease_id), f"Renewed until {until}.", warnings=tuple(answer.warnings))


async def revoke_lease(visit: Visit) -> StreamResponse:
    """Revoke a lease, and wait for its first attempt."""
    lease_id = visit.typed.get("lease_id", "")
    request = pb.RevokeLeaseRequest(lease_id=lease_id, sync=True)
    answer = await visit.call("LeaseService.RevokeLease", request, pb.RevokeLeaseResponse)
    outcome = pb.RevokeLeaseResponse.Outcome.Name(answer.outcome)
    if outcome == "UNKNOWN":
        return visit.go("/leases", warnings=(ACTIONS[outcome],))
    failed = f"The first attempt failed: {answer.last_error}." if answer.last_error else ""
    return visit.go(lease_link(lease_id), ACTIONS[outcome], warnings=(failed,) if failed else ())


async def ask_to_revoke_prefix(visit: Visit) -> StreamResponse:
    """Say how many leases are under a prefix, and ask whether to revoke them."""
    prefix = complete_prefix(visit.query("prefix").strip())
    return await visit.render(
        "revoke_prefix.html",
        title="Revoke leases",
        prefix=prefix,
        live=await count_live_leases(visit, prefix),
        problem="",
    )


async def revoke_under_prefix(visit: Visit) -> StreamResponse:
    """Revoke all leases under a prefix; the answer comes once that is durable."""
    prefix = visit.typed.get("prefix", "")
    request = pb.RevokePrefixRequest(prefix=prefix)
    answer = await visit.call("LeaseService.RevokePrefix", request, pb.RevokePrefixResponse)
    return visit.go(page_link("leases", "revoking", prefix=prefix, of=str(answer.accepted)))


async def show_progress(visit: Visit) -> StreamResponse:
    """Show how far the revocation of a prefix is; the page renews itself until all are done."""
    prefix, text = visit.query("prefix"), visit.query("of")
    accepted = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    request = pb.CountLeasesRequest(prefix=prefix, state=pb.Lease.REVOKING)
    answer = await visit.call("LeaseService.CountLeases", request, pb.CountLeasesResponse)
    left = min(sum(one.count for one in answer.counts), accepted) if accepted else 0
    response = await visit.render(
        "revoking.html",
        title="Revoking leases",
        prefix=prefix,
        accepted=accepted,
        done=accepted - left,
        left=left,
    )
    if left:
        response.headers["Refresh"] = "2"
    return response


async def ask_to_abandon(visit: Visit) -> StreamResponse:
    """Ask whether to stop the attempts to revoke a lease."""
    lease_id = visit.query("lease_id")
    request = pb.LookupLeaseRequest(lease_id=lease_id)
    answer = await visit.call("LeaseService.LookupLease", request, pb.LookupLeaseResponse)
    return await visit.render("abandon.html", title="Abandon a lease", lease=answer.lease)


async def abandon_lease(visit: Visit) -> StreamResponse:
    """Stop the attempts to revoke a lease."""
    lease_id = visit.typed.get("lease_id", "")
    request = pb.AbandonLeasesRequest(lease_id=lease_id)
    await visit.call("LeaseService.AbandonLeases", request, pb.AbandonLeasesResponse)
    return visit.go(lease_link(lease_id), "Abandoned. Its user stays in AWS until somebody deletes it.")
