"""Rows of revocations: a large prefix beside OpenBao's, and a storm of expiries below a provider's rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException

import grpc

from bench import h2load
from bench.children import BenchError
from bench.figures import Figure
from bench.h2load import Served
from bench.lessor import BARE, Lessor
from bench.world import Size, World, report_progress

WATCH_SECONDS = 60.0
"""A revocation is watched for so long; what is done by then gives its rate. OpenBao ends a call at 90 s."""
POLL_SECONDS, ANSWER_SECONDS = 0.05, 5.0
"""How often the backend is asked, and how long the call may take to return after the last deletion."""
PROVIDER_RATE = 1000
ISSUES, CANARIES = 50, 100
"""Credentials, and empty RPCs, a second while leases expire."""
CALLERS = 50
"""The clients of each: an answer may take a second, or half of one, without delaying the next request."""
STORM_AFTER, STORM_SETTLES = 90.0, 2.0


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a bulk revocation did, and the seconds until it was accepted; None: not while it was watched."""

    accepted: float | None
    users: int
    calls: int
    seconds: float

    @property
    def calls_a_second(self) -> float:
        """Return backend calls a second."""
        return self.calls / self.seconds

    def __str__(self) -> str:
        """Return all of it as text."""
        answer = f"answered in {self.accepted * 1e3:,.0f} ms" if self.accepted is not None else "not answered"
        return (
            f"{answer}, {self.users:,} users in {self.seconds:.1f} s ({self.users / self.seconds:,.0f}/s),"
            f" {self.calls / max(self.users, 1):.2f} calls each, {self.calls_a_second:,.0f} calls a second"
        )


def prefix(world: World, size: Size) -> Iterator[Figure]:
    """Revoke all leases of two large stores; runs last, as both servers end with it."""
    server = world.large(size.large)
    ours = _revoke(world, lambda: server.revoke_all(BARE), "DeleteUser", server.leases())
    world.end("large")
    peer = world.fill_openbao(size.large)
    theirs = _revoke(world, lambda: _clocked(peer.revoke_all), "DELETE users", size.large)
    world.end("openbao")
    yield Figure(
        f"prefix of {size.large:,}: until accepted",
        (WATCH_SECONDS if ours.accepted is None else ours.accepted) * 1e3,
        "ms",
        must=50,
        more_is_better=False,
    )
    yield Figure(
        f"prefix of {size.large:,}: backend calls/s beside OpenBao",
        ours.calls_a_second / max(theirs.calls_a_second, 1e-9),
        must=2.0,
        seen=f"Lessor {ours} | OpenBao {theirs}",
    )
    yield Figure(
        f"prefix of {size.large:,}: leases/s beside OpenBao",
        ours.users / ours.seconds / max(theirs.users / theirs.seconds, 1e-9),
    )


def _clocked(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _revoke(world: World, order: Callable[[], float], deletion: str, users: int) -> Revoked:
    """Order a revocation in a thread, and count what the backend sees until all is done, or for a minute."""
    world.order(reset=1)
    accepted: list[float] = []

    def run() -> None:
        with suppress(BenchError, OSError, HTTPException, grpc.RpcError):  # the server may end first
            accepted.append(order())

    start = time.perf_counter()
    ordering = threading.Thread(target=run, daemon=True)
    ordering.start()
    while True:
        time.sleep(POLL_SECONDS)
        calls, seconds = world.calls(), time.perf_counter() - start
        if calls.get(deletion, 0) >= users or seconds > WATCH_SECONDS:
            break
    if seconds <= WATCH_SECONDS:
        ordering.join(ANSWER_SECONDS)  # its last message may come after the last deletion
    done = calls.get(deletion, 0)
    return Revoked(accepted[0] if accepted else None, done, sum(calls.values()), seconds)


def storm(world: World, size: Size) -> Iterator[Figure]:
    """Let leases expire in the same second, while the provider takes 1,000 calls a second."""
    more = {"LESSOR_AWS_RATE": str(PROVIDER_RATE)}
    server, expires_us = world.filled("storm", BARE, size.storm, expires_in=STORM_AFTER, more=more)
    seconds = 5 * size.seconds
    server.child.wait_until_idle()  # its start compares all leases with the account's users
    world.order(limit=PROVIDER_RATE)
    idle, idle_canary = _even_load(server, seconds)
    left = expires_us / 1e6 - time.time()
    if left < 0:
        raise BenchError(f"the leases expired {-left:.0f} s before the idle server was measured")
    report_progress(f"storm: {size.storm:,} leases expire in {left:.0f} s")
    time.sleep(left + STORM_SETTLES)
    world.order(reset=1)
    start = time.perf_counter()
    busy, canary = _even_load(server, seconds)
    calls, took = world.calls(), time.perf_counter() - start
    highest = world.highest_second()
    world.order(limit=0)
    world.end("storm")
    reached = (sum(calls.values()) - calls.get("throttled", 0)) / took
    yield Figure(
        f"storm of {size.storm:,}: share of the provider's {PROVIDER_RATE:,}/s",
        reached / PROVIDER_RATE,
        "of it",
        must=0.95,
        seen=f"{reached:,.0f} calls/s for {took:.0f} s: {dict(sorted(calls.items()))}",
    )
    yield Figure(
        "storm: calls in the highest second", highest, "calls", must=PROVIDER_RATE, more_is_better=False
    )
    yield Figure(
        "storm: p99 of an issue beside idle",
        busy.p99_ms / idle.p99_ms,
        must=2.0,
        more_is_better=False,
        seen=f"{busy.p99_ms:.3g} beside {idle.p99_ms:.3g} ms at {ISSUES}/s",
    )
    yield Figure(
        "storm: longest answer of an empty RPC, which shows blocks",
        canary.longest_ms,
        "ms",
        must=20,
        more_is_better=False,
        seen=f"{canary.longest_ms:.3g} beside {idle_canary.longest_ms:.3g} ms when idle, {CANARIES}/s",
    )


def _even_load(server: Lessor, seconds: int) -> tuple[Served, Served]:
    """Issue credentials and make empty RPCs at the same time, each at its even rate."""
    issues = h2load.start(server.credential(BARE), CALLERS, ISSUES * seconds, rate=ISSUES)
    canaries = h2load.start(server.empty(), CALLERS, CANARIES * seconds, rate=CANARIES)
    return issues.wait().require_all(100), canaries.wait().require_all(5)
