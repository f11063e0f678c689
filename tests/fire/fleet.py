"""Scenarios with several servers on one PostgreSQL database: a rate that they share, and kills."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import grpc

from lessor_server.engine.replica_ports import SILENT_SECONDS
from lessor_server.engine.revocation.claims import CLAIM_SPAN
from tests.fire.environment import BOUND, MOUNT, ROLES, Environment, Figures, now
from tests.fire.kills import Checks
from tests.fire.promises import Callers, Load
from tests.support.clients import Lessor, connect
from tests.support.postgres import shared_postgres
from tests.support.replica_servers import ReplicaServer, replicas
from tests.support.standin_control import StandIn

WIDE = "wide"
"""A role with many policies: each credential takes 13 calls, so that a rate is reached by few."""
POLICIES = tuple(f"arn:aws:iam::aws:policy/Policy{number}" for number in range(10))
TAKEN_OVER = 30.0
"""Seconds within which the revocations of a replica that died are taken over."""
SETTLE_SECONDS = 8.0
"""How long after a change of the load the shares of the rate follow it."""
REST_EVERY = 20
STOP_EVERY = 4
"""Each so many-th server is stopped for a moment; the others are killed."""
CALLERS = 40
ROWS = """
SELECT clock_timestamp();
SELECT name, seen_us, clock_timestamp() - to_timestamp(seen_us / 1e6) AS age FROM replicas;
SELECT id, state, claimed_by, generation, to_timestamp(due_us / 1e6), to_timestamp(expires_us / 1e6),
    last_error
FROM leases WHERE state IN ('INTENT', 'REVOKING') ORDER BY due_us;
"""
"""What shows who should have revoked a lease that is late."""
STOPS = (9.0, SILENT_SECONDS - 2.0)
"""How long all servers are stopped: answers come too late, but no server counts as silent."""
RELEASED = 20.0
"""Seconds after a stop within which no claim from before it is left: less than until a full scan."""
CLAIMED = f"""
SELECT id, claimed_by, generation, to_timestamp(due_us / 1e6 - {CLAIM_SPAN.total_seconds()}) FROM leases
WHERE state = 'REVOKING' AND claimed_by <> '' AND due_us / 1e6 - {CLAIM_SPAN.total_seconds()} < %f
"""
"""What is still claimed since before an instant."""


class FleetEnvironment(Environment):
    """Several servers; each connection goes to any that runs."""

    def __init__(self, folder: Path, aws: StandIn, servers: list[ReplicaServer], rng: random.Random) -> None:
        """Call ``servers``; ``rng`` chooses among them."""
        super().__init__(folder, aws)
        self.servers = servers
        self._rng = rng

    def connect(self) -> AbstractAsyncContextManager[Lessor]:
        """Open a channel to any server."""
        process = self._rng.choice([one for one in self.servers if one.runs]).process
        return connect(process.address, process.token)


@asynccontextmanager
async def run_fleet(
    folder: Path, rng: random.Random, latency: float = 0.0, **settings: str
) -> AsyncIterator[FleetEnvironment]:
    """Run three servers and their AWS, with a mount, a bound root and the roles, while the block runs."""
    async with StandIn.start(latency=latency) as aws:
        given = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url, **settings}
        async with replicas(folder, given) as servers:
            environment = FleetEnvironment(folder, aws, servers, rng)
            lessor = servers[0].client
            await lessor.enable(MOUNT, aws.url)
            for role in ROLES:
                await lessor.put_role(MOUNT, role)
            await lessor.put_role(MOUNT, WIDE, policy_arns=POLICIES)
            await lessor.revoke((await lessor.generate(MOUNT)).lease_id)
            try:
                yield environment
            except BaseException:
                (folder / "rows").write_text(read_rows(servers), encoding="utf-8")
                raise


def read_rows(servers: list[ReplicaServer], query: str = ROWS) -> str:
    """Return rows of the servers' database as lines; those of ``ROWS`` explain a failure."""
    database = servers[0].environment["LESSOR_STORE_URL"].partition("?")[0].rpartition("/")[2]
    return shared_postgres().run(query, database)


# --- a shared rate ---------------------------------------------------------------------------------------


async def shared_rate(environment: FleetEnvironment, rate: int, seconds: float) -> Figures:
    """Load one, two and three servers; no second may exceed the rate, and 95 % of it must be used.

    The servers must have been started with ``LESSOR_AWS_RATE`` set to ``rate``.
    """
    figures: Figures = {}
    for loaded in range(1, len(environment.servers) + 1):
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_load(one.client))
                for one in environment.servers[:loaded]
                for _ in range(CALLERS)
            ]
            await asyncio.sleep(SETTLE_SECONDS)
            await environment.aws.forget_calls()
            await asyncio.sleep(seconds)
            at = [float(str(call["t"])) for call in await environment.aws.calls()]
            for task in tasks:
                task.cancel()
        begun = [instant for instant in at if instant <= at[0] + seconds - 0.5]
        peak = _peak(at)
        used = len(begun) / (rate * (seconds - 0.5))
        figures |= {f"peak of {loaded}": peak, f"used by {loaded}": round(used, 3)}
        assert peak <= rate, figures
        assert used >= 0.95, figures
    return figures


def _peak(at: list[float]) -> int:
    """Return how many of the instants are within the fullest second."""
    first = most = 0
    for last, instant in enumerate(at):
        while instant - at[first] >= 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


async def _load(lessor: Lessor) -> None:
    """Issue one credential after another until cancelled; a full queue is no error."""
    while True:
        try:
            await lessor.generate(MOUNT, WIDE, ttl=3600)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            await asyncio.sleep(0.5)


# --- kills -----------------------------------------------------------------------------------------------


async def fleet_kills(
    environment: FleetEnvironment, times: int, rng: random.Random, max_pause: float = 1.0
) -> Figures:
    """Kill or stop one of the servers so many times under load; AssertionError for the first broken promise.

    At most one is down or stopped at a time, for ``max_pause`` seconds at most. After each ``REST_EVERY``-th
    and the last, callers rest, and all that should be over must be gone: what a server had claimed that died,
    when another has taken it over.
    """
    callers = Callers(environment, rng, Load(issuers=4, pause=0.05, stops=True))
    checks = Checks(environment, callers, TAKEN_OVER + BOUND)
    done: Counter[str] = Counter()
    async with asyncio.TaskGroup() as group:
        callers.begin(group)
        try:
            for number in range(1, times + 1):
                victim = rng.choice(environment.servers)
                await asyncio.sleep(rng.uniform(0, 0.6))
                if not number % STOP_EVERY:
                    done["stopped"] += 1
                    await stop_for(victim, rng.uniform(0, max_pause))
                else:
                    done["killed"] += 1
                    victim.note("killed")
                    await victim.kill()
                    await victim.start()
                if number % REST_EVERY == 0 or number == times:
                    await checks.remembers()
                    await checks.rests()
        finally:
            callers.stop()
    await checks.remembers(of_old=True)
    keys = Counter(promise.key for promise in callers.promises.values())
    assert max(keys.values()) == 1, keys.most_common(1)
    assert callers.unheard_of == [], callers.unheard_of
    figures: Figures = {"leases": len(callers.promises), **done}
    return figures | dict(callers.outcomes)


async def stop_for(victim: ReplicaServer, seconds: float) -> None:
    """Stop a server for a while, as SIGSTOP does."""
    victim.note(f"stopped for {seconds:.1f} s")
    victim.pause()
    await asyncio.sleep(seconds)
    victim.resume()
    victim.note("continued")


# --- stops of all ----------------------------------------------------------------------------------------


async def fleet_stops(environment: FleetEnvironment, times: int, rng: random.Random) -> Figures:
    """Stop all servers at the same time so many times under load, too shortly for one to be taken over.

    Each then loses answers of the database and of AWS. What a server had claimed before, it must have ended
    or released soon after: AssertionError for the first lease that waits for the end of its claim.
    """
    callers = Callers(environment, rng, Load(pause=0.05, stops=True))
    async with asyncio.TaskGroup() as group:
        callers.begin(group)
        try:
            for _ in range(times):
                await asyncio.sleep(rng.uniform(1, 3))
                seconds = rng.uniform(*STOPS)
                async with asyncio.TaskGroup() as stops:
                    for one in environment.servers:
                        stops.create_task(stop_for(one, seconds))
                continued = now()
                await asyncio.sleep(RELEASED)
                late = await asyncio.to_thread(read_rows, environment.servers, CLAIMED % continued)
                assert not late, f"{RELEASED:.0f} s after a stop of {seconds:.1f} s:\n{late}"
        finally:
            callers.stop()
    assert callers.unheard_of == [], callers.unheard_of
    return {"stops": times, "leases": len(callers.promises), **callers.outcomes}
