"""``python -m tests.fire`` runs the selected scenarios, each with a server of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fire.drains import outage, rate, storm
from tests.fire.environment import Environment, Figures, run_environment
from tests.fire.fleet import FleetEnvironment, fleet_kills, fleet_stops, run_fleet, shared_rate
from tests.fire.kills import kills
from tests.fire.renewals import renewals
from tests.fire.soak import soak

AWS_SECONDS = 0.02
"""How long the AWS of a scenario takes over each call."""
MAX_KIB_A_MINUTE = 1024.0
"""How fast the server's memory may grow in the second half of a soak of some minutes."""

MAX_PAUSE_SECONDS = 25.0
"""How long a server of several is stopped: longer than until the others take over."""

Scenario = Callable[[Environment, random.Random], Awaitable[Figures]]


def asked_for(given: argparse.Namespace) -> dict[str, Scenario]:
    """Return the scenarios whose size is not 0, by name."""
    every: dict[str, tuple[float, Scenario]] = {
        "kills": (given.kills, lambda environment, rng: kills(environment, given.kills, rng)),
        "renewals": (given.renewals, lambda environment, rng: renewals(environment, given.renewals, rng)),
        "outage": (
            given.outage_seconds,
            lambda environment, rng: outage(environment, given.leases, given.outage_seconds, rng),
        ),
        "rate": (given.rate, lambda environment, rng: rate(environment, 2 * given.leases, given.rate, rng)),
        "storm": (given.storm, lambda environment, rng: storm(environment, given.storm, 500, rng)),
        "soak": (
            given.soak_minutes,
            lambda environment, rng: soak(environment, 60 * given.soak_minutes, MAX_KIB_A_MINUTE, rng),
        ),
    }
    return {name: scenario for name, (size, scenario) in every.items() if size}


async def run(name: str, scenario: Scenario, seed: int) -> None:
    """Run one scenario over fresh data and print its figures."""
    with tempfile.TemporaryDirectory() as folder:
        async with run_environment(Path(folder), AWS_SECONDS) as environment:
            figures = await scenario(environment, random.Random(seed))
    sys.stdout.write(f"{name}: {json.dumps(figures)}\n")
    sys.stdout.flush()


@contextmanager
def kept_if_it_fails() -> Iterator[Path]:
    """Yield a new folder; if the block fails, keep what is in it and print where it is."""
    folder = Path(tempfile.mkdtemp(prefix="lessor-fire-"))
    try:
        yield folder
    except BaseException:
        sys.stderr.write(f"the logs are in {folder}\n")
        raise
    shutil.rmtree(folder)


async def run_with_fleet(given: argparse.Namespace) -> None:
    """Run the scenarios with several servers on PostgreSQL, and print their figures."""
    scenarios: dict[str, tuple[int, dict[str, str], Callable[[FleetEnvironment], Awaitable[Figures]]]] = {
        "fleet rate": (
            given.fleet_rate,
            {"LESSOR_AWS_RATE": str(given.fleet_rate)},
            lambda environment: shared_rate(environment, given.fleet_rate, 20),
        ),
        "fleet kills": (
            given.fleet_kills,
            {},
            lambda environment: fleet_kills(
                environment, given.fleet_kills, random.Random(given.seed), MAX_PAUSE_SECONDS
            ),
        ),
        "fleet stops": (
            given.fleet_stops,
            {},
            lambda environment: fleet_stops(environment, given.fleet_stops, random.Random(given.seed)),
        ),
    }
    for name, (size, settings, scenario) in scenarios.items():
        if not size:
            continue
        with kept_if_it_fails() as folder:
            rng = random.Random(given.seed)
            async with run_fleet(folder, rng, AWS_SECONDS, **settings) as environment:
                figures = await scenario(environment)
        sys.stdout.write(f"{name}: {json.dumps(figures)}\n")
        sys.stdout.flush()


def main() -> None:
    """Run what the command line asks for, one scenario after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.fire", description=__doc__)
    parser.add_argument("--kills", type=int, default=0, help="how often to kill the server")
    parser.add_argument("--renewals", type=int, default=0, help="renewals aimed at the expiry")
    parser.add_argument("--outage-seconds", type=float, default=0, help="how long AWS is away")
    parser.add_argument("--leases", type=int, default=200, help="leases that fall due in the outage")
    parser.add_argument("--rate", type=int, default=0, help="calls a second to drain twice as many leases at")
    parser.add_argument("--storm", type=int, default=0, help="leases that fall due in one second")
    parser.add_argument("--soak-minutes", type=float, default=0, help="how long to keep up a steady load")
    parser.add_argument("--fleet-rate", type=int, default=0, help="calls a second that three servers share")
    parser.add_argument("--fleet-kills", type=int, default=0, help="how often to kill or stop one of three")
    parser.add_argument("--fleet-stops", type=int, default=0, help="how often to stop all three")
    parser.add_argument("--seed", type=int, default=1, help="draws the moments and the choices")
    given = parser.parse_args()
    scenarios = asked_for(given)
    if not scenarios and not any((given.fleet_rate, given.fleet_kills, given.fleet_stops)):
        parser.error("ask for something, such as --kills 50 --soak-minutes 1")
    for name, scenario in scenarios.items():
        asyncio.run(run(name, scenario, given.seed))
    asyncio.run(run_with_fleet(given))


if __name__ == "__main__":
    main()
