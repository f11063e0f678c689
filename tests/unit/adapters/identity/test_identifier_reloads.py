"""Checks what new access rules change for callers that are known and for calls that last."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.support.certificate_chains import ChainAuthority
from tests.support.identifier_world import (
    JOB,
    KEY,
    ROOT_TOKEN,
    RULES,
    TOKEN,
    bearer,
    call,
    world,
)
from tests.support.json_web_tokens import NOW, SigningKey, claims, issuer, key_set
from tests.support.virtual_loop import virtual

from lessor_server.adapters.identity.key_source import KeysUnreadable
from lessor_server.domain.access.access_config import (
    AccessConfig,
    JwtMatch,
)
from lessor_server.domain.access.acl import Capability
from lessor_server.domain.access.caller import ROOT, UNIX, AuthMethod, Principal
from lessor_server.domain.errors.base import Unauthenticated


@virtual
async def test_a_reload_keeps_the_keys_of_unchanged_issuers_only() -> None:
    token = bearer(KEY.sign(claims()))
    async with world() as here:
        await here.who(token)
        renamed = replace(RULES, identities=(replace(JOB, name="job/{sub}"),))
        here.identifier.use(renamed)
        assert here.reader.reads == ["ci"]
        assert (await here.who(token)).name == "job/repo:acme/app"
        assert here.reader.reads == ["ci"]
        here.identifier.use(replace(renamed, issuers=(issuer(jwks_url="https://other.example/jwks"),)))
        await here.who(token)
        assert here.reader.reads == ["ci", "ci"]
        here.identifier.use(AccessConfig())
        assert "no issuer" in await here.refusal(token)
        assert "unknown" in await here.refusal(bearer(TOKEN))


@virtual
async def test_rules_that_change_while_a_jwt_waits_for_keys_count() -> None:
    async with world() as here:
        here.reader.held = asyncio.Event()
        waiting = asyncio.create_task(here.who(bearer(KEY.sign(claims()))))  # noqa: TID251
        await asyncio.sleep(1)
        here.identifier.use(replace(RULES, identities=(replace(JOB, name="job/{sub}"),)))
        here.reader.held.set()
        assert (await waiting).name == "job/repo:acme/app"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (replace(RULES, issuers=()), "no issuer"),
        (replace(RULES, issuers=(issuer(url="https://issuer.example/"),)), "no issuer"),
        (replace(RULES, issuers=(issuer(audiences=("other",)),)), "another audience"),
        (replace(RULES, issuers=(issuer(algorithms=("ES256",)),)), "algorithm"),
        (replace(RULES, issuers=(issuer(max_age=timedelta(seconds=1), leeway=timedelta(0)),)), "expired"),
        (replace(RULES, identities=(replace(JOB, match=JwtMatch("ci", {"sub": "other/*"})),)), "no identity"),
        (replace(RULES, identities=(replace(JOB, sources=(UNIX,)),)), "from"),
    ],
)
@virtual
async def test_a_call_that_lasts_is_judged_by_the_new_rules(rules: AccessConfig, said: str) -> None:
    async with world() as here:
        found = await here.who(bearer(KEY.sign(claims())))
        here.reader.answer = KeysUnreadable("nothing is read")
        assert await here.identifier.identify_again(found) == found
        here.identifier.use(rules)
        with pytest.raises(Unauthenticated, match=said):
            await here.identifier.identify_again(found)
        assert here.reader.reads == ["ci"]


@virtual
async def test_each_kind_of_caller_is_judged_again() -> None:
    good = ChainAuthority("ca", NOW).issue(uris=("spiffe://example.org/prod",))
    async with world() as here:
        credentials = (bearer(TOKEN), call(certificates=good), bearer(KEY.sign(claims())), bearer(ROOT_TOKEN))
        found = [await here.who(one) for one in credentials]
        assert [await here.identifier.identify_again(one) for one in found] == found
        widened = tuple(replace(rule, policies=()) for rule in RULES.identities)
        here.identifier.use(replace(RULES, identities=widened))
        again = [await here.identifier.identify_again(one) for one in found]
        assert [one.policies for one in again] == [(), (), (), ("root",)]
        assert not again[0].may("aws/creds/blue", Capability.READ)
        here.identifier.use(AccessConfig())
        for one in found[:3]:
            with pytest.raises(Unauthenticated):
                await here.identifier.identify_again(one)
        assert await here.identifier.identify_again(found[3]) is ROOT
        with pytest.raises(Unauthenticated):
            await here.identifier.identify_again(Principal("ci", AuthMethod.TOKEN))
    async with world(root=False) as here:
        with pytest.raises(Unauthenticated):
            await here.identifier.identify_again(ROOT)


@virtual
async def test_names_that_the_rules_could_give() -> None:
    async with world() as here:
        names = ("ci", "gh/a/b", "k8s/prod", "k8s/a/b", "other", "", "gh/")
        assert [here.identifier.may_match(name) for name in names] == [True] * 3 + [False] * 4


@virtual
async def test_a_call_that_lasts_ends_when_the_key_of_its_jwt_leaves_the_set() -> None:
    """Also if the rules stay: an operator or an issuer withdraws a key that has leaked."""
    judged = asyncio.Event()

    async def judge() -> None:
        judged.set()

    async with world() as here:
        here.identifier.judge_streams = judge
        principal = await here.who(bearer(KEY.sign(claims())))
        version = here.identifier.version
        assert (await here.identifier.identify_again(principal)).name == principal.name
        here.reader.answer = key_set(SigningKey("two", number=1))
        await asyncio.sleep(20)
        assert (await here.refusal(bearer(SigningKey("three", number=2).sign(claims())))) != ""
        assert judged.is_set()
        assert here.identifier.version > version
        with pytest.raises(Unauthenticated, match="not in use any more"):
            await here.identifier.identify_again(principal)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"audiences": ("lessor", "other"), "max_age": timedelta(hours=1)}, True),
        ({"jwks_url": "https://other.example/jwks"}, False),
        ({"ca_file": "/etc/other.pem"}, False),
        ({"jwks_url": "", "jwks_file": "/etc/jwks.json"}, False),
    ],
)
@virtual
async def test_a_call_that_lasts_ends_when_a_reload_changes_where_the_keys_are(
    changes: dict[str, Any], same: bool
) -> None:
    async with world() as here:
        principal = await here.who(bearer(KEY.sign(claims())))
        here.identifier.use(replace(RULES, issuers=(issuer(**changes),)))
        if same:
            assert (await here.identifier.identify_again(principal)).name == principal.name
        else:
            with pytest.raises(Unauthenticated):
                await here.identifier.identify_again(principal)


@virtual
async def test_a_reload_reads_the_file_of_keys_again_but_asks_no_issuer() -> None:
    of_file = replace(RULES, issuers=(issuer(jwks_url="", jwks_file="/etc/jwks.json"),))
    for rules, reads in ((of_file, 2), (RULES, 1)):
        async with world(rules) as here:
            await here.who(bearer(KEY.sign(claims())))
            here.reader.answer = key_set(SigningKey("two", number=1))
            here.identifier.use(rules)
            await asyncio.sleep(1)
            assert len(here.reader.reads) == reads
            new = bearer(SigningKey("two", number=1).sign(claims()))
            if reads == 2:
                assert (await here.who(new)).name == "gh/repo:acme/app"
