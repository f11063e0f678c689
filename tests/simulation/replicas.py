"""The replicas of a world: each lives, dies and is stopped separately, on one shared store.

A single process opens the store again at each start, as with SQLite. With several the store is a server of
its own, which continues when a process dies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation import invariants
from tests.simulation.journal import ALL
from tests.simulation.process import Process
from tests.simulation.stopping import StoppingLoop

if TYPE_CHECKING:
    from tests.simulation.world import World

LATEST_START = 20.0


class Replicas:
    """Starts one process per replica, and another when one has died."""

    def __init__(self, world: World, loop: StoppingLoop) -> None:
        """Run processes on ``loop``."""
        self._world = world
        self._loop = loop
        self.several = world.options.replicas > 1
        self.running: list[Process] = []
        self.lives = 0
        self.wall_ahead: dict[int, float] = {}
        """How far the wall clock of a seat's machine is ahead, where the store has a clock of its own."""

    # --- selection -----------------------------------------------------------------------------------------

    @property
    def serving(self) -> list[Process]:
        """Return the processes that get calls, including stopped ones."""
        return [process for process in self.running if process.ready]

    @property
    def complete(self) -> bool:
        """Return whether all serve and none is stopped."""
        going = [process for process in self.serving if not process.stopped]
        return len(going) == self._world.options.replicas

    @property
    def still(self) -> bool:
        """Return whether every process is stopped, or its machine suspended."""
        return bool(self.running) and all(process.still for process in self.running)

    def pick(self, part: str) -> Process | None:
        """Return one that serves, drawn by the generator of ``part``."""
        serving = self.serving
        if len(serving) > 1:
            return self._world.chance(part).choice(serving)
        return serving[0] if serving else None

    # --- starts and ends -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the first process immediately, and the others a little later."""
        self.start(0)
        for seat in range(1, self._world.options.replicas):
            after = self._world.chance("replicas").uniform(0.0, LATEST_START)
            self._world.later(after, lambda seat=seat: self.start(seat))

    def start(self, seat: int) -> None:
        """Start a process with the current store and accounts."""
        self.lives += 1
        if self.lives > 1 and not self.several:
            self._world.store.restart()
        self._world.expectations.about_to_start()
        self._world.journal.note(f"process {self.lives} starts", ALL)
        process = Process(self._world, self.lives, seat)
        self.running.append(process)
        process.start()

    def ready(self, process: Process) -> None:
        """Record that a process serves."""
        self._world.journal.note(f"process {process.number} serves", ALL)
        self._world.judge(() if self.several else invariants.ON_START, process)
        self._world.responsibilities.back(process, "starting")
        self._shake()

    def died(self, process: Process) -> None:
        """Start another process a little later."""
        world = self._world
        self._loop.go_on(process)
        self.running.remove(process)
        world.responsibilities.missing(process, "dead")
        world.expectations.deaths.append(world.now())
        self._shake()
        if world.may_go_on:
            world.later(world.chance("down").uniform(0.2, LATEST_START), lambda: self.start(process.seat))

    def stop(self, process: Process, seconds: float) -> None:
        """Stop one process for so long, while all others continue."""
        if process.stopped:
            return
        self._world.journal.note(f"process {process.number} is stopped for {seconds:.1f} s", ALL)
        self._loop.halt(process)
        self._world.responsibilities.missing(process, "stopped")
        process.stop()
        self._world.later(seconds, lambda: self._go_on(process))

    def doze(self, seconds: float) -> None:
        """Stop all processes for so long."""
        for process in self.serving:
            self.stop(process, seconds)

    def _go_on(self, process: Process) -> None:
        if not process.alive:
            return
        self._world.journal.note(f"process {process.number} continues", ALL)
        process.stopped = False
        self._loop.go_on(process)
        self._world.responsibilities.back(process, "stopped")
        self._shake()

    def _shake(self) -> None:
        """Record a disturbance, if no other replica could do the work."""
        if not self.several:
            self._world.shake()

    def end(self) -> None:
        """Kill all processes without an event."""
        for process in self.running:
            process.alive = False
            self._loop.go_on(process)
