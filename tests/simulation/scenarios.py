"""Short scenarios, which are run with a death at each effect in turn."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2, system_pb2
from tests.simulation.client import Client, seconds
from tests.simulation.rules import MOST
from tests.simulation.workload import Workload
from tests.simulation.world import INSTANCE, SECOND_KEY, World
from tests.support import builders

OLD_ENOUGH = 16 * 60.0
"""A user of this age may be adopted."""


@dataclass(slots=True)
class Stage:
    """A world, a client, and the leases of a scenario."""

    world: World
    workload: Workload
    leases: list[str] = field(default_factory=list)

    @property
    def client(self) -> Client:
        """Return the client of the scenario."""
        return self.workload.client

    async def issue(
        self,
        role: str = "app",
        mount: str = "aws",
        life: float = 60.0,
        request: str = "",
        within: float = 60.0,
        who: str = "",
    ) -> Any:
        """Request a credential; each request id is one caller, and without one each call is another."""
        asked = creds_pb2.GenerateCredentialsRequest(
            mount=mount, role=role, ttl=seconds(life), request_id=request
        )
        who = who or request or f"caller-{len(self.world.expectations.callers)}"
        answer = await self.client.generate(asked, who, within)
        if answer is not None:
            self.leases.append(answer.lease_id)
        return answer


Act = Callable[[Stage], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is there before, what then happens, and how many seconds the effects of it are followed.

    ``within`` is how long it is waited for until it has happened; with several ``replicas`` each call goes to
    any of them, and the others go on where one dies.
    """

    name: str
    prepare: Act
    act: Act
    after: float = 5.0
    within: float = 120.0
    replicas: int = 1
    tenants: int = 0
    rate: float = 0.0


async def _nothing(_: Stage) -> None:
    """Prepare nothing."""


async def _one_lease(stage: Stage) -> None:
    await stage.issue("app2")


async def _two_leases(stage: Stage) -> None:
    await stage.issue("app2")
    await stage.issue("a_p")


async def _renew(stage: Stage) -> None:
    await stage.client.renew(stage.leases[0], 120.0, "caller-0")


async def _revoke(stage: Stage) -> None:
    await stage.client.revoke(stage.leases[0], sync=True, who="caller-0")


async def _soon_over(stage: Stage) -> None:
    await stage.issue("app2", life=5.0)


async def _wait(stage: Stage) -> None:
    await asyncio.sleep(10.0)


async def _prefix(stage: Stage) -> None:
    await stage.client.revoke_prefix("aws/creds/app2/", sync=True)


async def _lab_lease(stage: Stage) -> None:
    await stage.issue("app", mount="lab")


async def _disable(stage: Stage) -> None:
    await stage.client.disable("lab", force=False)


async def _set_root(stage: Stage, mount: str, key_id: str) -> None:
    config = config_pb2.RootConfig(access_key=key_id, secret_key="not-a-secret")
    await stage.client.call("SetRoot", config_pb2.SetRootRequest(mount=mount, config=config))


async def _change_root(stage: Stage) -> None:
    await _set_root(stage, "aws", SECOND_KEY)
    await stage.issue()


async def _stranger(stage: Stage) -> None:
    """Create a user of ours without a row, and a tombstone."""
    await stage.issue()
    await stage.client.revoke(stage.leases[0], sync=True, who="caller-0")
    await asyncio.sleep(2.0)  # a user made before this start would tell of a restored store
    mark = "0" * 23 + "1"
    tags = (("lessor:instance", INSTANCE), ("lessor:lease", f"aws/creds/app/{mark}"), ("lessor:role", "app"))
    stage.world.mine.create_user(f"lessor-aws-app-{mark}", f"/lessor/{INSTANCE}/", tags)
    stage.world.sleep(OLD_ENOUGH)


async def _sweep(stage: Stage) -> None:
    await stage.client.call("Reconcile", lease_pb2.ReconcileRequest(mount="aws", apply=True))


async def _beyond_the_window(stage: Stage) -> None:
    await stage.issue(life=630.0)
    await asyncio.sleep(295.0 - stage.world.now())


async def _start(stage: Stage) -> None:
    """Die with one live lease, one expired and one half created; then start."""
    stage.world.spawn(_quietly(stage.issue("a_p")))
    await asyncio.sleep(0.06)
    stage.world.replicas.serving[0].kill()
    await asyncio.sleep(22.0)


async def _quietly(job: Awaitable[object]) -> None:
    await job


async def _die_while_making(stage: Stage) -> None:
    """Die between CreateUser and the rest."""
    world = stage.world
    world.spawn(_quietly(stage.issue("a_p")))
    await asyncio.sleep(0.06)
    world.replicas.serving[0].kill()


async def _wrong_clock(stage: Stage) -> None:
    """Die while a user is created, and start with a wall clock that is an hour ahead."""
    stage.world.clocks.wall_ahead = 3600.0
    await _die_while_making(stage)
    await asyncio.sleep(40.0)


async def _sleep_on_it(stage: Stage) -> None:
    """Suspend the machine after AWS's answer that a user does not exist."""
    world = stage.world
    await _die_while_making(stage)
    for _ in range(3000):
        looks = sum("DeleteUser: NoSuchEntity" in line for _, _, line in world.journal.lines)
        if looks == 2:
            world.sleep(20 * 60.0)
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(10.0)


async def _request_again(stage: Stage) -> None:
    request = str(uuid.UUID(int=7, version=4))
    await stage.issue(request=request)
    await stage.issue(request=request)


async def _slept_through(stage: Stage) -> None:
    """Suspend for 15 s long before a lease ends, and wait for its end."""
    await stage.issue("app2", life=120.0)
    stage.world.sleep(15.0)
    await asyncio.sleep(130.0)


async def _wait_a_minute(_: Stage) -> None:
    """Wait until the effects of a start are over before the first lease ends."""
    await asyncio.sleep(60.0)


async def _repeat_and_leave(stage: Stage) -> None:
    """Cancel a request at one process, which is then stopped, and then at another."""
    world, request = stage.world, str(uuid.UUID(int=9, version=4))
    await _leave(stage, request)
    await asyncio.sleep(1.0)  # it is issued nevertheless, for a minute
    maker = next(iter(world.expectations.callers[request].replicas), None)
    if maker is not None:
        world.replicas.stop(maker, 20 * 60.0)
    for _ in range(10):
        if len(world.expectations.callers[request].replicas) == 1:
            await _leave(stage, request)
    await asyncio.sleep(100.0)


async def _leave(stage: Stage, request: str) -> None:
    try:
        async with asyncio.timeout(0.06):
            await stage.issue(request=request)
    except TimeoutError:
        return


async def _request_twice_at_once(stage: Stage) -> None:
    """Send a request id twice, the second time perhaps during the first, then once more."""
    request = str(uuid.UUID(int=7, version=4))
    first = stage.world.spawn(_quietly(stage.issue(request=request)))
    await asyncio.sleep(0.03)
    await stage.issue(request=request)
    await first
    await stage.issue(request=request)


async def _prefix_while_issuing(stage: Stage) -> None:
    """Revoke a role's leases while another of them is being issued."""
    made = stage.world.spawn(_quietly(stage.issue("app2")))
    await asyncio.sleep(0.03)
    await stage.client.revoke_prefix("aws/creds/app2/", sync=True)
    await made


async def _revoke_while_creating(stage: Stage) -> None:
    """Revoke a lease while its user is being created; CreateUser may be sent again once the lease is gone."""
    world = stage.world
    issue = world.spawn(_quietly(stage.issue("a_p")))
    await asyncio.sleep(0.03)
    await stage.client.revoke_prefix("aws/creds/a_p/", sync=True)
    await issue
    await asyncio.sleep(160.0)  # a claim whose answer was lost runs out after two minutes
    if world.replicas.lives == 1 and any(world.expectations.users()):
        world.broken("what_was_made_late_goes_soon", "", "a user created after its row was GONE is left")


async def _root_in_memory_everywhere(stage: Stage) -> None:
    """Set a mount's root twice, and let every replica read it before anybody knows its account."""
    for _ in range(2):
        await _set_root(stage, "lab", SECOND_KEY)
    for _ in range(12):
        await stage.client.call("GetRoot", config_pb2.GetRootRequest(mount="lab"))


async def _hand_over(stage: Stage) -> None:
    """Issue a lease on a mount, give the mount up, and enable one of its name for another account."""
    await stage.issue("app", mount="lab")
    await stage.workload.hand_over(random.Random(1))


async def _session(stage: Stage) -> None:
    await stage.issue("session", life=900.0)


async def _session_again(stage: Stage) -> None:
    """Request a session twice with one request id, and revoke it."""
    request = str(uuid.UUID(int=8, version=4))
    for _ in range(2):
        await stage.issue("session", life=900.0, request=request)
    for lease_id in stage.leases[:1]:
        await stage.client.revoke(lease_id, sync=False, who="caller-0")


async def _root_is_a_user(stage: Stage) -> None:
    """Give the root the key of a user, and create a user for a static role."""
    stage.world.mine.adopt_root(builders.ROOT_KEY)
    stage.world.mine.create_user("billing").visible_at = 0.0
    await _set_root(stage, "lab", SECOND_KEY)  # no key goes that another mount has as its root


async def _root_is_a_chain(stage: Stage) -> None:
    """Give the root an assume chain into the other account."""
    await _root_is_a_user(stage)
    mine, other = stage.world.mine, stage.world.other
    mine.peers[other.account], other.peers = other, mine.peers
    hop = config_pb2.AssumeStep(role_arn=other.add_role("spoke").arn)
    config = config_pb2.RootConfig(
        access_key=builders.ROOT_KEY, secret_key="not-a-secret", assume_chain=[hop]
    )
    await stage.client.call("SetRoot", config_pb2.SetRootRequest(mount="aws", config=config))
    await stage.issue()


async def _rotate_root(stage: Stage) -> None:
    """Rotate the root's key, and issue with the new one while the old one is deleted."""
    await stage.client.call("RotateRoot", config_pb2.RotateRootRequest(mount="aws"))
    await stage.issue(life=20.0)
    await asyncio.sleep(70.0)


async def _beside_a_key(stage: Stage) -> None:
    """Create a foreign key for the user of a static role."""
    await _root_is_a_user(stage)
    stage.world.strange_keys.add(stage.world.mine.create_access_key("billing").id)


async def _put_static(stage: Stage) -> None:
    static = role_pb2.StaticRole(name="billing", username="billing", rotation_period=seconds(7 * 86400))
    await stage.client.call("PutStaticRole", role_pb2.PutStaticRoleRequest(mount="aws", static_role=static))


async def _rotate_static(stage: Stage) -> None:
    """Put a static role, which rotates once, and rotate it again."""
    await _put_static(stage)
    await stage.client.call("RotateStaticRole", role_pb2.RotateStaticRoleRequest(mount="aws", name="billing"))


async def _static_beside(stage: Stage) -> None:
    """Put a static role whose user has a foreign key."""
    await _beside_a_key(stage)
    await _put_static(stage)


async def _delete_static(stage: Stage) -> None:
    await stage.client.call("DeleteStaticRole", role_pb2.DeleteStaticRoleRequest(mount="aws", name="billing"))


async def _disable_static(stage: Stage) -> None:
    await stage.client.disable("aws", force=False)


async def _lab_and_another(stage: Stage) -> None:
    await stage.issue("app", mount="lab")
    await stage.issue("app", life=20.0)


async def _force(stage: Stage) -> None:
    """Disable a mount by force while its lease is being revoked."""
    await stage.client.revoke(stage.leases[0], sync=False, who="caller-0")
    await asyncio.sleep(0.1)
    await stage.client.disable("lab", force=True)


async def _stop(stage: Stage) -> None:
    """Stop the process that creates a user, until another one believes the user gone."""
    world = stage.world
    world.spawn(_quietly(stage.issue("a_p")))
    await asyncio.sleep(0.004)
    (maker,) = world.expectations.callers["caller-0"].replicas
    world.replicas.stop(maker, 20 * 60.0)
    await asyncio.sleep(20 * 60.0 + 160.0)  # a claim whose answer was lost runs out after two minutes
    if world.replicas.lives == 2 and any(world.expectations.users()):
        world.broken("what_was_made_late_goes_soon", "", "a user made after its row was GONE is left")


async def _lease_of_each(stage: Stage) -> None:
    for who in stage.world.rules.names:
        await stage.issue("app", life=300.0, who=who)


async def _prefix_of_an_owner(stage: Stage) -> None:
    await stage.client.revoke_prefix("aws/creds/", sync=True, owner=stage.world.rules.names[0])


async def _fill_a_rule(stage: Stage) -> None:
    """Ask for more credentials than the rule allows, all at the same time."""
    who = stage.world.rules.names[0]
    asked = [stage.world.spawn(_quietly(stage.issue("app2", who=who))) for _ in range(MOST + 1)]
    await asyncio.wait(asked)


async def _rotate_sealing_key(stage: Stage) -> None:
    """Rotate the data key while a static role rotates, and use what is sealed under the new one."""
    stage.world.spawn(_quietly(_put_static(stage)))
    await stage.client.call("RotateSealingKey", system_pb2.RotateSealingKeyRequest())
    await stage.issue(life=20.0)
    await stage.client.call("RotateRoot", config_pb2.RotateRootRequest(mount="aws"))
    await asyncio.sleep(70.0)
    if len(stage.world.store.data_keys) != 1:
        stage.world.broken("a_rotation_of_the_sealing_key_is_finished", "", "an earlier data key is left")


async def _more_than_the_rate(stage: Stage) -> None:
    """Ask all replicas for more than the rate allows, and stop one until its share has ended."""
    world = stage.world
    world.shake(300.0)  # calls wait in the queues
    world.later(9.0, lambda: world.replicas.stop(world.replicas.serving[-1], 13.5))
    until = world.now() + 28.0
    issues = [world.spawn(_quietly(stage.issue("app2", life=90.0 + 5 * one))) for one in range(3)]
    while world.now() < until:
        await asyncio.sleep(5.0)
        life = 120.0 + 5 * len(issues)
        issues.append(world.spawn(_quietly(stage.issue("app2", life=life, within=20.0))))
    await asyncio.wait(issues)


SCENARIOS = (
    Scenario("issue", _nothing, lambda stage: stage.issue("app2")),
    Scenario("renew", _one_lease, _renew),
    Scenario("revoke", _one_lease, _revoke),
    Scenario("expire", _soon_over, _wait),
    Scenario("prefix", _two_leases, _prefix),
    Scenario("disable", _lab_lease, _disable),
    Scenario("root", _one_lease, _change_root),
    Scenario("sweep", _stranger, _sweep),
    Scenario("forced", _lab_and_another, _force),
    Scenario("stopped", _nothing, _stop, within=1500.0, replicas=2),
    Scenario("refill", _beyond_the_window, _wait),
    Scenario("start", _soon_over, _start),
    Scenario("clock", _nothing, _wrong_clock),
    Scenario("asleep", _nothing, _sleep_on_it),
    Scenario("repeat", _nothing, _request_again),
    Scenario("revoked while created", _nothing, _revoke_while_creating, within=300.0),
    Scenario("handed over", _root_in_memory_everywhere, _hand_over, within=300.0, replicas=2),
    Scenario("session", _nothing, _session),
    Scenario("session again", _nothing, _session_again),
    Scenario("rotate root", _root_is_a_user, _rotate_root),
    Scenario("rotate chain", _root_is_a_chain, _rotate_root),
    Scenario("rotate static", _root_is_a_user, _rotate_static),
    Scenario("static beside", _beside_a_key, _put_static),
    Scenario("delete static", _static_beside, _delete_static),
    Scenario("disable static", _static_beside, _disable_static),
    Scenario("slept through", _nothing, _slept_through, within=300.0),
    Scenario("repeat and leave", _wait_a_minute, _repeat_and_leave, within=300.0, replicas=2),
    Scenario("repeat elsewhere", _nothing, _request_twice_at_once, replicas=2),
    Scenario("prefix elsewhere", _one_lease, _prefix_while_issuing, replicas=2),
    Scenario("prefix of an owner", _lease_of_each, _prefix_of_an_owner, tenants=2),
    Scenario("rotate sealing key", _root_is_a_user, _rotate_sealing_key),
    Scenario("rule full", _nothing, _fill_a_rule, replicas=2, tenants=1),
    Scenario("revoke elsewhere", _one_lease, _revoke, replicas=2),
    Scenario("shared rate", _nothing, _more_than_the_rate, replicas=3, rate=4.0),
)
