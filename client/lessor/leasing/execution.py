"""Runs a program with credentials: issues, starts it, keeps the credentials valid, and revokes at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from lessor.channel import BadConnection
from lessor.errors import Error
from lessor.leases import setback_of
from lessor.leasing.child import SIGNALLED, Signals, exit_code_of, start_child
from lessor.leasing.endpoint import Endpoint, Reply, draw_token, own_host
from lessor.leasing.environment import NO_FILE, Passed, hidden_files, with_endpoint, with_keys
from lessor.leasing.issued import Issued, Order
from lessor.leasing.notes import Holder, Note, dead_notes
from lessor.leasing.refreshed import REVOKE_SECONDS, Plan, RefreshedLease, Tools
from lessor.refresh import NO_TIME, SDK_LEFT, Setback

CLEAN_SECONDS: Final = 5.0
"""How long the revocation of leases of dead processes may delay the end."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to run, and with which credentials.

    Attributes:
        order: The credentials.
        words: The program and its arguments.
        environ: The environment of this process.
        passed: What the program gets beside the credentials.
        uses_endpoint: Whether it asks an endpoint; None: if the credentials are a session.
        keeps: Whether the lease stays active at the end.
        notes: Folder of the notes, and where the leases are held; None: no notes are written.
    """

    order: Order
    words: Sequence[str]
    environ: Mapping[str, str] = field(repr=False)
    passed: Passed
    uses_endpoint: bool | None = None
    keeps: bool = False
    notes: tuple[Path, Holder] | None = None


async def execute(job: Job, tools: Tools) -> int:
    """Run a program and return its exit code.

    Raises:
        Error: No credentials were issued, and nothing was started.
        NotStarted: The program could not be started; the lease is revoked.
    """
    signals = Signals()
    note = None if job.keeps or job.notes is None else _create_note(*job.notes, tools)
    lease = RefreshedLease(
        Plan(job.order), tools, lambda one: note.write(one.leases) if note is not None else None
    )
    with signals.handled():
        try:
            issued = await _issue(lease, signals)
            if issued is None or signals.ended_by:
                return SIGNALLED + signals.ended_by
            return await _run(job, tools, lease, signals)
        finally:
            if not job.keeps:
                with signals.hastens(lambda: setattr(lease, "hurried", True)):
                    await lease.revoke_all(REVOKE_SECONDS)
            if note is not None:
                note.close(remove=not lease.leases)


async def _issue(lease: RefreshedLease, signals: Signals) -> Issued | None:
    """Issue the first credentials; None if a signal ends that."""
    task = asyncio.current_task()
    assert task is not None
    with signals.ends(task.cancel):
        try:
            return await lease.issue_first()
        except asyncio.CancelledError:
            if signals.ended_by and task.uncancel() == 0:
                return None
            raise


async def _run(job: Job, tools: Tools, lease: RefreshedLease, signals: Signals) -> int:
    """Start the program and wait for its end, while the credentials are kept valid."""
    issued = lease.current
    assert issued is not None
    if not issued.usable:
        tools.report("warning: AWS has not accepted the key in time; the first calls may be refused")
    uses_endpoint = issued.is_session if job.uses_endpoint is None else job.uses_endpoint
    min_left = SDK_LEFT if uses_endpoint else NO_TIME
    lease.plan = replace(lease.plan, min_left=min_left, reissues=uses_endpoint)
    async with _environment(job, tools, lease, uses_endpoint=uses_endpoint) as environment:
        child = await start_child(job.words, environment)
        with signals.passed_to(child):
            async with asyncio.TaskGroup() as group:
                refreshing = group.create_task(_refresh(lease, tools))
                cleaning = group.create_task(_clean(job, tools))
                returned = await child.wait()
                refreshing.cancel()
                await asyncio.wait([cleaning], timeout=CLEAN_SECONDS)
                cleaning.cancel()
    return exit_code_of(returned)


async def _refresh(lease: RefreshedLease, tools: Tools) -> None:
    """Keep the credentials valid; an unexpected error must not end the wait for the program."""
    try:
        await lease.run()
    except Exception as error:  # noqa: BLE001 - reported; the program goes on with the current credentials
        tools.report(f"warning: the credentials are no longer refreshed: {type(error).__name__}: {error}")


async def _clean(job: Job, tools: Tools) -> None:
    """Revoke what dead processes left; an unexpected error must not end the wait for the program."""
    try:
        await revoke_of_the_dead(job.notes, tools)
    except Exception as error:  # noqa: BLE001 - reported; the next process tries again
        tools.report(f"warning: leases of dead processes are left: {type(error).__name__}: {error}")


@asynccontextmanager
async def _environment(
    job: Job, tools: Tools, lease: RefreshedLease, *, uses_endpoint: bool
) -> AsyncIterator[dict[str, str]]:
    """Yield the environment of the program; its endpoint is served during the block."""
    issued = lease.current
    assert issued is not None
    if not uses_endpoint:
        yield with_keys(job.environ, job.passed, issued)
        return
    warn_if_short(lease, tools)
    for name in hidden_files(job.environ):
        tools.report(f"warning: {name} is {NO_FILE} for the program: its default profile has credentials")
    path = f"/creds/{job.order.mount}/{job.order.role}"
    token = draw_token()

    def answer(asked: str) -> Reply:
        if asked != path:
            return Reply.refuse(404, "NotFound", f"only {path} is served")
        return reply_with(lease, tools)

    async with Endpoint(token, answer).listen("127.0.0.1", 0, own_host) as port:
        url = f"http://127.0.0.1:{port}{path}"
        yield with_endpoint(job.environ, job.passed, issued, url, token)


def warn_if_short(lease: RefreshedLease, tools: Tools) -> None:
    """Warn once of a lifetime with which SDKs ask the endpoint at each request."""
    if lease.current is not None and lease.current.term.ttl < SDK_LEFT:
        seconds = int(lease.current.term.ttl.total_seconds())
        tools.report(
            f"warning: role {lease.plan.order.role} grants {seconds}s; AWS's SDKs ask again at each request "
            "while less than 15 minutes are left"
        )


def reply_with(lease: RefreshedLease, tools: Tools) -> Reply:
    """Return the credentials of a lease, or that there are none now."""
    issued = lease.current
    if issued is None or issued.term.left(tools.clock.now()) <= NO_TIME:
        return Reply.refuse(503, "NotReady", "there are no valid credentials now; try again")
    return Reply(200, issued.container_object())


async def revoke_of_the_dead(notes: tuple[Path, Holder] | None, tools: Tools) -> None:
    """Revoke the leases of programs that were killed, as far as this caller issued them at this server."""
    if notes is None:
        return
    folder, holder = notes
    for note in dead_notes(folder):
        done = False
        try:
            if note.holder == holder:
                done = all([await _revoke_one(lease_id, tools) for lease_id in note.lease_ids])
        finally:
            note.close(remove=done)


async def _revoke_one(lease_id: str, tools: Tools) -> bool:
    """Revoke a lease of a dead process, and return whether nothing is left to do."""
    try:
        await tools.server.revoke(lease_id, REVOKE_SECONDS)
    except (Error, BadConnection) as error:
        return setback_of(error) is Setback.LOST
    tools.report(f"revoked lease {lease_id} of a process that was killed")
    return True


def _create_note(folder: Path, holder: Holder, tools: Tools) -> Note | None:
    with suppress(OSError):
        return Note.create(folder, holder)
    tools.report(f"warning: {folder} can't be written; if this process is killed, its lease ends by itself")
    return None
