"""Checks who a caller is by its JWT, which JWTs are remembered, and how many new ones are verified."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.identifier_world import (
    KEY,
    RULES,
    TOKEN,
    World,
    bearer,
    world,
)
from tests.support.json_web_tokens import NOW, SigningKey, claims, issuer, key_set
from tests.support.virtual_loop import virtual

from lessor_server.adapters.identity.jwt_limiter import MAX_PEERS, JwtLimiter, JwtLimits
from lessor_server.adapters.identity.key_source import KeysUnreadable
from lessor_server.adapters.identity.known_callers import MAX_BYTES, MAX_REMEMBERED, KnownCallers
from lessor_server.domain.access.acl import Capability
from lessor_server.domain.access.caller import AuthMethod
from lessor_server.domain.errors.access import IssuerUnavailable, TryLater
from lessor_server.domain.errors.base import Unauthenticated


@virtual
async def test_a_jwt_identifies_its_identity() -> None:
    async with world() as here:
        found = await here.who(bearer(KEY.sign(claims(exp=NOW + 60))))
        assert (found.name, found.auth_method, found.labels) == (
            "gh/repo:acme/app",
            AuthMethod.JWT,
            {"team": "red"},
        )
        assert found.expires_at == NOW + 90
        assert found.may("aws/creds/red", Capability.READ)


@virtual
async def test_a_known_jwt_is_judged_without_keys_and_signature() -> None:
    token = KEY.sign(claims())
    async with world() as here:
        first = await here.who(bearer(token))
        identify = here.identifier.identify(bearer(token))
        with pytest.raises(StopIteration) as ended:
            identify.send(None)
        assert ended.value.value is first
        assert here.reader.reads == ["ci"]


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (KEY.sign(claims(exp=NOW - 31)), "expired"),
        (KEY.sign(claims(nbf=NOW + 60)), "not valid yet"),
        (KEY.sign(claims(exp="soon")), "exp"),
        (KEY.sign(claims(exp=1e308)), "exp"),
        (KEY.sign(claims(aud="other")), "another audience"),
        (KEY.sign(claims(iss="https://issuer.example/")), 'no issuer "https://issuer.example/"'),
        (KEY.sign(claims(iss="https://evil.example")), "no issuer"),
        (KEY.sign('{"iss":"https://issuer.example","sub":"a","sub":"b"}'), "twice"),
        (KEY.sign(claims(), algorithm="RS512"), "algorithm"),
        (SigningKey("one", "P-256").sign(claims()), "no single key"),
        (SigningKey("two").sign(claims()), "no single key"),
        (SigningKey("one", number=1).sign(claims()), "signature"),
        (KEY.sign(claims(), {"alg": "none", "kid": "one"}), "algorithm"),
        (KEY.sign(claims(), {"alg": "HS256", "kid": "one"}), "algorithm"),
        (KEY.sign(claims(), {"alg": "RS256", "kid": "one", "crit": ["x"]}), "crit"),
        (KEY.sign(claims(sub="a/../b")), "segment"),
        (KEY.sign(claims(sub="")), "value of"),
        (KEY.sign(claims(sub="x" * 300)), "value of"),
        (KEY.sign(claims(sub=None)), "no identity"),
        (KEY.sign(claims())[:-20] + "A" * 20, "signature|canonical"),
        (f"{KEY.sign(claims())}x.", "unknown"),
    ],
)
@virtual
async def test_a_bad_jwt_is_refused_with_the_reason(token: str, said: str) -> None:
    async with world() as here:
        with pytest.raises(Unauthenticated, match=said) as caught:
            await here.who(bearer(token))
        assert caught.value.reason == "UNAUTHENTICATED"
        assert len(caught.value.message) < 250
        assert token.rsplit(".", maxsplit=1)[-1][:20] not in caught.value.message or token.endswith("x.")


@virtual
async def test_no_keys_are_read_for_a_jwt_that_could_not_be_accepted() -> None:
    async with world() as here:
        assert "expired" in await here.refusal(bearer(KEY.sign(claims(exp=NOW - 31))))
        assert "another audience" in await here.refusal(bearer(KEY.sign(claims(aud="other"))))
        assert here.reader.reads == []


@virtual
async def test_a_jwt_without_a_kid_needs_a_set_of_one_key() -> None:
    bare = bearer(SigningKey(None).sign(claims()))
    async with world() as here:
        assert (await here.who(bare)).name == "gh/repo:acme/app"
    async with world() as here:
        here.reader.answer = key_set(KEY, SigningKey("two", "P-256"))
        assert "without a kid" in await here.refusal(bare)


@virtual
async def test_a_key_of_another_issuer_does_not_verify() -> None:
    other = issuer(name="other", url="https://other.example")
    rules = replace(RULES, issuers=(issuer(), other))
    async with world(rules) as here:
        await here.who(bearer(KEY.sign(claims())))
        here.reader.answer = key_set(SigningKey("theirs", number=1))
        stolen = SigningKey("theirs", number=1).sign(claims())
        assert "no single key" in await here.refusal(bearer(stolen))
        theirs = SigningKey("theirs", number=1).sign(claims(iss="https://other.example"))
        assert "no identity" in await here.refusal(bearer(theirs))


@virtual
async def test_a_remembered_jwt_ends_as_any_other() -> None:
    aged = issuer(max_age=timedelta(seconds=100))
    async with world(replace(RULES, issuers=(aged,))) as here:
        short, old = bearer(KEY.sign(claims(exp=NOW + 20))), bearer(KEY.sign(claims()))
        await here.who(short)
        found = await here.who(old)
        await asyncio.sleep(50)
        assert "expired" in await here.refusal(short)
        await here.who(old)
        await here.identifier.identify_again(found)
        await asyncio.sleep(70)
        assert "expired" in await here.refusal(old)
        with pytest.raises(Unauthenticated, match="expired"):
            await here.identifier.identify_again(found)
        here.ahead = -1000
        assert "not valid yet" in await here.refusal(old)


@virtual
async def test_an_issuer_that_is_away_is_a_reason_of_its_own() -> None:
    async with world() as here:
        here.reader.answer = KeysUnreadable("connection refused")
        assert (await here.refusal(bearer(KEY.sign(claims())))).startswith("ISSUER_UNAVAILABLE")
        assert here.reports == ['the keys of issuer "ci" can\'t be read: connection refused']
        assert here.identifier.warnings() == here.reports
        assert (await here.who(bearer(TOKEN))).name == "ci"
        here.reader.answer = key_set(KEY)
        await asyncio.sleep(10)
        await here.who(bearer(KEY.sign(claims())))
        assert here.identifier.warnings() == []


@virtual
async def test_jwts_are_forgotten_when_a_key_leaves_the_set() -> None:
    two = SigningKey("two", "P-256")
    token = bearer(KEY.sign(claims()))
    async with world() as here:
        await here.who(token)
        here.reader.answer = key_set(two)
        await asyncio.sleep(10)
        assert "no single key" in await here.refusal(bearer(SigningKey("three").sign(claims())))
        assert "no single key" in await here.refusal(token)
        assert (await here.who(bearer(two.sign(claims())))).name == "gh/repo:acme/app"


@virtual
async def test_a_remembered_jwt_notices_that_its_key_left_within_an_hour() -> None:
    token = bearer(KEY.sign(claims(exp=NOW + 99_999)))
    async with world() as here:
        await here.who(token)
        here.reader.answer = key_set(SigningKey("two", "P-256"))
        await asyncio.sleep(3600)
        assert "no single key" in await here.refusal(token)
    async with world() as here:
        await here.who(token)
        here.reader.answer = KeysUnreadable("away")
        await asyncio.sleep(3600)
        await here.who(token)
        await asyncio.sleep(86_400 - 3600)
        with pytest.raises(IssuerUnavailable):
            await here.who(token)


@virtual
async def test_without_its_background_work_no_keys_are_read() -> None:
    made = World(RULES)
    assert (await made.refusal(bearer(KEY.sign(claims())))).startswith("ISSUER_UNAVAILABLE")
    assert made.reader.reads == []
    await made.identifier.aclose()
    assert made.reader.closed


def new_jwt(number: int, key: SigningKey = KEY) -> str:
    """Return a valid JWT that differs for each number."""
    return key.sign(claims(sub=f"job/{number}"))


@virtual
async def test_a_peer_has_20_new_jwts_a_second() -> None:
    forged = SigningKey("one", number=1)
    async with world() as here:
        known = bearer(new_jwt(0))
        await here.who(known)
        for number in range(19):
            assert "signature" in await here.refusal(bearer(new_jwt(number, forged)))
        with pytest.raises(TryLater) as caught:
            await here.who(bearer(new_jwt(99)))
        assert caught.value.retry_in == 1.0
        await here.who(known)
        await here.who(bearer(TOKEN))
        await here.who(bearer(new_jwt(98), address=ipaddress.ip_address("192.0.2.2")))
        await here.who(bearer(new_jwt(97), address=None))
        await asyncio.sleep(0.05)
        await here.who(bearer(new_jwt(99)))
        assert (await here.refusal(bearer(new_jwt(100)))).startswith("TRY_LATER")


@virtual
async def test_all_peers_have_200_new_jwts_a_second_together() -> None:
    async with world(limits=JwtLimits(per_peer=20, together=30)) as here:
        for number in range(30):
            await here.who(bearer(new_jwt(number), address=ipaddress.ip_address(number)))
        assert (await here.refusal(bearer(new_jwt(99)))).startswith("TRY_LATER")
        await asyncio.sleep(1)
        for number in range(20):
            await here.who(bearer(new_jwt(100 + number)))
        for number in range(50):
            assert (await here.refusal(bearer(new_jwt(200 + number)))).startswith("TRY_LATER")
        await here.who(bearer(new_jwt(300), address=None))
    assert JwtLimits() == JwtLimits(20, 200)


@virtual
async def test_calls_with_one_new_jwt_that_wait_for_keys_count_once() -> None:
    async with world() as here:
        here.reader.held = asyncio.Event()
        token = bearer(new_jwt(1))
        calls = [asyncio.create_task(here.who(token)) for _ in range(100)]  # noqa: TID251
        await asyncio.sleep(1)
        here.reader.held.set()
        assert {(await one).name for one in calls} == {"gh/job/1"}
        for number in range(19):
            await here.who(bearer(new_jwt(10 + number)))
        assert (await here.refusal(bearer(new_jwt(99)))).startswith("TRY_LATER")


@virtual
async def test_a_bounded_number_of_peers_is_remembered() -> None:
    limiter = JwtLimiter(JwtLimits(per_peer=1, together=1e9))
    for number in range(MAX_PEERS + 1):
        limiter.admit(ipaddress.ip_address(number))
    assert len(limiter._peers) == MAX_PEERS
    limiter.admit(ipaddress.ip_address(0))
    with pytest.raises(TryLater):
        limiter.admit(ipaddress.ip_address(MAX_PEERS))


def test_the_caller_that_called_first_is_forgotten_first() -> None:
    callers: Any = KnownCallers()
    for number in range(MAX_REMEMBERED):
        callers.add(b"%d" % number, SimpleNamespace(size=1, name=number))
    assert callers.find(b"0").name == 0
    callers.add(b"new", SimpleNamespace(size=1, name="new"))
    assert callers.find(b"0").name == 0
    assert callers.find(b"1") is None
    assert callers.find(b"new").name == "new"


def test_callers_that_are_remembered_have_a_maximum_size_together() -> None:
    callers: Any = KnownCallers()
    for number in range(10):
        callers.add(b"%d" % number, SimpleNamespace(size=MAX_BYTES // 4, name=number))
    assert [number for number in range(10) if callers.find(b"%d" % number)] == [6, 7, 8, 9]
    callers.add(b"9", SimpleNamespace(size=1, name="smaller"))
    callers.add(b"10", SimpleNamespace(size=MAX_BYTES // 4, name=10))
    assert [number for number in range(11) if callers.find(b"%d" % number)] == [7, 8, 9, 10]
    callers.add(b"11", SimpleNamespace(size=2 * MAX_BYTES, name=11))
    assert [number for number in range(12) if callers.find(b"%d" % number)] == [11]
