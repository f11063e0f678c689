"""Runs each scenario once for every outcome of every effect, and for every pair of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tests.simulation.options import Options
from tests.simulation.points import Fate, Points
from tests.simulation.run import Result, calm, in_world
from tests.simulation.scenarios import SCENARIOS, Scenario, Stage
from tests.simulation.workload import Workload
from tests.simulation.world import World

SEEN, UNSEEN = Options(), Options(seed=2, visible=25.0)
"""A world where AWS shows each user at once, and one where it takes up to 25 s."""
PAIRED = ("issue", "revoke")
PAIR_SECONDS = 60.0
"""How long after the scenario a second effect may meet its fate."""


@dataclass(frozen=True, slots=True)
class Played:
    """One scenario with its outcomes, the effects that had them, and the result."""

    scenario: str
    fates: Mapping[int, Fate]
    names: tuple[str, ...]
    result: Result

    def __str__(self) -> str:
        """Return which effects had which outcomes."""
        met = [f"{self.names[index]} ({fate.value})" for index, fate in self.fates.items()]
        return f"{self.scenario}: {', then '.join(met) or 'nothing amiss'}"


def play(
    scenario: Scenario, fates: Mapping[int, Fate], after: float = 0.0, options: Options = SEEN
) -> Played:
    """Run a scenario in which effects have these outcomes; effects are counted ``after`` seconds longer."""
    points = Points(fates)

    async def story(world: World) -> None:
        stage = Stage(world, Workload(world))
        while not world.replicas.complete:
            await asyncio.sleep(0.1)
        await scenario.prepare(stage)
        points.open()
        acting = world.spawn(_act(scenario, stage))
        await asyncio.wait([acting], timeout=scenario.within)
        await asyncio.sleep(scenario.after + after)
        points.close()
        await calm(world, stage.workload)

    setting = replace(options, replicas=scenario.replicas, tenants=scenario.tenants, rate=scenario.rate)
    result = in_world(setting, story, points)
    return Played(scenario.name, dict(fates), tuple(points.names), result)


async def _act(scenario: Scenario, stage: Stage) -> None:
    await scenario.act(stage)


def singles(scenario: Scenario, step: int = 1) -> Iterator[Played]:
    """Run a scenario undisturbed, then with each outcome of each effect, or of each ``step``-th one."""
    for options in (SEEN, UNSEEN):
        whole = play(scenario, {}, options=options)
        yield whole
        deaths = [(index, fate) for index in range(len(whole.names)) for fate in Fate]
        for index, fate in deaths[::step]:
            yield play(scenario, {index: fate}, options=options)


def pairs(scenario: Scenario, first: int) -> Iterator[Played]:
    """Run a scenario with each outcome of its ``first`` effect, then of each effect that follows."""
    for fate in Fate:
        once = play(scenario, {first: fate}, PAIR_SECONDS)
        for second in range(first + 1, len(once.names)):
            for again in Fate:
                yield play(scenario, {first: fate, second: again}, PAIR_SECONDS)


def by_name(name: str) -> Scenario:
    """Return a scenario."""
    return next(scenario for scenario in SCENARIOS if scenario.name == name)
