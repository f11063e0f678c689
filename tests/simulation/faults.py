"""Plans faults of calls to AWS, of processes, of clocks and of the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lessor_server.domain.aws.iam_calls import AccessKey, Call
from tests.simulation import wire
from tests.simulation.journal import ALL, suffix
from tests.support.iam_faults import Ending

if TYPE_CHECKING:
    from tests.simulation.world import World

KINDS = (
    "throttle",
    "before",
    "after",
    "lost",
    "dropped",
    "hung",
    "hung after",
    "late",
    "slow",
    "clash",
    "html",
)


class Faults:
    """Draws the outcome of each request, and plans kills, pauses, clock jumps and outages."""

    def __init__(self, world: World) -> None:
        """Disturb ``world``."""
        self._world = world
        self._rng = world.options.rng("faults")
        self.on = False
        self.storm = False

    # --- calls ---------------------------------------------------------------------------------------------

    def flight(self, call: Call[object], signer: AccessKey) -> wire.Flight:
        """Return the delays and the outcome of one request."""
        rng, options = self._rng, self._world.options
        there, back = rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.75)
        flight = wire.Flight(call, signer, options.latency * there, options.latency * back)
        if self.storm:
            flight.instead = wire.THROTTLING
            self._world.shake()
        elif self.on and rng.random() < options.faults:
            self._spoil(flight, rng.choice(KINDS))
        elif self.on and rng.random() < options.refusals:
            flight.instead = wire.DENIED
            self._note(flight, "is refused")
        return flight

    def _spoil(self, flight: wire.Flight, kind: str) -> None:
        """Add a fault to one request."""
        match kind:
            case "throttle":
                flight.instead = wire.THROTTLING
            case "before":
                flight.instead = wire.FAILURE
            case "clash":
                flight.instead = wire.CONCURRENT
            case "after":
                flight.ending = Ending.HTML
            case "html":
                flight.instead, flight.ending = wire.FAILURE, Ending.HTML
            case "lost":
                flight.ending = Ending.CUT
            case "dropped":
                flight.instead, flight.ending = wire.FAILURE, Ending.CUT
            case "hung":
                flight.instead, flight.ending = wire.FAILURE, Ending.SILENCE
            case "hung after":
                flight.ending = Ending.SILENCE
            case "late":
                flight.ending, flight.there = Ending.SILENCE, self._rng.uniform(7.0, wire.LATEST_ARRIVAL)
            case "slow":
                flight.there += self._rng.uniform(1.0, 6.5)
        self._note(flight, kind)

    def _note(self, flight: wire.Flight, kind: str) -> None:
        self._world.journal.note(f"fault: {flight.call.action} {kind}", suffix(flight.call.user))
        self._world.expectations.trouble(flight.call.user)
        self._world.shake()

    # --- everything else -----------------------------------------------------------------------------------

    def plan(self) -> None:
        """Spread the run's faults over its time."""
        world, options = self._world, self._world.options
        self.on = True
        for name, count in (
            ("kill", options.kills),
            ("pause", options.pauses),
            ("sleep", options.sleeps),
            ("jump", options.jumps),
            ("outage", options.outages),
            ("throttling", options.storms),
            ("disk", options.disk_faults),
        ):
            if not count:
                continue
            rng = world.chance(f"plan/{name}")
            happen = getattr(self, f"_{name}")
            times = count * options.replicas if name in ("kill", "pause") else count
            for _ in range(times):
                world.later(options.moment(rng), lambda happen=happen: self.on and happen())

    def end(self) -> None:
        """Cause no more faults."""
        self.on = self.storm = False
        self._world.away = self._world.disk_fails = False
        self._world.clocks.wall_ahead = 0.0
        self._world.replicas.wall_ahead.clear()
        self._world.shake()

    def _kill(self) -> None:
        running = self._world.replicas.running
        if running:
            self._world.chance("kill").choice(running).kill()

    def _pause(self) -> None:
        process = self._world.replicas.pick("pause")
        if process is not None:
            self._world.replicas.stop(process, self._while())

    def _sleep(self) -> None:
        self._world.sleep(self._while())

    def _while(self) -> float:
        rng = self._world.chance("pause")
        return rng.choice((rng.uniform(1, 30), rng.uniform(30, 400), rng.uniform(400, 1200)))

    def _jump(self) -> None:
        rng = self._world.chance("jump")
        ahead = rng.choice((rng.uniform(-3600, 3600), rng.uniform(-150, 150), 0.0))
        self._world.journal.note(f"the wall clock is set {ahead:+.1f} s", ALL)
        replicas = self._world.replicas
        if replicas.several:
            replicas.wall_ahead[rng.randrange(self._world.options.replicas)] = ahead
        else:
            self._world.clocks.wall_ahead = ahead
            self._world.shake()
        if rng.random() < 0.5:
            self._kill()  # as when a machine starts by a wrong clock

    def _for_a_while(self, name: str, begin: str, end: str, most: float) -> None:
        """Set a flag of the world for a drawn time."""
        world = self._world
        target = self if name == "storm" else world

        def stop() -> None:
            setattr(target, name, False)
            world.journal.note(end, ALL)
            world.shake()

        world.journal.note(begin, ALL)
        setattr(target, name, True)
        world.shake()
        world.later(world.chance(name).uniform(0.5, most), stop)

    def _outage(self) -> None:
        self._for_a_while("away", "AWS cannot be reached", "AWS can be reached again", 180.0)

    def _throttling(self) -> None:
        self._for_a_while("storm", "AWS throttles everything", "AWS throttles no more", 60.0)

    def _disk(self) -> None:
        self._for_a_while("disk_fails", "the disk is full", "the disk has room again", 60.0)
