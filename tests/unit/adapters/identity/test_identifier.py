"""Checks who a caller is by its credential, what is remembered, and what a reload changes."""

from __future__ import annotations

import asyncio
import ipaddress
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.certificate_chains import ChainAuthority
from tests.support.json_web_tokens import NOW, FakeReader, SigningKey, claims, encoded, issuer, key_set
from tests.support.virtual_loop import virtual

from lessor_server.adapters.identity.identifier import Identifier
from lessor_server.adapters.identity.jwt_limiter import JwtLimits
from lessor_server.adapters.identity.key_source import IssuerSilent
from lessor_server.adapters.identity.known_callers import MAX_REMEMBERED, KnownCallers
from lessor_server.domain.access.access_rules import (
    UNIX,
    AccessRules,
    DnsMatch,
    IdentityRule,
    JwtMatch,
    SpiffeMatch,
    TokenMatch,
)
from lessor_server.domain.access.acl import Capability, Policy, Rule
from lessor_server.domain.access.caller import ROOT, AuthMethod, Credential, Peer, Principal
from lessor_server.domain.errors.access import IssuerUnavailable, TryLater
from lessor_server.domain.errors.base import Unauthenticated
from lessor_server.domain.secret import TokenHash

KEY = SigningKey()
ROOT_TOKEN = "root-token-of-tests"
TOKEN = "lsr_fixed-token"
TEAM = "aws/creds/{{identity.labels.team}}"
POLICIES = {"deploy": Policy("deploy", (Rule(TEAM, frozenset({Capability.READ})),))}
CI = IdentityRule("ci", TokenMatch((TokenHash.of(TOKEN).digest,)), ("deploy",), {"team": "blue"})
JOB = IdentityRule("gh/{sub}", JwtMatch("ci"), ("deploy",), {"team": "red"})
POD = IdentityRule("k8s/{ns}", SpiffeMatch("spiffe://example.org/{ns}"), ("deploy",), {"team": "{ns}"})
RULES = AccessRules(POLICIES, (CI, JOB, POD), (issuer(),))
HERE = ipaddress.ip_address("192.0.2.1")


def call(*values: str | bytes, certificates: bytes = b"", address: Any = HERE) -> Credential:
    """Return what a call presents."""
    return Credential(Peer("connection", address), values, certificates)


def bearer(token: str, **more: Any) -> Credential:
    """Return what a call with a token presents."""
    return call(f"Bearer {token}", **more)


class World:
    """An identifier, and all that it depends on."""

    def __init__(self, rules: AccessRules, *, root: bool = True, limits: JwtLimits | None = None) -> None:
        self.reader = FakeReader(key_set(KEY))
        self.client_cas = 1
        self.ahead = 0.0
        self.reports: list[str] = []
        self.identifier = Identifier(
            TokenHash.of(ROOT_TOKEN) if root else None,
            rules,
            lambda: self.client_cas,
            self.now,
            self.reader,
            limits,
            self.reports.append,
        )

    def now(self) -> float:
        return NOW + asyncio.get_running_loop().time() + self.ahead

    async def who(self, credential: Credential) -> Principal:
        return await self.identifier.identify(credential)

    async def refusal(self, credential: Credential) -> str:
        """Return why a call is refused."""
        with pytest.raises(Unauthenticated) as caught:
            await self.identifier.identify(credential)
        return f"{caught.value.reason}: {caught.value.message}"


@asynccontextmanager
async def world(rules: AccessRules = RULES, **options: Any) -> AsyncIterator[World]:
    """Yield a world whose identifier runs."""
    made = World(rules, **options)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.identifier.run())
        await asyncio.sleep(0.001)
        yield made
        running.cancel()


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
    inside = replace(JOB, peers=(ipaddress.ip_network("10.0.0.0/8"),))
    token = bearer(KEY.sign(claims()))
    async with world(replace(RULES, identities=(inside, replace(JOB, name="any/{sub}")))) as here:
        assert "from" in await here.refusal(token)
        assert "from" in await here.refusal(token)
        moved = replace(token, peer=Peer("c", ipaddress.ip_address("10.1.1.1")))
        assert (await here.who(moved)).name == "gh/repo:acme/app"
        assert "from" in await here.refusal(replace(token, peer=Peer("c")))
        here.identifier.use(replace(RULES, identities=(replace(JOB, peers=(UNIX,)),)))
        assert (await here.who(replace(token, peer=Peer("c")))).name == "gh/repo:acme/app"


# --- JWTs ------------------------------------------------------------------------------------


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
        (KEY.sign(claims(), algorithm="RS512"), "algorithms"),
        (SigningKey("one", "P-256").sign(claims()), "no single key"),
        (SigningKey("two").sign(claims()), "no single key"),
        (SigningKey("one", number=1).sign(claims()), "signature"),
        (KEY.sign(claims(), {"alg": "none", "kid": "one"}), "algorithms"),
        (KEY.sign(claims(), {"alg": "HS256", "kid": "one"}), "algorithms"),
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
        here.reader.answer = IssuerSilent("connection refused")
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
        here.reader.answer = IssuerSilent("away")
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
    await made.identifier.close()
    assert made.reader.closed


# --- limits of new JWTs ----------------------------------------------------------------------


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


def test_the_caller_that_called_first_is_forgotten_first() -> None:
    callers: Any = KnownCallers()
    for number in range(MAX_REMEMBERED):
        callers.add(b"%d" % number, f"caller {number}")
    assert callers.find(b"0") == "caller 0"
    callers.add(b"new", "new")
    assert callers.find(b"0") == "caller 0"
    assert callers.find(b"1") is None
    assert callers.find(b"new") == "new"


# --- reloads ---------------------------------------------------------------------------------


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
        here.identifier.use(AccessRules())
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
        (replace(RULES, issuers=(issuer(algorithms=("ES256",)),)), "algorithms"),
        (replace(RULES, issuers=(issuer(max_age=timedelta(seconds=1), leeway=timedelta(0)),)), "expired"),
        (replace(RULES, identities=(replace(JOB, match=JwtMatch("ci", {"sub": "other/*"})),)), "no identity"),
        (replace(RULES, identities=(replace(JOB, peers=(UNIX,)),)), "from"),
    ],
)
@virtual
async def test_a_call_that_lasts_is_judged_by_the_new_rules(rules: AccessRules, said: str) -> None:
    async with world() as here:
        found = await here.who(bearer(KEY.sign(claims())))
        here.reader.answer = IssuerSilent("nothing is read")
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
        here.identifier.use(AccessRules())
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


# --- client certificates ---------------------------------------------------------------------


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
        IdentityRule("ours/{h}", match),
        IdentityRule("any/{h}", replace(match, ca_file=theirs.write(tmp_path))),
    )
    async with world(AccessRules(identities=identities)) as here:
        here.client_cas = 2
        assert (await here.who(call(certificates=ours.issue(dns=("a.example.org",))))).name == "ours/a"
        assert (await here.who(call(certificates=theirs.issue(dns=("a.example.org",))))).name == "any/a"
        assert here.identifier.warnings() == []


@virtual
async def test_a_ca_file_is_read_at_a_reload(tmp_path: Path) -> None:
    authority = ChainAuthority("ca", NOW)
    good = call(certificates=authority.issue(dns=("a.example.org",)))
    file = tmp_path / "ca.pem"
    rules = AccessRules(identities=(IdentityRule("h/{h}", DnsMatch("{h}.example.org", str(file))),))
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
