"""``python -m bench.fleet``: an hour of a fleet of 1,000 accounts and 10 million leases, on paper.

No server runs. The timing wheel and its window, the shares of rates and the limits on revocations are the
product's own code and constants. Leases, AWS and PostgreSQL are numbers: what a call or a statement takes was
measured by ``python -m bench.footprint``. ``docs/scaling.md`` shows a run.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from array import array
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from bench.figures import Figure
from lessor_server.domain.rate_shares import ShareRequest, StoredShare, grant_share
from lessor_server.engine.aws.rate_limiter import MAX_WAIT_SECONDS
from lessor_server.engine.replicas.registry import BUSY_SECONDS
from lessor_server.engine.revocation.expiry_timer import LIMIT, RETRY_SECONDS, SPAN
from lessor_server.engine.revocation.wheel import SLOT_US, Wheel
from lessor_server.engine.revocation.worker import MAX_CONCURRENT

SECOND: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """What PostgreSQL does for one lease: statements, transactions of several, bytes of WAL."""

    statements: float
    commits: float
    wal: float


ISSUE: Final = Cost(1.8, 0.3, 2_400)
EXPIRY: Final = Cost(2.5, 1.2, 2_300)
"""As measured with 32 calls at a time by ``python -m bench.footprint``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A fleet; every lease lives for ``ttl`` seconds and is then issued again.

    ``users`` is the part of the leases that are IAM users; the others are STS sessions, which take no call
    to end. At a third of the time ``wave`` users of one account expire in the same second.
    """

    accounts: int = 1_000
    leases: int = 10_000_000
    users: float = 0.4
    ttl: int = 3_600
    rate: float = 25.0
    """Calls a second to each account."""
    replicas: int = 3
    wave: int = 2_000
    calls_to_issue: int = 3
    calls_to_revoke: int = 4
    call_seconds: float = 0.05
    limit: int = LIMIT
    """Deadlines that a replica keeps in memory at most."""

    @property
    def due_each_second(self) -> float:
        """Return how many leases expire in a second."""
        return self.leases / self.ttl

    @property
    def revoke_seconds(self) -> float:
        """Return how long the calls of one revocation take if none waits."""
        return self.calls_to_revoke * self.call_seconds


# --- deadlines in memory -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Window:
    """One replica's window over all deadlines, as ``expiry_timer`` keeps it, in a real wheel."""

    due: array[int]
    """The deadlines of all leases, sorted."""
    limit: int
    wheel: Wheel = field(default_factory=Wheel)
    reads: int = 0
    rows: int = 0
    largest: int = 0
    latest_us: int = 0
    """By how much a deadline was popped late at most."""
    popped: int = 0

    def fill(self, now_us: int) -> int:
        """Read the deadlines within the window; return when to read again."""
        first = bisect_right(self.due, now_us)
        end_us = now_us + int(SPAN.total_seconds() * SECOND)
        last = min(bisect_right(self.due, end_us), first + self.limit)
        for number in range(first, last):
            self.wheel.insert(f"mount-{number % 1000}/creds/role/{number:024}", self.due[number])
        if last - first == self.limit:
            end_us = self.due[last - 1]
        self.reads += 1
        self.rows += last - first
        self.largest = max(self.largest, len(self.wheel))
        return now_us + max((end_us - now_us) // 2, int(RETRY_SECONDS * SECOND))

    def pop(self, now_us: int) -> None:
        """Take out what is due; raise AssertionError for one that is early."""
        for key in self.wheel.pop(now_us):
            late_us = now_us - self.due[int(key.rpartition("/")[2])]
            assert late_us >= 0, key
            self.latest_us = max(self.latest_us, late_us)
            self.popped += 1


def deadlines(plan: Plan, rng: random.Random) -> array[int]:
    """Return the deadlines of all leases in an hour, in microseconds, sorted; the wave is among them."""
    wave_us = plan.ttl // 3 * SECOND
    spread = [rng.randrange(1, plan.ttl * SECOND) for _ in range(plan.leases - plan.wave)]
    return array("q", sorted(spread + [wave_us] * plan.wave))


def wheel(plan: Plan, rng: random.Random) -> Iterator[Figure]:
    """Run one replica's wheel for ``ttl`` seconds."""
    window = Window(deadlines(plan, rng), plan.limit)
    began, again_us = time.thread_time(), 0
    for now_us in range(0, plan.ttl * SECOND + SLOT_US, SLOT_US):
        window.pop(now_us)
        if now_us >= again_us:
            again_us = window.fill(now_us)
    took = time.thread_time() - began
    yield Figure(
        "deadlines in memory, at most", window.largest, "", must=2 * plan.limit, more_is_better=False
    )
    yield Figure("latest pop of the wheel", window.latest_us / SECOND, "s", must=2.0, more_is_better=False)
    yield Figure(
        "deadlines that the wheel missed", plan.leases - window.popped, "", must=0, more_is_better=False
    )
    yield Figure("CPU of the wheel", took / plan.ttl * 100, "% core", must=5, more_is_better=False)
    yield Figure(
        "rows read for the wheel, a replica", window.rows / plan.ttl, "/s", seen=f"{window.reads:,} reads"
    )


# --- revocations -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Revocations:
    """The claimed leases of all replicas, and what is due: earliest first, whatever the account.

    A claimed lease waits for its account's rate. One that has waited for ``MAX_WAIT_SECONDS`` gives its place
    up and is due again when the calls before it have been sent, as the rate limiter says.
    """

    plan: Plan
    tokens: list[float] = field(init=False)
    running: dict[int, deque[tuple[float, float]]] = field(default_factory=dict)
    """By account: when each was due, and when it was claimed."""
    due: deque[tuple[float, int]] = field(default_factory=deque)
    again: dict[int, list[tuple[float, int]]] = field(default_factory=dict)
    lags: Counter[int] = field(default_factory=Counter)
    others: Counter[int] = field(default_factory=Counter)
    """The lags in whole seconds: of all, and of all but account 0, which has the wave."""
    claimed: int = 0
    most_due: int = 0

    def __post_init__(self) -> None:
        """Begin with no call sent."""
        self.tokens = [0.0] * self.plan.accounts

    def step(self, now: float) -> None:
        """Advance by the time of one revocation."""
        each = self._usable() * self.plan.revoke_seconds
        for account in list(self.running):
            self._send(account, now, each)
        self.due.extend(self.again.pop(int(now / self.plan.revoke_seconds), ()))
        room = MAX_CONCURRENT * self.plan.replicas - self.claimed
        for _ in range(min(room, len(self.due))):
            due, account = self.due.popleft()
            self.running.setdefault(account, deque()).append((due, now))
            self.claimed += 1
        self.most_due = max(self.most_due, len(self.due))

    def _usable(self) -> float:
        """Return the revocations a second that an account's rate allows beside its issues."""
        issues = self.plan.due_each_second * self.plan.users / self.plan.accounts
        return (self.plan.rate * 0.95 - issues * self.plan.calls_to_issue) / self.plan.calls_to_revoke

    def _send(self, account: int, now: float, each: float) -> None:
        """End as many leases of an account as its rate allows."""
        waiting = self.running[account]
        self.tokens[account] = min(self.tokens[account] + each, each + 1)
        while waiting and self.tokens[account] >= 1:
            self.tokens[account] -= 1
            due, _ = waiting.popleft()
            self.claimed -= 1
            lag = math.ceil(now - due)
            self.lags[lag] += 1
            if account:
                self.others[lag] += 1
        while waiting and now - waiting[0][1] >= MAX_WAIT_SECONDS:
            due, _ = waiting.popleft()
            self.claimed -= 1
            retry = now + max(len(waiting) * self.plan.calls_to_revoke / self.plan.rate, 1.0)
            self.again.setdefault(int(retry / self.plan.revoke_seconds) + 1, []).append((due, account))
        if not waiting:
            del self.running[account]


def revocations(plan: Plan, rng: random.Random) -> Iterator[Figure]:
    """Let the users of an hour expire, with the wave, and all that is late be done."""
    model, step, now = Revocations(plan), plan.revoke_seconds, 0.0
    users = plan.due_each_second * plan.users * step
    wave_at, owed = plan.ttl / 3, 0.0
    while now < plan.ttl or model.due or model.again or model.claimed:
        owed += users if now < plan.ttl else 0.0
        for _ in range(int(owed)):
            model.due.append((now, rng.randrange(plan.accounts)))
        owed %= 1
        if now <= wave_at < now + step:
            model.due.extend([(now, 0)] * plan.wave)
        model.step(now)
        now += step
    used = users / (MAX_CONCURRENT * plan.replicas)
    yield Figure("places for revocations in use, without a wave", used * 100, "%")
    yield Figure("p99 of a revocation's lag, without the wave's account", percentile(model.others, 0.99), "s")
    yield Figure("longest lag, without the wave's account", max(model.others), "s")
    yield Figure(
        "longest lag, of the wave's account", max(model.lags), "s", seen=f"{model.most_due:,} due at most"
    )


def percentile(counts: Counter[int], part: float) -> int:
    """Return the least value that so much of all counts reaches."""
    left = counts.total() * part
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return value
    return 0


# --- shares ------------------------------------------------------------------------------------------------


def shares(plan: Plan, rng: random.Random, signs: int = 20) -> Iterator[Figure]:
    """Grant the shares of all accounts; one in a hundred has more load than its rate, on one replica.

    The others have theirs on all replicas. Loads move in the middle.
    """
    names = [f"replica-{number}" for number in range(plan.replicas)]
    rows: list[dict[str, StoredShare]] = [{} for _ in range(plan.accounts)]
    busiest, least_used, now_us, took = 0.0, 1.0, SECOND, 0.0
    for sign in range(signs):
        for name in names:
            began = time.thread_time()
            for account, of_account in enumerate(rows):
                busy = names[(account + sign // (signs // 2)) % plan.replicas]
                demand = rng.uniform(0, plan.rate / plan.replicas / 2)
                if account % 100 == 0:
                    demand = 4 * plan.rate if name == busy else 0.0
                mine = of_account.get(name)
                asked = ShareRequest(str(account), plan.rate, demand, mine.share if mine else 0.0)
                of_account[name], granted = grant_share(name, asked, list(of_account.values()), names, now_us)
                if account % 100 == 0 and name == busy and sign in (signs // 2 - 1, signs - 1):
                    least_used = min(least_used, granted.share * (1 - granted.margin) / plan.rate)
            took += time.thread_time() - began
            reserved = max(sum(row.reserved for row in one.values()) for one in rows)
            busiest = max(busiest, reserved / plan.rate)
        now_us += int(BUSY_SECONDS * SECOND)
    yield Figure("reserved of a rate, at most", busiest, "", must=1.0, more_is_better=False)
    yield Figure("usable of a rate by one busy replica, at least", least_used, "", must=0.95)
    each = took / signs / plan.replicas
    yield Figure(
        "CPU of a sign's shares",
        each * 1e3,
        "ms",
        seen=f"{plan.accounts / BUSY_SECONDS:,.0f} rows/s a replica",
    )


# --- the database ------------------------------------------------------------------------------------------


def database(plan: Plan) -> Iterator[Figure]:
    """Print what the fleet asks of PostgreSQL, by the measured costs."""
    each_second = plan.due_each_second
    for name, unit, cost in (
        ("statements", "/s", ISSUE.statements + EXPIRY.statements),
        ("transactions of several", "/s", ISSUE.commits + EXPIRY.commits),
        ("WAL", "B/s", ISSUE.wal + EXPIRY.wal),
    ):
        yield Figure(f"{name} of PostgreSQL", each_second * cost, unit)


def run(plan: Plan, seed: int = 1) -> Iterator[Figure]:
    """Play all parts of a plan."""
    rng = random.Random(seed)
    yield from shares(plan, rng)
    yield from revocations(plan, rng)
    yield from database(plan)
    yield from wheel(plan, rng)


def main() -> int:
    """Print the figures; return 1 if one misses its bound."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    plan = Plan()
    for name in ("accounts", "leases", "ttl", "replicas", "wave"):
        parser.add_argument(f"--{name}", type=int, default=getattr(plan, name))
    for name in ("users", "rate"):
        parser.add_argument(f"--{name}", type=float, default=getattr(plan, name))
    plan = Plan(**vars(parser.parse_args()))
    missed = False
    for figure in run(plan):
        print(figure.line(), flush=True)
        missed |= figure.verdict == "MISSED"
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
