"""Callers that share one identity each: their leases have rules with limits, and none reaches another's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lessor.v1 import creds_pb2
from lessor_server.domain.errors.access import NotYourLease
from lessor_server.domain.lease_id import EVERYTHING, LeaseId
from lessor_server.engine.leases import Leases
from tests.simulation.client import Client, seconds
from tests.simulation.journal import suffix
from tests.simulation.rules import MOST

if TYPE_CHECKING:
    from tests.simulation.workload import Workload
    from tests.simulation.world import World

NOBODYS = "aws/creds/app/" + "0" * 24
ROLES = ("app", "app2", "a_p", "session")
PREFIXES = ("aws/creds/app/", "aws/creds/", "aws/")
Ways = dict[str, Callable[[Leases, LeaseId, str], Awaitable[object]]]
WAYS: Ways = {
    "lookup": lambda leases, lease_id, who: leases.lookup(lease_id, who),
    "renew": lambda leases, lease_id, who: leases.renew(lease_id, timedelta(seconds=60), who, only_owner=who),
    "revoke": lambda leases, lease_id, who: leases.revoke(lease_id, sync=False, by=who, only_owner=who),
    "revoke and wait": lambda leases, lease_id, who: leases.revoke(
        lease_id, sync=True, by=who, only_owner=who
    ),
}


class Tenants:
    """Lets the tenants work at the same time, and reach for each other's leases."""

    def __init__(self, world: World, workload: Workload) -> None:
        """Use the servers of ``world``."""
        self._world = world
        self._workload = workload
        self._client: Client = workload.client

    async def burst(self, rng: random.Random) -> None:
        """Ask for several credentials of one tenant at the same time."""
        who, role = rng.choice(self._world.rules.names), rng.choice(ROLES)
        for _ in range(rng.randint(2, MOST + 2)):
            self._world.spawn(self._issue(who, role, random.Random(rng.random())))

    async def _issue(self, who: str, role: str, rng: random.Random) -> None:
        await asyncio.sleep(rng.uniform(0.0, 3 * self._world.options.latency))
        life = 900.0 if role == "session" else rng.choice((5.0, 20.0, 60.0, 300.0))
        asked = creds_pb2.GenerateCredentialsRequest(mount="aws", role=role, ttl=seconds(life))
        answer = await self._client.generate(asked, who, rng.choice((60.0, 20.0, 5.0)))
        if answer is not None:
            await self._workload.use(answer.lease_id, life, who, rng)

    async def revoke_own(self, rng: random.Random) -> None:
        """Revoke all leases of one tenant under a prefix."""
        owner = rng.choice(self._world.rules.names)
        await self._client.revoke_prefix(rng.choice(PREFIXES), sync=rng.random() < 0.3, owner=owner)

    async def reach(self, rng: random.Random) -> None:
        """Reach for a lease of anybody, or for one that is not there, in some way; then list."""
        who, rows = rng.choice(self._world.rules.names), sorted(self._world.store.rows)
        lease_id = rng.choice(rows) if rows and rng.random() < 0.9 else NOBODYS
        row = self._world.store.rows.get(lease_id)
        own = row is not None and row.lease.owner == who
        way = "lookup" if own else rng.choice(sorted(WAYS))
        parsed = LeaseId.parse(lease_id)
        answer = await self._client.ask(lambda engine: WAYS[way](engine.leases, parsed, who))
        if answer is not None and isinstance(answer, NotYourLease) is own:
            text = f"{way} by {who} of what belongs to {row.lease.owner if row else 'nobody'}: {answer!r}"
            self._world.broken("a_lease_is_its_owners", suffix(lease_id), text)
        await self._list(who)

    async def _list(self, who: str) -> None:
        """List and count a tenant's leases, which are all of its own and no others."""
        before = self._own(who)
        listed = await self._client.ask(
            lambda engine: engine.leases.page(EVERYTHING, None, "", 10_000, only_owner=who)
        )
        counted = await self._client.ask(lambda engine: engine.leases.count(EVERYTHING, None, only_owner=who))
        after = self._own(who)
        if listed is not None and not before <= {lease.id for lease in listed} <= after:
            self._world.broken("a_list_has_ones_own_leases", "", f"{who} lists {listed}")
        total = None if counted is None else sum(one.count for one in counted)
        if total is not None and not len(before) <= total <= len(after):
            self._world.broken("a_list_has_ones_own_leases", "", f"{who} counts {total} of {len(after)}")

    def _own(self, who: str) -> set[str]:
        rows: Any = self._world.store.rows
        return {lease_id for lease_id, row in rows.items() if row.lease.owner == who}
