"""Kills the process at every point of an issue and of a revocation, and checks that nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta

import pytest

from lessor_server.domain.lease import State
from lessor_server.domain.lease_id import IdRange
from tests.support import builders
from tests.support.deaths import foremost, outermost, play, telling
from tests.support.engine_world import World, world
from tests.support.virtual_loop import run

ROLE = builders.role(iam_groups=("staff",), default_ttl=timedelta(minutes=5))
REQUEST = "11111111-1111-4111-8111-111111111111"
Story = Callable[[World], Coroutine[object, object, None]]
Choose = Callable[[list[str]], list[int]]


async def issue(w: World) -> None:
    """Issue one credential that is not renewed."""
    await w.attempt()


async def issue_and_revoke(w: World) -> None:
    """Issue one and revoke it, waiting for its end."""
    made = await w.issue()
    await w.revoke(made.lease.id)


async def issue_and_expire(w: World) -> None:
    """Issue one and let it expire."""
    await w.issue(ttl=10)
    await w.until_gone()


async def refused_halfway(w: World) -> None:
    """Issue one whose group AWS does not know, and wait until it is undone."""
    await w.put_role(builders.role("lost", iam_groups=("nowhere",)))
    await w.attempt(role="lost")
    await w.until_gone()


async def issue_and_repeat(w: World) -> None:
    """Issue one and ask for it again by its request id: a fresh key, and the old one goes."""
    await w.issue(ttl=20, request=REQUEST)
    await w.issue(ttl=20, request=REQUEST)


async def session(w: World) -> None:
    """Issue a session and let it expire."""
    await w.put_role(builders.assumed(w.iam.add_role("target").arn))
    await w.issue(role="assumed", ttl=900)
    await w.until_gone()


async def session_and_repeat(w: World) -> None:
    """Issue a session, ask for it again by its request id, and forget it."""
    await w.put_role(builders.assumed(w.iam.add_role("target").arn))
    made = await w.issue(role="assumed", request=REQUEST)
    await w.issue(role="assumed", request=REQUEST)
    await w.revoke(made.lease.id)


async def issue_and_prefix(w: World) -> None:
    """Issue two and revoke all that there is, following it to its end."""
    await w.issue()
    await w.issue()
    prefix, accepted = await w.engine.prefixes.accept(IdRange("aws/", "aws0"), "bob")
    async for _ in w.engine.prefixes.follow(prefix, accepted):
        pass


async def points_of(story: Story) -> list[str]:
    """Return the points that a story passes when nothing dies."""
    async with world(role=ROLE) as w:
        w.points.passed.clear()
        await play(w, story(w))
        return list(w.points.passed)


async def die_at(index: int, story: Story, seed: int, late: float | None) -> str:
    """Play a story, die at one of its points, start again; return the point's name. All must be gone."""
    async with world(role=ROLE, seed=seed) as w:
        w.points.passed.clear()
        w.points.die_at = index
        w.aws.arrives_late = late
        playing = await play(w, story(w))
        died_at = w.points.passed[index]
        await w.kill()
        assert playing.done()
        assert playing.cancelled() or playing.exception() is None
        w.aws.arrives_late = None
        await asyncio.sleep(20)
        await w.start()
        await asyncio.sleep(late or 0)  # all that the dead process sent has arrived
        await until_nothing_is_left(w, f"a death at {index}, {died_at}")
        return died_at


async def until_nothing_is_left(w: World, what: str) -> None:
    """Wait until no user and no live lease is left; fail if some are after an hour.

    Nothing comes back later, because only calls on their way create users.
    """
    for _ in range(60):
        await asyncio.sleep(60)
        if not w.users() and set(w.states().values()) <= {State.GONE}:
            return
    raise AssertionError(f"{w.users()} and {w.states()} are left after {what}")


STORIES = [
    *(issue, issue_and_revoke, issue_and_expire, refused_halfway, issue_and_repeat, issue_and_prefix),
    *(session, session_and_repeat),
]
QUICK = {
    *((issue, None), (issue_and_revoke, None), (session, None)),
}


def deaths() -> Iterator[object]:
    """Yield each story with what is lost at the death or arrives 14 minutes after it, and the points to try.

    Of each name these are the first and the last point if all is lost, and the first if it arrives late.
    Under fire they are more: of the repeated reads of an idle process the first six.
    """
    for story in STORIES:
        for late, name, choose in ((None, "lost", outermost), (14 * 60.0, "late", foremost)):
            marks = () if (story, late) in QUICK else pytest.mark.slow
            yield pytest.param(story, late, choose, id=f"{story.__name__}-{name}", marks=marks)
            more = f"{story.__name__}-{name}-more"
            yield pytest.param(story, late, telling, id=more, marks=pytest.mark.fire)


@pytest.mark.parametrize(("story", "late", "choose"), list(deaths()))
def test_a_death_at_any_point_leaves_nothing(story: Story, late: float | None, choose: Choose) -> None:
    """A call may still take effect after the death."""
    points = run(points_of(story))
    died = {run(die_at(index, story, 0, late)) for index in choose(points)}
    assert died == set(points)


def test_every_call_and_commit_of_an_issue_is_a_point() -> None:
    """So that the tests above try a death before and after each."""
    points = run(points_of(issue_and_revoke))
    for action in ("CreateUser", "CreateAccessKey", "PutUserPolicy", "AddUserToGroup", "DeleteUser"):
        assert {f"{action} sent", f"{action} done"} <= set(points)
    for commit in ("begin", "activate", "revoke", "claim", "finish"):
        assert {commit, f"{commit} done"} <= set(points)
    repeat = run(points_of(issue_and_repeat))
    assert repeat.count("CreateAccessKey done") == 2
    assert {"replace_key", "replace_key done", "DeleteAccessKey sent", "DeleteAccessKey done"} <= set(repeat)
    assert {"open_prefix done", "put_up done", "close_prefix done"} <= set(run(points_of(issue_and_prefix)))


@pytest.mark.slow
def test_two_deaths_in_a_row_leave_nothing() -> None:
    async def twice(first: int, second: int) -> None:
        async with world(role=ROLE) as w:
            for die in (first, second):
                w.points.passed.clear()
                w.points.reached.clear()
                w.points.die_at = die
                if not w.states():
                    asyncio.get_running_loop().create_task(issue(w))
                await w.points.reached.wait()
                await w.kill()
                await w.start()
            await until_nothing_is_left(w, f"deaths at {first} and {second}")

    for first in range(8, 24, 3):
        for second in range(2, 14, 2):
            run(twice(first, second))
