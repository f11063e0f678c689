"""Checks that an unexpected exception of a port ends only the unit of work that meets it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest

from lessor_server.domain.errors.base import ErrorKind, InternalError, LessorError
from lessor_server.domain.events import AccountPaused, AccountResumed, Issued, Reconciled, RevocationFailed
from lessor_server.domain.lease_id import IdRange
from lessor_server.domain.schedule import Schedule
from lessor_server.engine.supervisor import MAX_PAUSE_SECONDS, Supervisor
from tests.support import builders
from tests.support.engine_world import UnexpectedError, World, world
from tests.support.iam_faults import Fault
from tests.support.iam_faults import Kind as FaultKind
from tests.support.reports import Reports
from tests.support.rotating import put, rotate, rotating, row_of, set_root, static
from tests.support.virtual_loop import virtual

HOURS = 7200.0
ISSUE = (
    "load_issue_context",
    "begin",
    "CreateUser sent",
    "CreateUser done",
    "is_current",
    "CreateAccessKey sent",
    "activate",
)
REVOKE = ("claim", "claim_due", "get_root", "DeleteAccessKey sent", "DeleteUser sent", "finish", "reschedule")
BULK = (
    "prefixes",
    "mark_range_revoking",
    "close_prefix",
    "list_unfinished_of_removed_mounts",
    "remove_disabled",
    "list_mounts",
)
SWEEP = ("mount_names", "ListUsers sent", "leases_by_user_name", "page", "purge_tombstones")
CLOCKS = ("list_due_within", "status")
ROTATE = (
    "next_rotation_us",
    "claim_rotations",
    "move_rotation IDLE",
    "move_rotation INTENDED",
    "ListAccessKeys sent",
    "UpdateAccessKey sent",
)
POINTS = (*ISSUE, *REVOKE, *BULK, *SWEEP, *CLOCKS, *ROTATE)


async def attempt(w: World, role: str = "app") -> None:
    """Issue a credential; a failure is an error for the caller."""
    answer = await w.attempt(role)
    if isinstance(answer, LessorError) and answer.kind is ErrorKind.INTERNAL:
        assert "reference report-" in answer.message


async def live(w: World) -> None:
    """Do some of everything that the engine does."""
    w.aws.faults.add(Fault(FaultKind.REFUSE, "DeleteUser", nth=1))
    await attempt(w)
    try:
        await w.engine.prefixes.accept(IdRange("aws/creds/app/", "aws/creds/app0"), "test")
        await w.engine.mount_remover.disable("left", force=False, by="test")
        await rotate(w)
    except (LessorError, UnexpectedError):
        pass  # it is the answer of that one call
    await attempt(w, "slow")


@pytest.mark.parametrize("point", POINTS)
@virtual
async def test_an_exception_of_a_port_ends_only_its_unit_of_work(point: str) -> None:
    """The engine does not retry in a busy loop, and catches up when the port works again."""
    async with rotating(role=builders.role(default_ttl=timedelta(seconds=90))) as w:
        await w.engine.mounts.enable(builders.mount("left"), "test")
        await w.put_role(builders.role("slow", default_ttl=timedelta(minutes=30)))
        await put(w, static(period=600.0))
        await w.issue()
        w.points.passed.clear()
        w.points.broken.add(point)
        await live(w)
        await asyncio.sleep(HOURS)
        met = w.points.passed.count(point)
        w.points.broken.clear()
        assert w.reports.take() != [], f"{point} was passed {met} times"
        assert 0 < met < HOURS / 5, f"{point} was passed {met} times in {HOURS:g} s"
        await w.issue(ttl=60)
        await w.until_gone(seconds=1800)
        await asyncio.sleep(1800)
        assert [user for user in w.users() if user.startswith("lessor")] == []
        assert "left" not in {mount.name for mount in await w.engine.mounts.list("", 10)}
        assert w.reports.take() == []


@pytest.mark.parametrize("point", ["mount_names", "get_rotation", "prefixes", "list_due_within", "claim_due"])
@virtual
async def test_a_part_that_fails_at_a_start_is_retried(point: str) -> None:
    async with rotating() as w:
        await w.issue(ttl=900)
        await w.engine.prefixes.accept(IdRange("aws/creds/other/", "aws/creds/other0"), "test")
        stored = w.store.roots["aws"]
        await set_root(w, rotation_period=timedelta(hours=5))
        await w.kill()
        del w.store.rotations["aws/root"]
        w.points.broken.add(point)
        await w.start()
        await asyncio.sleep(120)
        w.points.broken.clear()
        assert w.reports.take() != []
        await asyncio.sleep(900)
        assert w.states() != {}
        assert [user for user in w.users() if user.startswith("lessor")] == []
        assert (await row_of(w)).schedule == Schedule(timedelta(hours=5))
        assert w.store.open == []
        assert w.store.roots["aws"].version == stored.version + 1


@virtual
async def test_failing_parts_do_not_stop_the_others() -> None:
    async with world() as w:
        w.points.broken |= {
            "mount_names",
            "next_rotation_us",
            "list_unfinished_of_removed_mounts",
            "list_due_within",
            "status",
        }
        for _ in range(20):
            made = await w.issue(ttl=100)
            await asyncio.sleep(131)
            assert made.lease.footprint.user_name not in w.users()
        w.points.broken.clear()
        await w.events.until(Reconciled, seconds=3600)
        assert w.reports.take() != []


@virtual
async def test_an_unexpected_failure_of_an_issue_is_internal_and_undone() -> None:
    async with world() as w:
        w.points.broken.add("CreateAccessKey sent")
        answer = await w.attempt()
        assert isinstance(answer, InternalError)
        assert answer.message == f"internal error, reference {answer.reference}"
        w.points.broken.clear()
        await w.until_gone(seconds=60)
        assert w.users() == []
        assert w.reports.take() != []


@pytest.mark.parametrize("point", ["is_current", "activate", "activate done"])
@virtual
async def test_an_intent_whose_issue_fails_unexpectedly_is_revoked_within_seconds(point: str) -> None:
    async with world() as w:
        w.points.broken.add(point)
        assert isinstance(await w.attempt(), InternalError)
        w.points.broken.clear()
        await w.until_gone(seconds=10)
        assert w.users() == []
        assert w.events.of(Issued) == []
        w.reports.take()


@virtual
async def test_a_lease_whose_revocation_fails_unexpectedly_counts_its_attempts() -> None:
    """The account is not paused."""
    async with world() as w:
        made, other = await w.issue(), await w.issue()
        w.points.broken.add("DeleteUser sent")
        await w.revoke(made.lease.id)
        failed = await w.events.until(RevocationFailed)
        assert (failed.attempts, "reference report-" in failed.error) == (1, True)
        await asyncio.sleep(3600)
        assert 4 <= (await w.lease(made.lease.id)).attempts <= 40
        assert w.events.of(AccountPaused) == []
        w.points.broken.clear()
        await w.revoke(other.lease.id)
        assert other.lease.footprint.user_name not in w.users()
        w.reports.take()
        await w.until_gone()


@virtual
async def test_an_unexpected_failure_of_a_probe_does_not_keep_the_account_paused() -> None:
    async with world() as w:
        made = await w.issue()
        w.aws.away = True
        await w.revoke(made.lease.id, sync=False)
        await w.events.until(AccountPaused)
        w.aws.away = False
        w.points.broken |= {"GetUser sent", "get_root"}
        await asyncio.sleep(600)
        assert w.events.of(AccountResumed) == []
        w.points.broken.clear()
        await w.events.until(AccountResumed, seconds=60)
        await w.until_gone(seconds=60)
        assert w.reports.take() != []


@virtual
async def test_an_observer_that_raises_ends_nothing() -> None:
    async with world() as w:

        def broken(_: object) -> None:
            raise UnexpectedError("log")

        w.events.also = broken
        made = await w.issue(ttl=30)
        await asyncio.sleep(60)
        assert made.lease.footprint.user_name not in w.users()
        assert {place.partition(" ")[0] for place in w.reports.take()} == {"observer"}
        w.events.also = None


@virtual
async def test_one_mount_with_an_unreadable_root_does_not_stop_the_others() -> None:
    async with world() as w:
        await w.engine.mounts.enable(builders.mount("aaa"), "test")
        await w.set_root("aaa", builders.OTHER_ROOT_KEY)
        stored = w.store.roots["aaa"]
        w.store.roots["aaa"] = type(stored)("aaa", b"roots/aaa\0{not json", stored.account, 2, "new")
        made = await w.issue(ttl=600)
        await w.kill()
        await w.start()
        assert (await w.events.until(Reconciled)).mount == "aws"
        await asyncio.sleep(700)
        assert made.lease.footprint.user_name not in w.users()
        assert "open the root of aaa" in w.reports.take()


# --- the supervisor alone -----------------------------------------------------------------------------


@virtual
async def test_a_part_that_always_fails_is_restarted_with_growing_delays() -> None:
    """Up to 30 s. A minute of work resets the delay."""
    reports, starts = Reports(), list[float]()
    loop = asyncio.get_running_loop()

    async def fail() -> None:
        starts.append(loop.time())
        if len(starts) == 9:
            await asyncio.sleep(100)
        raise UnexpectedError("part")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(Supervisor(reports).keep_running(fail))
        await asyncio.sleep(400)
        task.cancel()
    pauses = [later - earlier for earlier, later in pairwise(starts)]
    assert pauses[:7] == [1.0, 2.0, 4.0, 8.0, 16.0, MAX_PAUSE_SECONDS, MAX_PAUSE_SECONDS]
    assert pauses[8:10] == [101.0, 2.0]
    assert reports.take()[0].endswith("fail")


@virtual
async def test_an_unexpected_cancellation_is_an_exception_like_others() -> None:
    reports, ran = Reports(), list[int]()

    async def wait() -> None:
        ran.append(1)
        future = asyncio.get_running_loop().create_future()
        if len(ran) == 1:
            future.cancel()
        await future

    async with asyncio.TaskGroup() as group:
        task = group.create_task(Supervisor(reports).keep_running(wait))
        await asyncio.sleep(10)
        assert (len(ran), len(reports.take())) == (2, 1)
        task.cancel()
    assert task.cancelled()
    assert reports.made == []


@virtual
async def test_an_error_of_ours_is_not_reported() -> None:
    """It is an answer. Where no caller waits for the result it is reported."""
    reports = Reports()
    supervisor = Supervisor(reports)
    with pytest.raises(LessorError, match="expected"), supervisor.unit("test"):
        raise LessorError("expected")
    assert reports.made == []

    async def job() -> None:
        raise LessorError("nobody waits")

    await supervisor.run_once("job", job())
    assert reports.take() == ["job"]
