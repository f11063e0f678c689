"""The users of the server: callers with leases, operators, and people at AWS's console."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, system_pb2
from tests.simulation.client import Client, seconds
from tests.simulation.journal import ALL, suffix
from tests.simulation.tenants import Tenants
from tests.support import builders
from tests.support.iam import TOUCHES
from tests.support.iam_rules import RefusalError

if TYPE_CHECKING:
    from tests.simulation.world import World

ROLES = (
    builders.role("app"),
    builders.role("app2", policy_arns=builders.MANAGED[:2], iam_groups=("staff",)),
    builders.role("a_p"),
    builders.role("lost", iam_groups=("nowhere",)),
    builders.role("small", max_leases=1),
    builders.role("app", "lab"),
)
"""Names so that one is the beginning of another, and one is another's pattern."""
SESSION = builders.assumed(f"arn:aws:iam::{builders.ACCOUNT.rpartition(':')[2]}:role/target", "session")
"""Of sessions, which live for 15 minutes: AWS makes no shorter ones, and the mounts allow no longer ones."""
CHOICES = (*(ROLES[:4] * 2), ROLES[0], ROLES[2], ROLES[4], ROLES[5])
PREFIXES = ("aws/creds/app/", "aws/creds/a_p/", "aws/creds/small/", "aws/", "lab/creds/")
LIVES = (None, 5.0, 20.0, 60.0, 300.0, 900.0)
DEADLINES = (60.0, 60.0, 20.0, 5.0, 2.5)


def furnish(world: World) -> None:
    """Store mounts, roots and roles, as an operator would have before."""
    from lessor_server.domain.root import root_context

    account = builders.ACCOUNT if world.options.bound else ""
    for name, most in (("aws", 5000), ("lab", 2)):
        mount = builders.mount(name, default_lease_ttl=builders.HOUR / 60, max_users=most)
        world.store.mounts[name] = replace(mount, max_lease_ttl=builders.HOUR / 4)
        root = builders.stored_root(name, account)
        config = b'{"access_key": "%s", "secret_key": "not-a-secret"}' % builders.ROOT_KEY.encode()
        world.store.roots[name] = replace(root, sealed=world.sealer.seal(config, root_context(name), "1"))
    world.mine.add_role("target")
    for role in (*ROLES, SESSION):
        world.store.roles[role.mount, role.name] = role


Act = Callable[[random.Random], Awaitable[object]]


class Workload:
    """Spreads callers and operators over the run."""

    def __init__(self, world: World) -> None:
        """Use the servers of ``world``."""
        self._world = world
        self.client = Client(world)

    def plan(self) -> None:
        """Start all users, each at a drawn time."""
        options = self._world.options
        for number in range(options.callers):
            self._world.spawn(self._caller(number, options.rng(f"caller/{number}")))
        for name in ("prefixes", "abandons", "roots", "sweeps", "holds", "tunings", "touches", "orphans"):
            self._spread(name, getattr(options, name))
        self._spread("disables", options.disables)
        self._spread("handovers", options.handovers, self.hand_over)
        if self._world.rules.names:
            tenants = Tenants(self._world, self)
            self._spread("bursts", options.bursts, tenants.burst)
            self._spread("owned prefixes", options.owned_prefixes, tenants.revoke_own)
            self._spread("reaches", options.reaches, tenants.reach)

    def _spread(self, name: str, count: int, act: Act | None = None) -> None:
        if not count:
            return
        rng = self._world.options.rng(f"operator/{name}")
        act = act or getattr(self, f"_{name}")

        async def once(after: float) -> None:
            await asyncio.sleep(after)
            await act(rng)

        for _ in range(count):
            self._world.spawn(once(self._world.options.moment(rng)))

    # --- callers -------------------------------------------------------------------------------------------

    async def _caller(self, number: int, rng: random.Random) -> None:
        """Request a credential, perhaps several times, then use it for a while."""
        options, who = self._world.options, f"caller-{number}"
        await asyncio.sleep(options.begins(number))
        role, life = rng.choice(CHOICES), rng.choice(LIVES)
        if (options.disables or options.handovers) and rng.random() < 0.4:
            role = ROLES[-1]
        if options.sessions and options.rng(f"session/{number}").random() < options.sessions:
            role, life = SESSION, 900.0
        request = creds_pb2.GenerateCredentialsRequest(mount=role.mount, role=role.name, ttl=seconds(life))
        repeats = rng.random() < options.requests
        if repeats:
            request.request_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        if rng.random() < options.proving:
            request.wait_usable.FromSeconds(rng.randint(1, 40))
        answer = None
        for attempt in range(rng.randint(1, 3)):
            name = who if repeats else f"{who}.{attempt}"
            if repeats and self._world.replicas.several:
                self._world.spawn(self._hedge(request, name, rng))
            answer = await self._generate(request, name, rng) or answer
            if answer is not None and not (
                repeats and rng.random() < (0.7 if self._world.replicas.several else 0.3)
            ):
                break
            if options.leaving and rng.random() < 0.6:
                break
            await asyncio.sleep(rng.uniform(0.1, 10.0))
        if answer is not None:
            await self.use(answer.lease_id, life or 60.0, who, rng)

    async def _generate(
        self, request: creds_pb2.GenerateCredentialsRequest, who: str, rng: random.Random
    ) -> creds_pb2.GenerateCredentialsResponse | None:
        leaves = rng.random() < self._world.options.leaving
        call = self.client.generate(request, who, rng.choice(DEADLINES))
        if not leaves:
            return await call
        try:
            options = self._world.options
            async with asyncio.timeout(rng.uniform(0.0, 4 * options.latency + 3 * options.commit)):
                return await call
        except TimeoutError:
            self._world.journal.note(f"{who} goes away")
            return None

    async def _hedge(
        self, request: creds_pb2.GenerateCredentialsRequest, who: str, rng: random.Random
    ) -> None:
        """Send the same request again during the first one, perhaps to another replica."""
        await asyncio.sleep(rng.uniform(0.0, 4 * self._world.options.latency))
        if rng.random() < 0.7:
            await self._generate(request, who, rng)

    async def use(self, lease_id: str, life: float, who: str, rng: random.Random) -> None:
        """Renew and revoke a lease, or let it end."""
        options = self._world.options
        while rng.random() < options.renewals:
            await asyncio.sleep(rng.uniform(0.2, 1.02) * life)
            life = rng.choice((life, 10.0, 120.0))
            if await self.client.renew(lease_id, life, who) is None or not self._world.faults.on:
                break
        if rng.random() >= options.revocations:
            return
        await asyncio.sleep(rng.uniform(0.0, 1.02) * life)
        for _ in range(rng.choice((1, 1, 2, 3))):
            if rng.random() < 0.2:
                self._world.spawn(self._revoke(lease_id, who, rng))
            await self._revoke(lease_id, who, rng)

    async def _revoke(self, lease_id: str, who: str, rng: random.Random) -> None:
        await self.client.revoke(lease_id, sync=rng.random() < 0.5, who=who)

    # --- operators -----------------------------------------------------------------------------------------

    async def _prefixes(self, rng: random.Random) -> None:
        within = rng.choice((60.0, 60.0, self._world.options.commit / 2))
        await self.client.revoke_prefix(rng.choice(PREFIXES), sync=rng.random() < 0.3, within=within)

    async def _abandons(self, rng: random.Random) -> None:
        prefix = rng.choice(PREFIXES)
        await self.client.abandon(prefix)
        if rng.random() < 0.5:
            await asyncio.sleep(rng.uniform(1.0, 60.0))
            for lease_id in [one for one in sorted(self._world.store.rows) if one.startswith(prefix)]:
                await self.client.revoke(lease_id, sync=False, who="operator")

    async def _disables(self, rng: random.Random) -> None:
        await self.client.disable("lab", force=rng.random() < 0.5)

    async def hand_over(self, rng: random.Random) -> None:
        """Force a mount with an invalid root off, enable it for another account, revoke the rest."""
        ask = await self.client.disable("lab", force=True)
        while "lab" in self._world.store.mounts:
            await asyncio.sleep(1.0)
        await self.client.call("EnableMount", config_pb2.EnableMountRequest(mount="lab"))
        ask.until = self._world.now()
        config = config_pb2.RootConfig(access_key=builders.OTHER_ROOT_KEY, secret_key="not-a-secret")
        await self.client.call("SetRoot", config_pb2.SetRootRequest(mount="lab", config=config))
        for lease_id in [one for one in sorted(self._world.store.rows) if one.startswith("lab/")]:
            await self.client.revoke(lease_id, sync=rng.random() < 0.3, who="operator")

    async def _roots(self, rng: random.Random) -> None:
        from tests.simulation.world import SECOND_KEY

        keys = [SECOND_KEY, builders.ROOT_KEY]
        if not self._world.options.orphans:
            keys.append(builders.OTHER_ROOT_KEY)  # with none left, the account would not be reconciled
        key = rng.choice(keys)
        config = config_pb2.RootConfig(access_key=key, secret_key="not-a-secret")
        await self.client.call(
            "SetRoot", config_pb2.SetRootRequest(mount=rng.choice(("aws", "lab")), config=config)
        )

    async def _sweeps(self, rng: random.Random) -> None:
        request = lease_pb2.ReconcileRequest(mount=rng.choice(("aws", "lab")), apply=True)
        await self.client.call("Reconcile", request)

    async def _holds(self, rng: random.Random) -> None:
        if self._world.options.jumps and not self._world.replicas.several:
            return  # to resume would be to believe a clock that may be wrong
        if self._world.replicas.several:
            await self._just_before_an_expiry(rng)
        await self.client.call("HoldExpiry", system_pb2.HoldExpiryRequest(reason="a test"))
        await asyncio.sleep(rng.uniform(1.0, 120.0))
        await self.client.resume(lower_clock=False)

    async def _just_before_an_expiry(self, rng: random.Random) -> None:
        """Wait until a lease that ends soon has a few seconds left."""
        store = self._world.store
        left = [(row.lease.expires_us - store.now()) / 1e6 for row in store.rows.values()]
        soon = [seconds for seconds in left if 0.0 < seconds < 60.0]
        if soon:
            await asyncio.sleep(max(min(soon) - rng.uniform(0.0, 4.0), 0.0))

    async def _tunings(self, rng: random.Random) -> None:
        request = config_pb2.SetLeaseDefaultsRequest(mount="aws", lease=seconds(30), lease_max=seconds(120))
        await self.client.call("SetLeaseDefaults", request)

    # --- people at AWS's console ---------------------------------------------------------------------------

    async def _touches(self, rng: random.Random) -> None:
        """Change some user of ours."""
        users = sorted(self._world.expectations.users(), key=lambda user: user.name)
        if not users:
            return
        user = rng.choice(users)
        what = rng.choice((*sorted(set(TOUCHES) - {"user"}), "forget", "strip"))
        self._world.journal.note(f"somebody does {what} to the user", suffix(user.name))
        record = self._world.expectations.records.get(suffix(user.name))
        if record is not None:
            record.touched = True
            record.asked = record.asked or what == "forget"
        account = (
            self._world.mine if user.arn.split(":")[4] == self._world.mine.account else self._world.other
        )
        try:
            if what == "forget":
                account.forget(user.name)
            elif what == "strip":
                user.inline.clear()
                user.attached.clear()
                user.groups.clear()
            else:
                account.touch(user.name, [what])
        except RefusalError:
            return

    async def _orphans(self, rng: random.Random) -> None:
        """Create a user of ours without a row."""
        from tests.simulation.world import INSTANCE

        mark = f"{rng.getrandbits(60):024d}"
        tags = (
            ("lessor:instance", INSTANCE),
            ("lessor:lease", f"aws/creds/app/{mark}"),
            ("lessor:role", "app"),
        )
        self._world.mine.create_user(f"lessor-aws-app-{mark}", f"/lessor/{INSTANCE}/", tags)
        self._world.journal.note("a user of ours appears that no row knows", ALL)
