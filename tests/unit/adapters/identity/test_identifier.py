"""Checks who a caller is by its token or certificate."""

from __future__ import annotations

import asyncio
import ipaddress
import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.certificate_chains import ChainAuthority
from tests.support.identifier_world import (
    CI,
    JOB,
    KEY,
    ROOT_TOKEN,
    RULES,
    TOKEN,
    bearer,
    call,
    world,
)
from tests.support.json_web_tokens import NOW, claims, encoded
from tests.support.virtual_loop import virtual

from lessor_server.domain.access.access_config import (
    AccessConfig,
    DnsMatch,
    Identity,
    TokenMatch,
)
from lessor_server.domain.access.acl import Capability
from lessor_server.domain.access.caller import ROOT, UNIX, AuthMethod, Credential, Peer
from lessor_server.domain.errors.base import Unauthenticated


@virtual
async def test_the_root_token_identifies_root() -> None:
    async with world() as here:
        assert await here.who(bearer(ROOT_TOKEN)) is ROOT
        assert await here.who(call(f"bearer  {ROOT_TOKEN}", address=None)) is ROOT
        assert "unknown" in await here.refusal(bearer(ROOT_TOKEN + "x"))
        assert here.identifier.may_match("root")
    async with world(root=False) as here:
        assert "unknown" in await here.refusal(bearer(ROOT_TOKEN))
        assert not here.identifier.may_match("root")


@virtual
async def test_a_fixed_token_identifies_its_identity() -> None:
    async with world() as here:
        found = await here.who(bearer(TOKEN))
        assert (found.name, found.auth_method, found.policies) == ("ci", AuthMethod.TOKEN, ("deploy",))
        assert found.labels == {"team": "blue"}
        assert found.expires_at == math.inf
        assert found.may("aws/creds/blue", Capability.READ)
        assert not found.may("aws/creds/red", Capability.READ)
        assert found == await here.who(bearer(TOKEN, address=None))


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("",),
        ("Bearer",),
        ("Bearer ",),
        ("Bearer   ",),
        (TOKEN,),
        (f"Basic {TOKEN}",),
        (f"Bearer{TOKEN}",),
        (f"Bearer {TOKEN} x",),
        (f"Bearer {TOKEN}, Bearer {TOKEN}",),
        (f"Bearer {TOKEN}".encode(),),
        (f"Bearer {TOKEN}", f"Bearer {TOKEN}"),
        ("", f"Bearer {TOKEN}"),
        (f"Bearer {TOKEN}", b""),
        ("Bearer a.b.c",),
        ("Bearer ..",),
        ("Bearer \ud800.\ud800.\ud800",),
    ],
)
@virtual
async def test_a_bad_authorization_is_refused_and_no_certificate_rescues_it(values: Any) -> None:
    authority = ChainAuthority("ca", NOW)
    good = authority.issue(uris=("spiffe://example.org/prod",))
    async with world() as here:
        assert (await here.refusal(call(*values))).startswith("UNAUTHENTICATED: ")
        if values:
            assert (await here.refusal(call(*values, certificates=good))).startswith("UNAUTHENTICATED: ")
            assert TOKEN not in await here.refusal(call(*values))


@pytest.mark.parametrize(
    ("credential", "fix"),
    [
        (call(), "send the metadata"),
        (call("Basic abc"), "send the metadata"),
        (bearer("lsr_unknown"), "get a new credential"),
        (bearer(KEY.sign(claims(exp=NOW - 31))), "get a new credential"),
    ],
)
@virtual
async def test_the_fix_depends_on_whether_a_credential_was_sent(credential: Credential, fix: str) -> None:
    async with world() as here:
        with pytest.raises(Unauthenticated) as refused:
            await here.identifier.identify(credential)
        assert refused.value.fix.startswith(fix)
        assert refused.value.reason == "UNAUTHENTICATED"


@virtual
async def test_a_token_wins_over_a_certificate() -> None:
    good = ChainAuthority("ca", NOW).issue(uris=("spiffe://example.org/prod",))
    async with world() as here:
        assert (await here.who(bearer(TOKEN, certificates=good))).name == "ci"
        assert (await here.who(call(certificates=good))).name == "k8s/prod"


@virtual
async def test_a_fixed_token_ends_when_the_file_says() -> None:
    ends = replace(CI, match=TokenMatch(CI.match.digests, NOW + 10))  # type: ignore[union-attr]
    async with world(replace(RULES, identities=(ends,))) as here:
        found = await here.who(bearer(TOKEN))
        assert found.expires_at == NOW + 10
        await asyncio.sleep(10)
        assert "expired" in await here.refusal(bearer(TOKEN))
        with pytest.raises(Unauthenticated, match="expired"):
            await here.identifier.identify_again(found)


@virtual
async def test_from_refuses_and_does_not_fall_through_to_another_identity() -> None:
    inside = replace(JOB, sources=(ipaddress.ip_network("10.0.0.0/8"),))
    token = bearer(KEY.sign(claims()))
    async with world(replace(RULES, identities=(inside, replace(JOB, name="any/{sub}")))) as here:
        assert "from" in await here.refusal(token)
        assert "from" in await here.refusal(token)
        moved = replace(token, peer=Peer("c", ipaddress.ip_address("10.1.1.1")))
        assert (await here.who(moved)).name == "gh/repo:acme/app"
        assert "from" in await here.refusal(replace(token, peer=Peer("c")))
        here.identifier.use(replace(RULES, identities=(replace(JOB, sources=(UNIX,)),)))
        assert "from" in await here.refusal(replace(token, peer=Peer("c")))
        assert (await here.who(replace(token, peer=Peer("c", UNIX)))).name == "gh/repo:acme/app"


@virtual
async def test_a_certificate_identifies_its_identity_while_it_is_valid() -> None:
    authority = ChainAuthority("ca", NOW)
    good = call(certificates=authority.issue(uris=("spiffe://example.org/prod",), end=timedelta(hours=1)))
    later = call(certificates=authority.issue(uris=("spiffe://example.org/prod",), start=timedelta(hours=1)))
    async with world() as here:
        found = await here.who(good)
        assert (found.name, found.auth_method, found.labels) == (
            "k8s/prod",
            AuthMethod.X509,
            {"team": "prod"},
        )
        assert found.expires_at == NOW + 3600
        assert await here.who(good) is found
        assert "not valid yet" in await here.refusal(later)
        await asyncio.sleep(3600)
        assert "expired" in await here.refusal(good)
        with pytest.raises(Unauthenticated, match="expired"):
            await here.identifier.identify_again(found)
        await here.who(later)
        here.ahead = -3601
        assert "not valid yet" in await here.refusal(later)


@virtual
async def test_a_bad_certificate_is_refused() -> None:
    authority = ChainAuthority("ca", NOW)
    uri = "spiffe://example.org/prod"
    async with world() as here:
        assert "more than one URI" in await here.refusal(
            call(certificates=authority.issue(uris=(uri, "urn:x")))
        )
        assert "no identity" in await here.refusal(call(certificates=authority.issue(dns=(uri,))))
        assert "no identity" in await here.refusal(call(certificates=authority.issue()))
        assert "can't be read" in await here.refusal(call(certificates=b"-----BEGIN CERTIFICATE-----"))
        expired = authority.issue(uris=(uri,), end=timedelta(seconds=-1))
        assert "expired" in await here.refusal(call(certificates=expired))


@virtual
async def test_an_identity_without_a_ca_file_needs_a_client_ca_file_of_one_authority() -> None:
    good = call(certificates=ChainAuthority("ca", NOW).issue(uris=("spiffe://example.org/prod",)))
    async with world() as here:
        found = await here.who(good)
        assert here.identifier.warnings() == []
        for count in (2, 0):
            here.client_cas = count
            assert "no identity" in await here.refusal(good)
            with pytest.raises(Unauthenticated):
                await here.identifier.identify_again(found)
        here.client_cas = 2
        [warning] = here.identifier.warnings()
        assert warning.startswith('identity "k8s/{ns}" matches nobody: give it a ca_file')
        here.client_cas = 1
        assert await here.who(good) == found


@virtual
async def test_a_ca_file_decides_between_several_authorities(tmp_path: Path) -> None:
    ours, theirs = ChainAuthority("ca", NOW), ChainAuthority("ca", NOW, variant="twin")
    match = DnsMatch("{h}.example.org", ours.write(tmp_path))
    identities = (
        Identity("ours/{h}", match),
        Identity("any/{h}", replace(match, ca_file=theirs.write(tmp_path))),
    )
    async with world(AccessConfig(identities=identities)) as here:
        here.client_cas = 2
        assert (await here.who(call(certificates=ours.issue(dns=("a.example.org",))))).name == "ours/a"
        assert (await here.who(call(certificates=theirs.issue(dns=("a.example.org",))))).name == "any/a"
        assert here.identifier.warnings() == []


@virtual
async def test_an_expired_certificate_is_said_to_be_so_also_with_a_ca_file(tmp_path: Path) -> None:
    authority = ChainAuthority("ca", NOW)
    rule = Identity("h/{h}", DnsMatch("{h}.example.org", authority.write(tmp_path)))
    async with world(AccessConfig(identities=(rule,))) as here:
        expired = authority.issue(dns=("a.example.org",), end=timedelta(seconds=-1))
        assert "expired" in await here.refusal(call(certificates=expired))


@virtual
async def test_a_ca_file_is_read_at_a_reload(tmp_path: Path) -> None:
    authority = ChainAuthority("ca", NOW)
    good = call(certificates=authority.issue(dns=("a.example.org",)))
    file = tmp_path / "ca.pem"
    rules = AccessConfig(identities=(Identity("h/{h}", DnsMatch("{h}.example.org", str(file))),))
    async with world(rules) as here:
        assert "no identity" in await here.refusal(good)
        assert [warning.split(":")[0] for warning in here.identifier.warnings()] == [
            f"the ca_file {file} can't be used"
        ]
        file.write_bytes(authority.pem)
        assert "no identity" in await here.refusal(good)
        here.identifier.use(rules)
        assert (await here.who(good)).name == "h/a"
        assert here.identifier.warnings() == []


@virtual
async def test_no_credential_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    token = KEY.sign(claims(sub="subject"))
    async with world() as here:
        for credential in (bearer(token), bearer(TOKEN)):
            found = await here.who(credential)
            shown = repr((found, found.evidence, credential, here.identifier))
            assert token not in shown
            assert TOKEN not in shown
            assert encoded(claims(sub="subject")) not in shown
