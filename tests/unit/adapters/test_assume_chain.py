"""Checks over HTTP how the sessions of an assume chain are created, shared and replaced."""

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


async def test_each_hop_is_signed_with_the_session_of_the_one_before(aws: StandIn) -> None:
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


async def test_hops_use_the_fallback_endpoints_of_sts(aws: StandIn) -> None:
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
    """The hop's ARN is only in the detail, for the log."""
    hub, spoke = await two_hops(aws)
    end = chained(root(aws.url), hub, Hop(spoke.role_arn, "wrong"))
    async with gateway(aws.url) as door:
        with pytest.raises(AwsRefused, match=r"assume_chain\[1\]: AccessDenied") as raised:
            await door.send(end, GetCallerIdentity())
    assert raised.value.refusal is Refusal.DENIED
    assert spoke.role_arn in raised.value.detail
    assert spoke.role_arn not in str(raised.value)


async def test_a_hop_without_an_answer_means_that_nothing_was_sent(aws: StandIn) -> None:
    """The call itself was never sent, so the engine knows that it had no effect."""
    hub, _ = await two_hops(aws)
    await aws.fault("drop", "AssumeRole")
    async with gateway(aws.url) as door:
        with pytest.raises(AwsUnknown, match=r"assume_chain\[0\]") as raised:
            await door.send(chained(root(aws.url), hub), GetUser("ann"))
    assert not raised.value.sent
    assert await aws.calls("GetUser") == []


async def test_concurrent_calls_share_one_session(aws: StandIn) -> None:
    hub, spoke = await two_hops(aws)
    end = chained(root(aws.url), hub, spoke)
    async with gateway(aws.url) as door:
        for _ in range(2):
            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(door.send(end, GetCallerIdentity()))
            assert await assumed(aws) == 2


async def test_concurrent_calls_share_one_failure(aws: StandIn) -> None:
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


async def test_a_session_is_replaced_ten_minutes_before_it_ends(aws: StandIn) -> None:
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


async def test_a_valid_session_is_used_during_an_outage_of_sts(aws: StandIn) -> None:
    """A failed renewal is retried after 30 s at most."""
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
async def test_a_call_waits_at_most_two_seconds_for_a_new_session_while_the_old_one_is_valid() -> None:
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


async def test_without_a_valid_session_an_outage_of_sts_fails_the_call(aws: StandIn) -> None:
    """A session with less than a minute left is not used."""
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


async def test_a_session_that_aws_calls_expired_is_replaced_and_the_call_sent_again(aws: StandIn) -> None:
    """It may have expired while the machine was suspended."""
    hub, _ = await two_hops(aws)
    end = chained(root(aws.url), hub)
    async with gateway(aws.url) as door:
        await door.send(end, GetCallerIdentity())
        await aws.account(clock_offset=7200)
        await door.send(end, GetCallerIdentity())
    assert [call["outcome"] for call in await aws.calls("GetCallerIdentity")] == ["ok", "ExpiredToken", "ok"]


async def test_concurrent_calls_with_an_expired_session_share_the_next_one(aws: StandIn) -> None:
    hub, _ = await two_hops(aws)
    end = chained(root(aws.url), hub)
    async with gateway(aws.url) as door:
        await door.send(end, GetCallerIdentity())
        await aws.account(clock_offset=7200)
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(door.send(end, GetCallerIdentity()))
    assert await assumed(aws) == 2


async def test_each_mount_and_version_signs_with_its_own_credentials(aws: StandIn) -> None:
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
