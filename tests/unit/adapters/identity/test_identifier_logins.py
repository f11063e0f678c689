"""Checks callers with login tokens: by which rules they are judged, what is remembered, and replicas."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.support.identifier_world import CI, JOB, ROOT_TOKEN, RULES, TOKEN, bearer, world
from tests.support.json_web_tokens import NOW, claims, issuer
from tests.support.login_tokens import HOUR_US, login_token
from tests.support.login_world import PEER, Server, login_server
from tests.support.virtual_loop import virtual

from lessor_server.adapters.identity import known_logins
from lessor_server.adapters.identity.jwt_limiter import JwtLimits
from lessor_server.adapters.identity.known_logins import KnownLogins
from lessor_server.domain.access.access_config import AccessConfig, JwtMatch, TokenMatch
from lessor_server.domain.access.caller import AuthMethod
from lessor_server.domain.access.kept_claims import identify_kept, keep_jwt
from lessor_server.domain.access.login_token import KeptJwt, login_digest, token_of
from lessor_server.domain.errors.access import TryLater
from lessor_server.domain.errors.base import StoreUnavailable, Unauthenticated
from lessor_server.domain.errors.sealing import RowTampered
from lessor_server.domain.secret import TokenHash

TEXT = token_of(7).reveal()
FIXED = TokenHash.of(TOKEN).digest
MAIN = replace(JOB, match=JwtMatch("ci", {"ref": "refs/heads/main"}))


async def until_refused(here: Server, token: str) -> float:
    """Call ten times a second; return after how many seconds the token was refused."""
    began = asyncio.get_running_loop().time()
    while True:
        try:
            await here.who(token)
        except Unauthenticated:
            return asyncio.get_running_loop().time() - began
        await asyncio.sleep(0.1)


# --- which text is looked up ------------------------------------------------------------------------------


@virtual
@pytest.mark.parametrize("text", ["lst_", TEXT[:-1], TEXT + "x", TEXT[:-1] + "!", "lst_a.b.c", "x" + TEXT])
async def test_a_text_of_another_form_costs_no_read(text: str) -> None:
    async with login_server() as here:
        await here.refusal(text)
        assert here.store.chains_read == 0


@virtual
async def test_an_unknown_token_is_read_once() -> None:
    async with login_server() as here:
        for _ in range(3):
            assert "unknown, or has ended" in await here.refusal(TEXT)
        assert here.store.chains_read == 1


@virtual
async def test_a_flood_of_unknown_tokens_is_limited_and_known_tokens_are_served() -> None:
    async with login_server(limits=JwtLimits(per_peer=5, together=8)) as here:
        known = (await here.log_in()).token.reveal()
        await here.who(known)
        for number in range(100, 105):
            assert (await here.refusal(token_of(number).reveal())).startswith("UNAUTHENTICATED")
        reads = here.store.chains_read
        for number in range(105, 150):
            assert (await here.refusal(token_of(number).reveal())).startswith("TRY_LATER")
        assert here.store.chains_read == reads
        for _ in range(20):
            assert (await here.who(known)).name == "ci"
        elsewhere = token_of(200).reveal()
        assert (await here.refusal(elsewhere, address="unix")).startswith("UNAUTHENTICATED")


@virtual
async def test_without_a_store_no_login_token_is_known() -> None:
    async with world() as here:
        assert "the token is unknown" in await here.refusal(bearer(TEXT))


@virtual
async def test_calls_with_one_token_share_a_read() -> None:
    async with login_server() as one, login_server(one.store) as other:
        token = (await one.log_in()).token.reveal()
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(other.who(token)) for _ in range(50)]
        assert {call.result().name for call in calls} == {"ci"}
        assert one.store.chains_read == 1


@virtual
async def test_a_caller_that_leaves_does_not_end_the_read_of_the_others() -> None:
    async with login_server() as one, login_server(one.store) as other:
        token = (await one.log_in()).token.reveal()
        held = asyncio.Event()
        one.store._at = lambda _: held.wait()
        first = asyncio.create_task(other.who(token))  # noqa: TID251
        await asyncio.sleep(0.1)
        second = asyncio.create_task(other.who(token))  # noqa: TID251
        await asyncio.sleep(0.1)
        first.cancel()
        held.set()
        assert (await second).name == "ci"


# --- replicas ---------------------------------------------------------------------------------------------


@virtual
async def test_a_token_counts_on_every_replica() -> None:
    async with login_server() as one, login_server(one.store) as other:
        token = (await one.log_in()).token.reveal()
        assert (await other.who(token)).name == "ci"
        await one.logins.renew_self(await one.who(token), PEER, timedelta(hours=5))
        await asyncio.sleep(10)
        caller = await other.who(token)
        assert caller.expires_at == pytest.approx(NOW + 5 * 3600, abs=1)


@virtual
async def test_a_token_that_was_revoked_on_another_replica_ends_within_10_seconds() -> None:
    async with login_server() as one, login_server(one.store) as other:
        token = (await one.log_in()).token.reveal()
        child = (await one.logins.create_child(await one.who(token), PEER)).token.reveal()
        await other.who(token)
        await other.who(child)
        await one.logins.revoke_self(await one.who(token), PEER)
        assert await until_refused(one, token) == 0
        assert 1 < await until_refused(other, token) < known_logins.REREAD_SECONDS + 0.2
        assert await until_refused(other, child) == 0


@virtual
async def test_a_revocation_on_this_server_wins_over_a_read_that_began_before() -> None:
    async with login_server() as here:
        token = (await here.log_in()).token.reveal()
        caller = await here.who(token)
        await asyncio.sleep(11)
        held = asyncio.Event()

        async def hold(step: str) -> None:
            if step == "read_login_chain":
                found = here.store.login_tokens.copy()
                await held.wait()
                here.store.login_tokens = found  # the read sees the state in which it began

        here.store._at = hold
        reading = asyncio.create_task(here.who(token))  # noqa: TID251
        await asyncio.sleep(0.1)
        version = here.world.identifier.version
        await here.logins.revoke_self(caller, PEER)
        assert here.world.identifier.version > version  # calls whose message has not arrived are judged again
        held.set()
        with pytest.raises(Unauthenticated):
            await reading
        assert "has ended" in await here.refusal(token)


@virtual
async def test_while_the_store_fails_a_token_is_refused_once_it_has_to_be_read_again() -> None:
    async with login_server() as here:
        token = (await here.log_in()).token.reveal()
        caller = await here.who(token)
        here.store.fails.add("read_login_chain")
        await asyncio.sleep(9)
        assert (await here.who(token)).name == "ci"
        await asyncio.sleep(2)
        with pytest.raises(StoreUnavailable):
            await here.who(token)
        assert (await here.world.identifier.identify_again(caller)).name == "ci"  # a stream goes on
        here.store.fails.clear()
        assert (await here.who(token)).name == "ci"


@virtual
async def test_a_row_that_somebody_edited_admits_nobody() -> None:
    async with login_server() as here:
        new = await here.log_in()
        caller = await here.who(new.token.reveal())
        here.store.tampered.add(f"login_tokens/{login_digest(new.token.reveal())}")
        await asyncio.sleep(10)
        for work in (here.who(new.token.reveal()), here.world.identifier.identify_again(caller)):
            with pytest.raises(RowTampered):
                await work


@virtual
async def test_what_is_remembered_has_a_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_logins, "MAX_KNOWN", 10)
    async with login_server(limits=JwtLimits(1e9, 1e9)) as here:
        store = here.store
        known = KnownLogins(store, JwtLimits(1e9, 1e9))
        for number in range(30):
            token = login_token(number, store.now())
            await store.add_login_token(token, 1000)
            await known.find(token.digest, None)
            with pytest.raises(Unauthenticated):
                await known.find(login_digest(str(number)), None)
        assert len(known._known) == len(known._unknown) == 10
        monkeypatch.setattr(known_logins, "MAX_BYTES", 100_000)
        for number in range(30, 35):
            kept = KeptJwt("u", "RS256", (), {"groups": ("g" * 30_000,)})
            await store.add_login_token(login_token(number, store.now(), credential=kept), 1000)
            await known.find(login_token(number, 0).digest, None)
        assert len(known._known) <= 4
        for digest in list(known._known):
            known._remove(digest)
        assert known._bytes == 0


@virtual
async def test_a_limit_of_reads_does_not_count_tokens_that_are_remembered() -> None:
    async with login_server() as here:
        known = KnownLogins(here.store, JwtLimits(per_peer=1, together=1))
        await here.store.add_login_token(login_token(0, here.store.now()), 1000)
        await known.find(login_token(0, 0).digest, None)
        for _ in range(5):
            await asyncio.sleep(10)
            await known.find(login_token(0, 0).digest, None)
            with pytest.raises(Unauthenticated):
                await known.find(login_digest(str(here.store.now())), None)
            with pytest.raises(TryLater):
                await known.find(login_digest("other"), None)


# --- reloads ----------------------------------------------------------------------------------------------


@virtual
async def test_a_token_ends_when_the_digest_of_its_credential_leaves_the_file() -> None:
    async with login_server() as here:
        token = (await here.log_in()).token.reveal()
        other = TokenHash.of("another").digest
        here.use(replace(CI, match=TokenMatch((other, FIXED))))
        assert (await here.who(token)).name == "ci"
        here.use(replace(CI, match=TokenMatch((other,))))
        assert "no longer accepted" in await here.refusal(token)
        here.use(JOB)
        assert "no longer accepted" in await here.refusal(token)


@virtual
async def test_a_token_ends_at_token_expires_and_renewals_do_not_pass_it() -> None:
    async with login_server() as here:
        here.use(replace(CI, match=TokenMatch((FIXED,), expires_at=NOW + 5000)))
        new = await here.log_in()
        status = await here.logins.renew_self(await here.who(new.token.reveal()), PEER, timedelta(hours=5))
        assert status.ttl == 4999
        await asyncio.sleep(5000)
        assert "has ended" in await here.refusal(new.token.reveal())


@virtual
async def test_a_digest_that_moves_to_another_identity_does_not_take_its_tokens_along() -> None:
    async with login_server() as here:
        token = (await here.log_in()).token.reveal()
        here.use(replace(CI, name="other"))
        assert 'maps the login token to "other"' in await here.refusal(token)


@virtual
async def test_rights_and_labels_are_those_of_the_file_in_force() -> None:
    async with login_server() as here:
        token = (await here.log_in()).token.reveal()
        assert (await here.who(token)).labels == {"team": "blue"}
        here.use(replace(CI, policies=(), labels={"team": "green"}))
        caller = await here.who(token)
        assert (caller.policies, caller.labels) == ((), {"team": "green"})


@virtual
async def test_token_max_ttl_counts_for_new_and_for_old_tokens() -> None:
    async with login_server() as here:
        old = (await here.log_in()).token.reveal()
        await here.logins.renew_self(await here.who(old), PEER, timedelta(hours=10))
        here.use(replace(CI, token_max_ttl=timedelta(minutes=30)))
        new = await here.log_in()
        assert (new.status.ttl, new.status.max_ttl) == (1800, 1800)
        assert (await here.who(old)).login.expires_us <= here.store.now() + HOUR_US / 2  # type: ignore[union-attr]
        assert (await here.logins.look_up(await here.who(old), PEER)).max_ttl == 1800
        here.use(replace(CI, token_max_ttl=timedelta(days=30)))
        assert (await here.log_in()).status.max_ttl == 30 * 86400


@virtual
@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"issuers": ()}, "no issuer"),
        ({"issuers": (issuer(url="https://other.example"),)}, "no issuer"),
        ({"issuers": (issuer(algorithms=("ES256",)),)}, "does not accept the algorithm"),
        ({"issuers": (issuer(audiences=("other",)),)}, "another audience"),
        ({"identities": (CI,)}, "no identity of the access file matches"),
        ({"identities": (replace(JOB, match=JwtMatch("ci", {"sub": "other"})),)}, "no identity"),
        ({"identities": (replace(JOB, name="job/{sub}"),)}, "maps the login token to"),
        ({"identities": (MAIN, JOB)}, 'names the claim "ref", which was not kept'),
    ],
)
async def test_a_token_of_a_jwt_is_judged_by_a_new_file(changed: dict[str, object], why: str) -> None:
    async with login_server() as here:
        token = (await here.log_in_by_jwt(ref="refs/heads/main")).token.reveal()
        here.world.identifier.use(replace(RULES, **changed))  # type: ignore[arg-type]
        assert why in await here.refusal(token)
        here.world.identifier.use(RULES)
        assert (await here.who(token)).name == "gh/repo:acme/app"


@virtual
async def test_claims_that_the_file_named_at_the_login_are_kept_and_no_others() -> None:
    async with login_server() as here:
        here.use(MAIN, replace(JOB, name="any/{sub}", labels={"team": "{/a/b}"}))
        await here.log_in_by_jwt(ref="refs/heads/main", mail="a@example.org", a={"b": 7})
        (token,) = here.store.login_tokens.values()
        assert isinstance(token.credential, KeptJwt)
        assert token.credential.claims == {
            "ref": "refs/heads/main",
            "sub": "repo:acme/app",
            "/a/b": "7",
        }
        assert "example.org" not in str(token)


@pytest.mark.parametrize(
    ("value", "pattern", "matches"),
    [
        ("main", "ma*", True),
        (True, "true", True),
        (7, "7", True),
        (["a", "b", 3, {"x": 1}], "b", True),
        (["a"], "b", False),
        ({"x": 1}, "*", False),
        (None, "*", False),
        (1.5, "*", False),
    ],
)
def test_a_kept_claim_matches_as_the_jwt_did(value: object, pattern: str, matches: bool) -> None:
    config = AccessConfig({}, (replace(JOB, match=JwtMatch("ci", {"ref": pattern})),), (issuer(),))
    kept = keep_jwt(config, issuer(), "RS256", claims(ref=value))
    if matches:
        assert identify_kept(config, kept).name == "gh/repo:acme/app"
    else:
        with pytest.raises(Unauthenticated):
            identify_kept(config, kept)


def test_a_list_that_was_kept_has_no_value_for_a_name() -> None:
    config = AccessConfig({}, (JOB,), (issuer(),))
    kept = keep_jwt(config, issuer(), "RS256", claims(sub=["a"]))
    with pytest.raises(Unauthenticated, match="is not text"):
        identify_kept(config, kept)


@virtual
async def test_a_token_of_the_root_token_ends_with_it() -> None:
    async with login_server() as here, login_server(here.store, root=False) as without:
        caller = await here.who(ROOT_TOKEN)
        token = (await here.logins.create_child(caller, PEER)).token.reveal()
        assert (await here.who(token)).acl is None
        assert "no longer accepted" in await without.refusal(token)


# --- calls that last ---------------------------------------------------------------------------------------


@virtual
async def test_a_call_that_lasts_is_judged_by_its_token() -> None:
    async with login_server() as one, login_server(one.store) as other:
        token = (await one.log_in()).token.reveal()
        caller = await other.who(token)
        again = await other.world.identifier.identify_again(caller)
        assert (again.name, again.auth_method) == ("ci", AuthMethod.LOGIN)
        await one.logins.renew_self(await one.who(token), PEER, timedelta(hours=5))
        await asyncio.sleep(10)
        later = await other.world.identifier.identify_again(caller)
        assert later.expires_at > caller.expires_at + 3600
        await one.logins.revoke_self(await one.who(token), PEER)
        await asyncio.sleep(10)
        with pytest.raises(Unauthenticated):
            await other.world.identifier.identify_again(caller)


@virtual
async def test_renewals_and_revocations_judge_open_streams_on_this_server() -> None:
    async with login_server() as here:
        judged: list[float] = []

        async def judge() -> None:
            judged.append(asyncio.get_running_loop().time())

        token = (await here.log_in()).token.reveal()
        here.world.identifier.judge_streams = judge
        await here.logins.renew_self(await here.who(token), PEER)
        await asyncio.sleep(0.1)
        assert len(judged) == 1
        await here.logins.revoke_self(await here.who(token), PEER)
        await asyncio.sleep(0.1)
        assert len(judged) == 2
