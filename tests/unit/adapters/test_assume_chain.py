"""Checks assume chains over HTTP: hop by hop, made once, made anew in time, and nobody else's."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.gateways import KEY, NOBODY_THERE, chained, gateway, root
from tests.support.standin_control import StandIn
from tests.support.virtual_loop import virtual

from lessor_server.adapters.aws.assume_chain import EARLY_SECONDS, PATIENCE_SECONDS, SESSION_SECONDS, Chains
from lessor_server.domain.aws.errors import AwsRefused, AwsUnknown, Refusal
from lessor_server.domain.aws.iam_calls import Call, GetUser, ListAccessKeys, ListUsers
from lessor_server.domain.aws.sts_calls import GetCallerIdentity, Session
from lessor_server.domain.root import Hop, Root
from lessor_server.domain.secret import Secret

HUB, SPOKE = "111111111111", "222222222222"


class Clock:
    """A clock that tests set, in seconds."""

    def __init__(self) -> None:
        """Begin at some instant."""
        self.at = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.at


async def two_hops(aws: StandIn) -> tuple[str, Hop]:
    """Make a role in a hub's account, and one beyond it that trusts the first and asks for an external id."""
    hub = await aws.role("hub", account=HUB, trusts=["123456789012"])
    spoke = await aws.role("team/spoke", account=SPOKE, trusts=[hub], external_id="sesame")
    return hub, Hop(spoke, "sesame")


async def assumed(aws: StandIn) -> int:
    """Count the roles that were assumed."""
    return (await aws.totals()).get("AssumeRole", 0)


async def test_a_chain_is_walked_hop_by_hop(aws: StandIn) -> None:
    """Each hop is signed with the session of the one before; the calls are the last role's."""
    hub, spoke = await two_hops(aws)
    async with gateway(aws.url) as door:
        who = await door.send(chained(root(aws.url), hub, spoke), GetCallerIdentity())
    assert (who.account, who.arn) == (
        f"aws:{SPOKE}",
        f"arn:aws:sts::{SPOKE}:assumed-role/spoke/lessor-test",
    )
    first, second = await aws.calls("AssumeRole")
    (last,) = await aws.calls("GetCallerIdentity")
    signers = [str(call["key_id"]) for call in (first, second, last)]
    assert signers[0] == KEY
    assert [signer[:4] for signer in signers[1:]] == ["ASIA", "ASIA"]
    assert signers[1] != signers[2]


async def test_a_chain_is_walked_at_the_place_that_answers(aws: StandIn) -> None:
    """Hops go to the fallbacks of STS as every call does, and the chain is there for IAM's calls too."""
    hub, spoke = await two_hops(aws)
    away = root(
        aws.url,
        sts_endpoint=NOBODY_THERE,
        sts_fallback_endpoints=(aws.url,),
        sts_fallback_regions=("eu-west-1",),
    )
    async with gateway(aws.url) as door:
        page = await door.send(chained(away, hub, spoke), ListUsers("/"))
    assert page.users == ()
    assert await assumed(aws) == 2


async def test_a_hop_that_is_refused_is_named(aws: StandIn) -> None:
    """The error says which hop, with AWS's code; its ARN stands in the detail for the log alone."""
    hub, spoke = await two_hops(aws)
    end = chained(root(aws.url), hub, Hop(spoke.role_arn, "wrong"))
    async with gateway(aws.url) as door:
        with pytest.raises(AwsRefused, match=r"assume_chain\[1\]: AccessDenied") as told:
            await door.send(end, GetCallerIdentity())
    assert told.value.refusal is Refusal.DENIED
    assert spoke.role_arn in told.value.detail
    assert spoke.role_arn not in str(told.value)


async def test_a_hop_without_an_answer_means_that_nothing_was_sent(aws: StandIn) -> None:
    """The call itself never left, so the engine knows that it had no effect."""
    hub, _ = await two_hops(aws)
    await aws.fault("drop", "AssumeRole")
    async with gateway(aws.url) as door:
        with pytest.raises(AwsUnknown, match=r"assume_chain\[0\]") as told:
            await door.send(chained(root(aws.url), hub), GetUser("ann"))
    assert not told.value.sent
    assert await aws.calls("GetUser") == []


async def test_calls_at_once_share_one_session(aws: StandIn) -> None:
    """Twenty calls by a fresh chain of two roles assume two roles, and twenty more assume none."""
    hub, spoke = await two_hops(aws)
    end = chained(root(aws.url), hub, spoke)
    async with gateway(aws.url) as door:
        for _ in range(2):
            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(door.send(end, GetCallerIdentity()))
            assert await assumed(aws) == 2


async def test_calls_at_once_share_one_failure(aws: StandIn) -> None:
    """Whoever waits for a session that AWS refuses hears that refusal; STS is asked once, and later anew."""
    hub, _ = await two_hops(aws)
    end = chained(root(aws.url), Hop(hub))
    await aws.fault("refuse", "AssumeRole", times=1)
    async with gateway(aws.url) as door, asyncio.TaskGroup() as group:

        async def refused() -> None:
            with pytest.raises(AwsRefused):
                await door.send(end, GetCallerIdentity())

        for _ in range(20):
            group.create_task(refused())
    async with gateway(aws.url) as door:
        await door.send(end, GetCallerIdentity())
    assert await assumed(aws) == 2


async def test_a_session_is_made_anew_before_it_ends(aws: StandIn) -> None:
    """With ten minutes left of the hour the next call makes a new session and signs with it."""
    hub, _ = await two_hops(aws)
    clock = Clock()
    end = chained(root(aws.url), hub)
    async with gateway(aws.url, now=clock) as door:
        await door.send(end, GetCallerIdentity())
        clock.at += 2999
        await door.send(end, GetCallerIdentity())
        assert await assumed(aws) == 1
        clock.at += 2
        await door.send(end, GetCallerIdentity())
    assert await assumed(aws) == 2
    signers = [call["key_id"] for call in await aws.calls("GetCallerIdentity")]
    assert signers[0] == signers[1] != signers[2]


async def test_a_session_that_serves_outlives_an_outage_of_sts(aws: StandIn) -> None:
    """While the old session is good a failed renewal fails no call, and is tried again after 30 s at most."""
    hub, _ = await two_hops(aws)
    clock = Clock()
    end = chained(root(aws.url), hub)
    async with gateway(aws.url, now=clock) as door:
        await door.send(end, GetCallerIdentity())
        await aws.fault("error_before", "AssumeRole", times=2, status=503)
        for passing, tries in ((3010, 2), (10, 2), (21, 3), (31, 4), (10, 4)):
            clock.at += passing
            await door.send(end, GetCallerIdentity())
            assert await assumed(aws) == tries


@virtual
async def test_a_call_waits_two_seconds_at_most_for_a_new_session_while_the_old_one_serves() -> None:
    """STS that does not answer holds up no revocation that the old session can sign."""
    loop = asyncio.get_running_loop()
    silent = False

    async def send(_: Root, __: Call[Session]) -> Session:
        if silent:
            await loop.create_future()
        return Session("ASIA1", Secret("s"), Secret("t"), 0, "arn")

    chains, end = Chains(send, "test"), chained(root(NOBODY_THERE), f"arn:aws:iam::{HUB}:role/hub")
    first = await chains.ready(end)
    silent = True
    await asyncio.sleep(SESSION_SECONDS - EARLY_SECONDS + 1)
    begin = loop.time()
    assert await chains.ready(end) is first
    assert loop.time() - begin == pytest.approx(PATIENCE_SECONDS)


async def test_without_a_session_an_outage_of_sts_is_told(aws: StandIn) -> None:
    """With less than a minute left nothing is signed any more: the call fails, and the next tries anew."""
    hub, _ = await two_hops(aws)
    clock = Clock()
    end = chained(root(aws.url), hub)
    async with gateway(aws.url, now=clock) as door:
        await door.send(end, GetCallerIdentity())
        await aws.fault("error_before", "AssumeRole", times=1, status=503)
        clock.at += 3599
        with pytest.raises(AwsUnknown, match=r"assume_chain\[0\]"):
            await door.send(end, GetCallerIdentity())
        await door.send(end, GetCallerIdentity())


async def test_a_session_that_aws_calls_expired_is_made_anew(aws: StandIn) -> None:
    """When the machine slept through a session's end, the call is sent once more with a new one."""
    hub, _ = await two_hops(aws)
    end = chained(root(aws.url), hub)
    async with gateway(aws.url) as door:
        await door.send(end, GetCallerIdentity())
        await aws.account(clock_offset=7200)
        await door.send(end, GetCallerIdentity())
    assert [call["outcome"] for call in await aws.calls("GetCallerIdentity")] == ["ok", "ExpiredToken", "ok"]


async def test_calls_at_once_that_met_the_end_of_a_session_share_the_next(aws: StandIn) -> None:
    """Twenty calls that AWS refuses for an expired session are all answered, and one session was made."""
    hub, _ = await two_hops(aws)
    end = chained(root(aws.url), hub)
    async with gateway(aws.url) as door:
        await door.send(end, GetCallerIdentity())
        await aws.account(clock_offset=7200)
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(door.send(end, GetCallerIdentity()))
    assert await assumed(aws) == 2


async def test_no_mount_or_version_signs_for_another(aws: StandIn) -> None:
    """Mounts, versions and chains at one endpoint each sign with their own key or session, calls mixed."""
    hub, spoke = await two_hops(aws)
    ends = {
        "keys": root(aws.url),
        "other keys": root(aws.url, "other", access_key="AKIAOTHEROTHEROTHER0"),
        "newer keys": root(aws.url, "aws", 2, access_key="AKIANEWERNEWERNEWER0"),
        "hub": chained(root(aws.url), hub),
        "hub of another mount": chained(root(aws.url, "other"), hub),
        "hub of a newer version": chained(root(aws.url, "aws", 2), hub),
        "spoke": chained(root(aws.url), hub, spoke),
    }
    async with gateway(aws.url) as door, asyncio.TaskGroup() as group:
        for _ in range(5):
            for name, one in ends.items():
                group.create_task(_mark(door.send(one, ListAccessKeys(name.replace(" ", "-")))))
    signers: dict[str, set[str]] = {}
    for call in await aws.calls("ListAccessKeys"):
        signers.setdefault(str(call["user"]), set()).add(str(call["key_id"]))
    assert len(signers) == len(ends)
    assert all(len(keys) == 1 for keys in signers.values())
    assert len(set().union(*signers.values())) == len(ends)
    assert signers["keys"] == {KEY}
    assert signers["newer-keys"] == {"AKIANEWERNEWERNEWER0"}


async def _mark(sending: object) -> None:
    with pytest.raises(AwsRefused):
        await sending  # type: ignore[misc]
