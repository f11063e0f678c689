"""The world around the server: time, AWS's accounts, and the durable store.

The world's own events continue while processes are suspended, stopped or dead.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from lessor_server.domain.audit.record import AuditRecord
from lessor_server.domain.aws import iam_calls
from lessor_server.engine.store_types import BulkRevocation
from tests.simulation import (
    audit_invariants,
    invariants,
    owner_invariants,
    rate_invariants,
    rotation_invariants,
    row_invariants,
    session_invariants,
)
from tests.simulation.audit_trail import Unrecorded
from tests.simulation.disk import Change, DurableStore
from tests.simulation.expectations import Breach, Effect, Expectations
from tests.simulation.faults import Faults
from tests.simulation.journal import ALL, Journal, suffix
from tests.simulation.options import Options
from tests.simulation.points import Points
from tests.simulation.process import Process
from tests.simulation.replicas import Replicas
from tests.simulation.responsibility import Responsibilities
from tests.simulation.rules import Rules
from tests.simulation.stopping import StoppingLoop
from tests.simulation.wire import Flight
from tests.support import builders
from tests.support.iam import Iam
from tests.support.iam_rules import Answer
from tests.support.plain_keyring import PlainKeyring

BASE_US = 1_900_000_000_000_000
INSTANCE = "0123456789abcdef"
MAX_EFFECTS = 5000
"""A replica has some hundreds in a run, in a long calm a thousand."""
OTHER_ACCOUNT = "210987654321"
ON_CHANGE = (*row_invariants.ON_CHANGE, *session_invariants.ON_CHANGE, *owner_invariants.ON_CHANGE)
ON_EFFECT = (*invariants.ON_EFFECT, *session_invariants.ON_EFFECT, *audit_invariants.ON_EFFECT)
ON_ANSWER = (*invariants.ON_ANSWER, *session_invariants.ON_ANSWER, *audit_invariants.ON_ANSWER)
SECOND_KEY = "ANOTHER_ROOT_KEY_OF_THE_SAME_ACCOUNT"


class Clocks:
    """The machine's clocks: the boot clock runs during a suspend, and the wall clock may be set."""

    def __init__(self, loop: StoppingLoop) -> None:
        """Follow a loop's time; the wall clock is right."""
        self._loop = loop
        self.asleep = 0.0
        """Seconds that the machine slept: the loop's clock stood still."""
        self.wall_ahead = 0.0

    def now(self) -> float:
        """Return the true time in seconds since the run began."""
        return self._loop.now + self.asleep

    def boot_us(self) -> int:
        """Return the time since the machine started."""
        return int((self._loop.now + self.asleep) * 1e6)

    def wall_us(self) -> int:
        """Return the wall clock's time."""
        return BASE_US + self.boot_us() + int(self.wall_ahead * 1e6)


class World:
    """The surroundings of the server, and its running replicas."""

    instance = INSTANCE

    def __init__(self, options: Options, loop: StoppingLoop, points: Points) -> None:
        """Create the world of one run, on ``loop``."""
        self.options = options
        self.points = points
        self._loop = loop
        self._context = contextvars.copy_context()
        self.clocks = Clocks(loop)
        self.now = self.clocks.now
        """The true time in seconds since the run began."""
        self.write_began_us = 0
        self.write_name = ""
        self.rules = Rules(options)
        self.prefixes: dict[BulkRevocation, None] = {}
        """All bulk revocations that there have been."""
        self.journal = Journal(self.clocks.now)
        self.store = DurableStore(self.clocks, INSTANCE, shared=options.replicas > 1)
        self.sealer = PlainKeyring()
        self.store.data_keys, self.store.seals = [self.sealer.first], self.sealer
        self.mine, self.other = (
            self._account(builders.ACCOUNT.rpartition(":")[2]),
            self._account(OTHER_ACCOUNT),
        )
        self.accounts = {
            builders.ROOT_KEY: self.mine,
            SECOND_KEY: self.mine,
            builders.OTHER_ROOT_KEY: self.other,
        }
        self.expectations = Expectations(self)
        self.faults = Faults(self)
        self.away = self.disk_fails = False
        self.strange_keys: set[str] = set()
        """Keys of users of static roles that somebody else made."""
        self.replicas = Replicas(self, loop)
        self.responsibilities = Responsibilities(self)
        self.breaches: list[Breach] = []
        self.calls: deque[rate_invariants.SentCall] = deque()
        """What was sent in the last second, if there is a rate."""
        self.records: list[AuditRecord] = []
        """The audit records of all processes, in order."""
        self.effects = 0
        self._chances: dict[str, random.Random] = {}
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = 0
        self._own: set[asyncio.Task[Any]] = set()

    def _account(self, number: str) -> Iam:
        account = Iam(
            number,
            now=lambda: BASE_US / 1e6 + self.clocks.now(),
            rng=self.options.rng(f"account/{number}"),
        )
        account.create_group("staff")
        return account

    def account_of(self, name: str) -> Iam:
        """Return the account that a row names."""
        return self.mine if name.endswith(self.mine.account) else self.other

    def account_with(self, key_id: str) -> Iam:
        """Return the account of a key, of a root or created by the engine."""
        account = self.accounts.get(key_id)
        if account is not None:
            return account
        return next(
            account
            for account in (self.mine, self.other)
            if key_id in account.keys or key_id in account.dead_keys or key_id in account.sts.sessions
        )

    # --- time and chance -----------------------------------------------------------------------------------

    @property
    def clock_error(self) -> float:
        """Return how far the service's time is ahead of the true one, in seconds."""
        return (self.store.now() - BASE_US) / 1e6 - self.now()

    def chance(self, part: str) -> random.Random:
        """Return the generator of one part of the run."""
        if part not in self._chances:
            self._chances[part] = self.options.rng(part)
        return self._chances[part]

    def later(self, seconds: float, event: Callable[[], object]) -> None:
        """Schedule an action of the world, whether a process runs then or not."""
        self._numbers += 1
        item = (self.now() + seconds, self._numbers, event)
        heapq.heappush(self._later, item)
        self._arm(item[0])

    def _arm(self, when: float) -> None:
        # In the world's own context: it comes too where the process that asks for it is stopped.
        self._loop.call_at(when - self.clocks.asleep, self._happen, context=self._context)

    def _happen(self) -> None:
        while self._later and self._later[0][0] <= self.now() + 1e-9:
            heapq.heappop(self._later)[2]()

    @property
    def pending(self) -> int:
        """Return how many events are still to come."""
        return len(self._later)

    @property
    def idle_seconds(self) -> float:
        """Return after how many seconds the next event or timer of the world's own comes."""
        return self._loop.next_of(None) - self._loop.now

    def spawn(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a task of the world's own."""
        task = self._loop.create_task(job)
        self._own.add(task)
        task.add_done_callback(self._own.discard)
        return task

    def sleep(self, seconds: float) -> None:
        """Suspend the machine: the loop's clock and every process stop."""
        serving = self.replicas.serving
        if not serving:
            return
        self.journal.note(f"the machine sleeps for {seconds:.1f} s", ALL)
        end = self.now() + seconds
        asleep = f"asleep until {end:.6f}"  # another sleep may begin meanwhile
        for process in serving:
            self.responsibilities.missing(process, asleep)
            process.lose_calls()
        while self._later and self._later[0][0] <= end:
            when, _, event = heapq.heappop(self._later)
            self._leap(max(when, self.now()))
            event()
        self._leap(max(end, self.now()))
        for process in serving:
            self.responsibilities.back(process, asleep)
        for when, _, _ in self._later:
            self._arm(when)
        self.shake()

    def _leap(self, when: float) -> None:
        self.clocks.asleep += when - self.now()

    def shake(self, lasting: float = 0.0) -> None:
        """Record a disturbance and how much longer than others its effects last."""
        self.expectations.shaken = max(self.expectations.shaken, self.now() + lasting)
        self.expectations.disturbances += 1

    # --- what happens --------------------------------------------------------------------------------------

    def sent(self, process: Process, flight: Flight) -> None:
        """Record a request that is sent."""
        self._count()
        self.expectations.sent(flight)
        if self.options.rate and type(flight.call).__module__ == iam_calls.__name__:
            self.judge(rate_invariants.ON_SENT, (process, flight))

    def _count(self) -> None:
        """Count an effect; a run with too many of them is stopped."""
        self.effects += 1
        if self.effects == MAX_EFFECTS * self.options.replicas + 1:
            self.broken("it_comes_to_rest", "", f"there were {self.effects} effects")
            for process in list(self.replicas.running):
                process.kill()

    @property
    def may_go_on(self) -> bool:
        """Return whether the run has not yet had too many effects."""
        return self.effects <= MAX_EFFECTS * self.options.replicas

    def delayed(self, flight: Flight) -> None:
        """Record a request that will arrive late."""
        self.expectations.late += 1
        self.journal.note(f"{flight.call.action} is delayed", suffix(flight.call.user))

    def carried_out(self, flight: Flight, answer: Answer) -> None:
        """Record the effect of a request on the account."""
        call = flight.call
        result = answer.code or "ok"
        self.journal.note(f"aws {call.action}: {result}", suffix(call.user))
        effect = Effect(self.account_with(flight.key_id), call, answer, flight.sent_us)
        self.expectations.carried_out(effect)
        self.judge(ON_EFFECT, effect)

    def unrecorded(self, failure: Unrecorded) -> None:
        """Look soon after the failed write of a record what has become of its lease."""
        self.later(invariants.BOUND_SECONDS, lambda: self.judge(audit_invariants.ON_UNRECORDED, failure))

    def written(self, process: Process, name: str, changes: list[Change], began_us: int) -> None:
        """Record a durable write that began at ``began_us``."""
        self.write_began_us, self.write_name = began_us, name
        self.prefixes |= dict.fromkeys(self.store.open)
        self._count()
        if not changes:
            self.journal.note(f"store {name}")
        for change in changes:
            lease_id, _, row = change
            state = f"{row.lease.state.value} due {row.lease.due_us}" if row else "dropped"
            self.journal.note(f"store {name}: {state}", suffix(lease_id))
            self.expectations.changed(change)
            self.responsibilities.wrote(process, name, change, self.expectations.records[suffix(lease_id)])
            self.judge(ON_CHANGE, change)
        changes.clear()

    def judge_answer(self, asked: object) -> None:
        """Check the invariants of answers."""
        self.judge(ON_ANSWER, asked)

    def judge_end(self) -> None:
        """Check the invariants of the end of a run."""
        self.judge((*invariants.AT_END, *rotation_invariants.AT_END), None)

    def judge(self, checks: tuple[Any, ...], subject: Any) -> None:
        """Check the invariants of ``subject``."""
        for check in checks:
            found = check(self, subject)
            if found is not None:
                self.broken(check.__name__, *found)

    def broken(self, invariant: str, subject: str, text: str) -> None:
        """Record a broken invariant."""
        self.journal.note(f"BROKEN {invariant}: {text}", subject or ALL)
        self.breaches.append(Breach(invariant, subject, text, self.now()))
