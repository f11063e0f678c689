"""Checks logins and the calls of a token on itself: lives, limits, and hostile input."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lessor_server.adapters.identity.jwt_limiter import JwtLimits
from lessor_server.domain.access.caller import ROOT, AuthMethod
from lessor_server.domain.errors.access import (
    LoginNotPossible,
    RateLimited,
    TokenNotRenewable,
    TokenNotRevocable,
    TooManyLoginTokens,
)
from lessor_server.domain.errors.base import (
    Invalid,
    NotFound,
    Unauthenticated,
)
from lessor_server.services.logins import TokenStatus
from tests.support.certificate_chains import ChainAuthority
from tests.support.identifier_world import CI, KEY, ROOT_TOKEN, TOKEN, call
from tests.support.json_web_tokens import NOW, claims, issuer
from tests.support.login_world import APPROLE, PEER, login_server
from tests.support.virtual_loop import virtual

HOUR = timedelta(hours=1)
SECRET = "not-the-secret-of-ci"
HOSTILE = (None, "", 7, ["a"], {"a": 1}, True, "a b", "\ud800", "é", "a\0", "x" * 20_000)


def lives(status: TokenStatus) -> tuple[int, int, int]:
    """Return what is left, the first life, and the longest one."""
    return status.ttl, status.creation_ttl, status.max_ttl


# --- logins ---------------------------------------------------------------------------------------------


@virtual
async def test_a_fixed_token_is_exchanged_for_a_login_token() -> None:
    async with login_server() as here:
        new = await here.log_in()
        caller = await here.who(new.token.reveal())
        assert (caller.name, caller.auth_method, caller.labels) == ("ci", AuthMethod.LOGIN, {"team": "blue"})
        assert caller.policies == ("deploy",)
        assert lives(new.status) == (3600, 3600, 86400)
        assert new.status.renewable
        assert new.status.is_orphan
        assert new.status.accessor == caller.login.accessor  # type: ignore[union-attr]
        assert new.token.reveal() not in repr((new, caller))


@virtual
async def test_a_jwt_is_exchanged_for_a_token_that_outlives_it() -> None:
    async with login_server() as here:
        new = await here.log_in_by_jwt(exp=claims()["iat"] + 60)
        await asyncio.sleep(3500)
        caller = await here.who(new.token.reveal())
        assert (caller.name, caller.labels) == ("gh/repo:acme/app", {"team": "red"})


@virtual
async def test_the_role_of_a_login_is_empty_or_the_caller() -> None:
    async with login_server() as here:
        jwt = KEY.sign(claims())
        for role in ("", None, "gh/repo:acme/app"):
            await here.logins.log_in(PEER, "ci", {"jwt": jwt, "role": role})
        with pytest.raises(Invalid) as caught:
            await here.logins.log_in(PEER, "ci", {"jwt": jwt, "role": "deployer"})
        assert [one.field for one in caught.value.violations] == ["role"]
        assert len(here.store.login_tokens) == 3


@virtual
async def test_a_jwt_logs_in_only_at_its_own_issuer() -> None:
    other = issuer(name="other", url="https://other.example")
    async with login_server() as here:
        here.use(issuers=(issuer(), other))
        with pytest.raises(Unauthenticated, match="is not one of the issuer"):
            await here.logins.log_in(PEER, "other", {"jwt": KEY.sign(claims())})
        with pytest.raises(NotFound):
            await here.logins.log_in(PEER, "nobody", {"jwt": KEY.sign(claims())})
        assert here.store.login_tokens == {}


@virtual
async def test_a_bad_jwt_gets_no_token() -> None:
    async with login_server() as here:
        for jwt in (
            KEY.sign(claims(exp=claims()["iat"] - 60)),
            KEY.sign(claims(aud="other")),
            KEY.sign(claims())[:-4] + "AAAA",
            "a.b.c",
        ):
            with pytest.raises(Unauthenticated):
                await here.logins.log_in(PEER, "ci", {"jwt": jwt})
        assert here.store.login_tokens == {}


@virtual
@pytest.mark.parametrize(
    "fields",
    [
        {"role_id": "ci", "secret_id": SECRET},
        {"role_id": "nobody", "secret_id": TOKEN},
        {"role_id": "root", "secret_id": ROOT_TOKEN},
        {"role_id": "gh/repo:acme/app", "secret_id": KEY.sign(claims())},
        {"role_id": "ci", "secret_id": KEY.sign(claims())},
        {"role_id": "ci", "secret_id": "a.b.c"},
    ],
)
async def test_a_wrong_secret_is_invalid_and_nothing_tells_what_is_wrong(fields: dict[str, str]) -> None:
    async with login_server() as here:
        with pytest.raises(Invalid) as caught:
            await here.logins.log_in(PEER, "approle", fields)
        (violation,) = caught.value.violations
        assert violation.field == "secret_id"
        assert violation.problem == "role_id is not the name of an identity, or secret_id is not its token"
        assert fields["secret_id"] not in str(caught.value)


@virtual
async def test_a_login_token_is_no_secret_of_a_login() -> None:
    async with login_server() as here:
        new = await here.log_in()
        with pytest.raises(Invalid):
            await here.logins.log_in(PEER, "approle", {"role_id": "ci", "secret_id": new.token.reveal()})
        with pytest.raises(Invalid):
            await here.logins.log_in(PEER, "ci", {"jwt": new.token.reveal()})


@virtual
@pytest.mark.parametrize(
    "value", [None, "", 7, ["a"], {"a": 1}, True, "a b", "\ud800", "é", "a\0", "x" * 20_000]
)
async def test_a_hostile_field_is_a_violation_that_does_not_show_it(value: Any) -> None:
    async with login_server() as here:
        for name, field, fields in (
            ("ci", "jwt", {"jwt": value}),
            ("approle", "secret_id", APPROLE | {"secret_id": value}),
            ("approle", "role_id", APPROLE | {"role_id": value}),
        ):
            with pytest.raises(Invalid) as caught:
                await here.logins.log_in(PEER, name, fields)
            assert [one.field for one in caught.value.violations] == [field]
            assert not value or str(value)[:60] not in str(caught.value)
        assert here.store.login_tokens == {}


@virtual
async def test_a_call_from_elsewhere_than_the_identity_allows_is_refused() -> None:
    async with login_server() as here:
        new = await here.log_in()
        here.use(replace(CI, sources=("unix",)))
        with pytest.raises(Invalid):
            await here.log_in()
        assert "from" in await here.refusal(new.token.reveal())
        assert (await here.who(new.token.reveal(), address="unix")).name == "ci"


@virtual
async def test_logins_of_a_peer_are_limited_and_another_peer_is_not_affected() -> None:
    async with login_server(limits=JwtLimits(per_peer=3, together=100)) as here:
        for _ in range(3):
            await here.log_in()
        with pytest.raises(RateLimited) as caught:
            await here.log_in()
        assert caught.value.retry_in == 1.0
        elsewhere = call(address="unix").peer
        assert await here.logins.log_in(elsewhere, "approle", APPROLE)
        await asyncio.sleep(1)
        assert await here.log_in()


@virtual
async def test_an_identity_has_a_maximum_of_live_tokens_and_the_error_says_how_to_go_on() -> None:
    async with login_server(max_tokens=2) as here:
        first, _ = await here.log_in(), await here.log_in()
        with pytest.raises(TooManyLoginTokens, match="2") as caught:
            await here.log_in()
        assert "renew" in caught.value.fix
        caller = await here.who(first.token.reveal())
        with pytest.raises(TooManyLoginTokens):
            await here.logins.create_child(caller, PEER)
        await here.logins.revoke_self(caller, PEER)
        assert await here.log_in()


# --- children -------------------------------------------------------------------------------------------


@virtual
async def test_a_child_has_its_parents_rights_and_ends_with_it() -> None:
    async with login_server() as here:
        parent = await here.log_in()
        caller = await here.who(parent.token.reveal())
        child = await here.logins.create_child(caller, PEER, ttl=timedelta(minutes=20), renewable=False)
        assert lives(child.status)[:2] == (1200, 1200)
        assert not child.status.renewable
        assert not child.status.is_orphan
        of_child = await here.who(child.token.reveal())
        assert (of_child.name, of_child.policies, of_child.labels) == (
            caller.name,
            caller.policies,
            caller.labels,
        )
        await here.logins.revoke_self(caller, PEER)
        assert "unknown, or has ended" in await here.refusal(child.token.reveal())
        assert "unknown, or has ended" in await here.refusal(parent.token.reveal())


@virtual
async def test_a_child_does_not_outlive_a_parent_that_expires_unless_that_is_renewed() -> None:
    async with login_server() as here:
        parent = await here.log_in()
        caller = await here.who(parent.token.reveal())
        child = await here.logins.create_child(caller, PEER, ttl=3 * HOUR)
        assert lives(child.status)[:2] == (3600, 10800)
        await asyncio.sleep(3000)
        await here.logins.renew_self(await here.who(parent.token.reveal()), PEER)
        await asyncio.sleep(3000)
        assert (await here.who(child.token.reveal())).name == "ci"
        await asyncio.sleep(601)
        assert "has ended" in await here.refusal(child.token.reveal())


@virtual
async def test_a_child_lives_no_longer_than_its_parents_maximum() -> None:
    async with login_server() as here:
        caller = await here.who((await here.log_in()).token.reveal())
        await asyncio.sleep(600)
        child = await here.logins.create_child(caller, PEER, max_ttl=timedelta(days=9))
        assert child.status.max_ttl == 86400 - 600
        short = await here.logins.create_child(caller, PEER, max_ttl=timedelta(seconds=90))
        assert lives(short.status) == (90, 90, 90)


@virtual
async def test_children_of_children_have_an_end() -> None:
    async with login_server() as here:
        new = await here.log_in()
        for _ in range(8):
            new = await here.logins.create_child(await here.who(new.token.reveal()), PEER)
        with pytest.raises(LoginNotPossible, match="8 ancestors"):
            await here.logins.create_child(await here.who(new.token.reveal()), PEER)


@virtual
async def test_root_fixed_tokens_and_jwts_create_tokens_too_and_certificates_do_not() -> None:
    async with login_server() as here:
        for token, name in (
            (ROOT_TOKEN, "root"),
            (TOKEN, "ci"),
            (KEY.sign(claims()), "gh/repo:acme/app"),
        ):
            new = await here.logins.create_child(await here.who(token), PEER)
            caller = await here.who(new.token.reveal())
            assert (caller.name, caller.auth_method) == (name, AuthMethod.LOGIN)
            assert new.status.is_orphan
        root = await here.who((await here.logins.create_child(ROOT, PEER)).token.reveal())
        assert root.acl is None
        assert root.policies == ("root",)


@virtual
async def test_a_caller_with_a_certificate_gets_no_token() -> None:
    async with login_server() as here:
        pem = ChainAuthority("ca", NOW).issue(uris=("spiffe://example.org/prod",))
        caller = await here.world.who(call(certificates=pem))
        with pytest.raises(LoginNotPossible):
            await here.logins.create_child(caller, PEER)


@virtual
@pytest.mark.parametrize("span", [timedelta(seconds=-1), timedelta(milliseconds=1500), timedelta(days=9999)])
async def test_a_span_that_is_not_whole_seconds_is_refused_with_its_field(span: timedelta) -> None:
    async with login_server() as here:
        caller = await here.who((await here.log_in()).token.reveal())
        for field, work in (
            ("ttl", here.logins.create_child(caller, PEER, ttl=span)),
            ("max_ttl", here.logins.create_child(caller, PEER, max_ttl=span)),
            ("increment", here.logins.renew_self(caller, PEER, span)),
        ):
            with pytest.raises(Invalid) as caught:
                await work
            assert [one.field for one in caught.value.violations] == [field]


# --- renewals, look-ups and revocations ------------------------------------------------------------------


@virtual
async def test_a_token_is_renewed_up_to_its_maximum_and_no_further() -> None:
    async with login_server() as here:
        new = await here.log_in()
        caller = await here.who(new.token.reveal())
        status = await here.logins.renew_self(caller, PEER, 2 * HOUR)
        assert lives(status) == (7200, 3600, 86400)
        for _ in range(28):
            await asyncio.sleep(3000)
            status = await here.logins.renew_self(await here.who(new.token.reveal()), PEER)
        assert status.ttl == 2400  # of 24 h
        await asyncio.sleep(2399)
        assert (await here.logins.renew_self(await here.who(new.token.reveal()), PEER)).ttl == 1
        await asyncio.sleep(1)
        assert "has expired" in await here.refusal(new.token.reveal())


@virtual
async def test_what_is_not_renewable_is_not_renewed() -> None:
    async with login_server() as here:
        new = await here.logins.create_child(await here.who(TOKEN), PEER, renewable=False)
        for token in (TOKEN, ROOT_TOKEN, KEY.sign(claims()), new.token.reveal()):
            with pytest.raises(TokenNotRenewable):
                await here.logins.renew_self(await here.who(token), PEER)


@virtual
async def test_a_token_that_ends_during_its_renewal_is_not_renewed() -> None:
    async with login_server() as here:
        new = await here.log_in()
        caller = await here.who(new.token.reveal())
        await here.store.end_login_token(caller.login.digest)  # type: ignore[union-attr]
        with pytest.raises(Unauthenticated):
            await here.logins.renew_self(caller, PEER)


@virtual
async def test_only_a_login_token_can_be_revoked() -> None:
    async with login_server() as here:
        for token in (TOKEN, ROOT_TOKEN, KEY.sign(claims())):
            with pytest.raises(TokenNotRevocable):
                await here.logins.revoke_self(await here.who(token), PEER)


@virtual
async def test_every_credential_has_a_status() -> None:
    async with login_server() as here:
        for token, expires_us in ((TOKEN, None), (ROOT_TOKEN, None)):
            status = await here.logins.look_up(await here.who(token), PEER)
            assert (status.ttl, status.expires_us, status.renewable) == (0, expires_us, False)
        jwt = await here.logins.look_up(await here.who(KEY.sign(claims())), PEER)
        assert jwt.ttl in {629, 630}  # 600 and the leeway
        new = await here.log_in()
        await asyncio.sleep(100)
        status = await here.logins.look_up(await here.who(new.token.reveal()), PEER)
        assert lives(status) == (3500, 3600, 86400)
        assert status.expires_us == status.created_us + 3_600_000_000
        last = await here.who(new.token.reveal())
        await asyncio.sleep(3499.5)
        assert (await here.logins.look_up(last, PEER)).ttl == 1  # 0 would mean that it does not end
