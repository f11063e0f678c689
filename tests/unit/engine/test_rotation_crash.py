"""Kills the process and loses answers at every point of a rotation, and checks that one root key is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.root import Hop
from lessor_server.domain.rotation import Phase, root_subject, static_subject
from lessor_server.domain.schedule import Schedule
from lessor_server.domain.static_role import StaticRole
from tests.support import builders
from tests.support.deaths import foremost, outermost, play, telling
from tests.support.engine_world import OTHER_ACCOUNT, World, world
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import run

Story = Callable[[World], Coroutine[object, object, None]]
Choose = Callable[[list[str]], list[int]]
USER = "billing"
LONG = Schedule(timedelta(days=7))
MINUTES = 20
"""Until all is settled, at the latest, and how soon a rotation must be due to be waited for."""


async def root_on_demand(w: World) -> None:
    """Rotate the root, and let the old key go."""
    await w.engine.root_keys.rotate("aws", "test", delete_other_key=False)
    await asyncio.sleep(90)


async def root_by_period(w: World) -> None:
    """Let the end of the root's period come."""
    await asyncio.sleep(9 * 60)


async def root_whose_answer_is_lost(w: World) -> None:
    """Rotate the root while the answer that brings the new key is lost."""
    w.aws.faults.add(Fault(Kind.LOSE, "CreateAccessKey", nth=1))
    await w.engine.root_keys.rotate("aws", "test", delete_other_key=False)
    await asyncio.sleep(90)


async def root_of_a_chain(w: World) -> None:
    """Rotate a root that goes on by two roles into another account, and issue while the old key goes."""
    await w.engine.root_keys.rotate("aws", "test", delete_other_key=False)
    await w.issue()
    await asyncio.sleep(90)


async def root_that_is_not_proven(w: World) -> None:
    """Rotate the root to a key that AWS does not accept for a minute."""
    w.aws.faults.add(Fault(Kind.REFUSE, "VerifyKey", times=400))
    await w.engine.root_keys.rotate("aws", "test", delete_other_key=False)


async def static_two_keys(w: World) -> None:
    """Put a static role and rotate it twice: two keys live."""
    await w.engine.static_roles.put(_static(2), "test", delete_other_key=False)
    for _ in range(2):
        await w.engine.static_roles.rotate("aws", USER, "test", delete_other_key=False)


async def static_one_key(w: World) -> None:
    """Put a static role and rotate it: one key lives."""
    await w.engine.static_roles.put(_static(1), "test", delete_other_key=False)
    await w.engine.static_roles.rotate("aws", USER, "test", delete_other_key=False)


async def static_put_and_deleted(w: World) -> None:
    """Put a static role, rotate it, and forget it while a key is being made."""
    await w.engine.static_roles.put(_static(2), "test", delete_other_key=False)
    w.aws.faults.add(Fault(Kind.HANG, "CreateAccessKey", times=2))
    try:
        await w.engine.static_roles.rotate("aws", USER, "test", delete_other_key=False)
    except LessorError:
        await w.engine.static_roles.delete("aws", USER, "test")


async def static_deleted(w: World) -> None:
    """Put a static role, rotate it, and delete it: both its keys go."""
    await static_two_keys(w)
    await w.engine.static_roles.delete("aws", USER, "test")


ROOTS = [root_on_demand, root_by_period, root_whose_answer_is_lost, root_of_a_chain, root_that_is_not_proven]
STORIES = [*ROOTS, static_two_keys, static_one_key, static_put_and_deleted, static_deleted]


def _static(live_keys: int) -> StaticRole:
    return StaticRole("aws", USER, USER, LONG, live_keys)


async def prepared(story: Story, w: World) -> None:
    """Make the root's user real, and a user for the static role; let most of a period pass."""
    w.iam.adopt_root(builders.ROOT_KEY)
    w.iam.create_user(USER)
    if story is root_of_a_chain:
        hub, spoke = w.iam.add_role("hub").arn, w.iam.peer(OTHER_ACCOUNT).add_role("spoke").arn
        chained = builders.root_config(assume_chain=(Hop(hub), Hop(spoke)))
        await w.engine.mounts.set_root("aws", "", lambda _: chained, "test")
    await w.issue()
    if story is root_by_period:
        config = builders.root_config(rotation_period=timedelta(hours=1))
        await w.engine.mounts.set_root("aws", "", lambda _: config, "test")
        await asyncio.sleep(60)
        subject = root_subject("aws")
        soon = w.store.rotations[subject].due_us - 52 * 60 * 1_000_000  # most of the period has passed
        w.store.rotations[subject] = replace(w.store.rotations[subject], due_us=soon, next_us=soon)
    w.points.passed.clear()


async def points_of(story: Story) -> list[str]:
    """Return the points that a story passes when nothing goes amiss."""
    async with world() as w:
        await prepared(story, w)
        await play(w, attempt(story, w))
        assert "CreateAccessKey done" in w.points.passed  # there was a rotation
        return list(w.points.passed)


async def attempt(story: Story, w: World) -> None:
    """Run a scenario; refusals are ignored."""
    with suppress(LessorError):
        await story(w)


async def die_at(index: int, story: Story, late: float | None) -> str:
    """Play a story, die at one of its points, start again; return the point's name."""
    async with world() as w:
        await prepared(story, w)
        w.points.die_at, w.aws.arrives_late = index, late
        await play(w, attempt(story, w))
        name = w.points.passed[index]
        await w.kill()
        w.aws.arrives_late = None
        await asyncio.sleep(20)
        await w.start()
        await asyncio.sleep(late or 0)  # all that the dead process sent has arrived
        await settled(w, f"a death at {index}, {name}")
        return name


async def lose_at(index: int, story: Story) -> str:
    """Run a scenario, and lose the answer at one of its points; return the point's name."""
    async with world() as w:
        await prepared(story, w)
        w.points.lose_at = index
        await (await play(w, attempt(story, w)))
        await settled(w, f"no answer at {index}, {w.points.passed[index]}")
        return w.points.passed[index]


async def fail_and_die(number: int, kind: Kind, story: Story) -> None:
    """Play a story in which one call meets a fault, and die when it has ended."""
    async with world() as w:
        await prepared(story, w)
        w.aws.faults.add(Fault(kind, nth=number))
        await attempt(story, w)
        await w.kill()
        await w.start()
        await rotations_rest(w)
        w.aws.faults.clear()  # one that no call has met
        await settled(w, f"{kind.value} at call {number}")


async def lose_and_die(first: int, second: int, story: Story) -> None:
    """Run a scenario that loses the answer at one point, and dies at a later one, or two minutes later."""
    async with world() as w:
        await prepared(story, w)
        w.points.lose_at = first
        playing = asyncio.get_running_loop().create_task(attempt(story, w))
        await w.points.reached.wait()
        w.points.reached.clear()
        w.points.die_at = second
        with suppress(TimeoutError):
            async with asyncio.timeout(120):
                await w.points.reached.wait()
        what = (
            f"no answer at {first}, {w.points.passed[first]}, and a death at {second}, {w.points.passed[-1]}"
        )
        await w.kill()
        assert playing.done()
        await w.start()
        await settled(w, what)


async def rotations_rest(w: World) -> None:
    """Wait until no rotation has anything to do soon, for 20 minutes at most."""
    for _ in range(MINUTES):
        await asyncio.sleep(60)
        soon = w.clocks.wall_us() + MINUTES * 60_000_000
        if not any(
            one.phase is not Phase.IDLE or 0 < one.due_us < soon for one in w.store.rotations.values()
        ):
            return


async def settled(w: World, what: str) -> None:
    """Wait until rotations rest; then each user has the keys that are known, and they work."""
    await rotations_rest(w)
    config = (await w.engine.mounts.get_root("aws")).config
    keys = {user.name: dict(user.keys) for user in w.iam.users.values()}
    assert set(keys["root-of-lessor"]) == {config.access_key}, f"after {what}"
    if config.access_key != builders.ROOT_KEY:
        assert keys["root-of-lessor"][config.access_key].secret == config.secret_key.reveal()
    await w.issue()
    row = await w.store.get_rotation(static_subject("aws", USER))
    if row is not None:
        assert {row.current} <= set(keys[USER]) <= {row.current, row.previous}, f"after {what}"
        credentials = await w.engine.static_roles.credentials("aws", USER, "test")
        assert keys[USER][credentials.access_key_id].secret == credentials.secret.reveal()
    else:
        assert keys[USER] == {}, f"after {what}"
    for one in w.store.rotations.values():
        assert (one.phase, one.last_check_us, one.fresh_sealed) == (Phase.IDLE, 0, b""), f"after {what}"


def cases(*quick: Story) -> list[object]:
    """Return each story with the points to try, since each point is a world of its own.

    They are the first and the last of each name for those that are ``quick``, and the first for the others,
    which are slow; under fire they are more of all.
    """
    return [
        pytest.param(story, choose, id=f"{story.__name__}-{choose.__name__}", marks=marks)
        for story in STORIES
        for choose, marks in (
            (outermost, () if story in quick else pytest.mark.fire),
            (telling, pytest.mark.fire),
            *(() if story in quick else ((foremost, pytest.mark.slow),)),
        )
    ]


@pytest.mark.parametrize(("story", "choose"), cases(static_one_key))
def test_a_death_at_any_point_leaves_one_key(story: Story, choose: Choose) -> None:
    points = run(points_of(story))
    assert {run(die_at(index, story, None)) for index in choose(points)} == set(points)


@pytest.mark.slow
@pytest.mark.parametrize("choose", [outermost, pytest.param(telling, marks=pytest.mark.fire)])
@pytest.mark.parametrize("story", [root_on_demand, static_deleted])
def test_late_requests_of_a_dead_process_leave_one_key(story: Story, choose: Choose) -> None:
    """They may take effect 14 minutes after the death."""
    points = run(points_of(story))
    assert {run(die_at(index, story, 14 * 60.0)) for index in choose(points)} == set(points)


@pytest.mark.parametrize(("story", "choose"), cases(root_on_demand))
def test_a_lost_answer_at_any_point_leaves_one_key(story: Story, choose: Choose) -> None:
    points = run(points_of(story))
    assert {run(lose_at(index, story)) for index in choose(points)} == set(points)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, id=kind.value, marks=() if kind is Kind.LOSE else pytest.mark.slow)
        for kind in Kind
        if kind is not Kind.DELAY
    ],
)
def test_any_failure_of_any_call_followed_by_a_death_leaves_one_key(kind: Kind) -> None:
    for story in (root_on_demand, static_one_key):
        for number in range(1, 18):
            run(fail_and_die(number, kind, story))


@pytest.mark.slow
@pytest.mark.parametrize("story", [root_on_demand, static_two_keys])
@pytest.mark.parametrize("steps", [(6, 8), pytest.param((2, 3), marks=pytest.mark.fire)])
def test_a_death_at_any_point_after_a_lost_answer_leaves_one_key(
    story: Story, steps: tuple[int, int]
) -> None:
    points = run(points_of(story))
    for first in range(0, len(points), steps[0]):
        for second in range(first + 1, first + 40, steps[1]):
            run(lose_and_die(first, second, story))


def test_every_effect_of_a_rotation_is_a_point() -> None:
    """So that the tests above try a death around each call and each commit."""
    points = set(run(points_of(root_on_demand)))
    for action in ("ListAccessKeys", "CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey"):
        assert {f"{action} sent", f"{action} done"} <= points
    for phase in (Phase.INTENDED, Phase.MADE, Phase.RETIRING, Phase.IDLE):
        moved = "switch_root" if phase is Phase.RETIRING else f"move_rotation {phase.value}"
        assert {moved, f"{moved} done"} <= points
    dropped = set(run(points_of(root_that_is_not_proven)))
    assert {"move_rotation DROPPING", "move_rotation DROPPING done"} <= dropped
