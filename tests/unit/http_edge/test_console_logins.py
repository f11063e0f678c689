"""Sessions as login tokens, and the links of the command line that become one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from lessor_server.adapters.identity.jwt_limiter import JwtLimits
from lessor_server.adapters.sealing.keyring import DataKey
from lessor_server.domain.access.access_config import Identity
from lessor_server.domain.errors.base import LessorError
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.console.sessions import LoginSessions
from lessor_server.services.guard import Guard
from lessor_server.services.sign_in_links import SignInLinks
from tests.support.call_notes import CallNotes
from tests.support.console_browser import request_of_browser
from tests.support.identifier_world import KEY, RULES, TOKEN
from tests.support.json_web_tokens import claims
from tests.support.login_world import PEER, Server, login_server
from tests.support.memory_store import MemoryStore
from tests.support.virtual_loop import virtual

HOUR = 3600.0


@dataclass
class Site:
    """A console's sessions on one server."""

    server: Server
    sessions: LoginSessions
    links: SignInLinks

    async def begin(self, token: str = TOKEN) -> str:
        """Sign in with a token; return the session's."""
        return self.sessions.open(await self.begin_cookie(token))

    async def begin_cookie(self, token: str = TOKEN) -> str:
        """Sign in with a token; return the cookie."""
        return await self.sessions.begin(request_of_browser("POST", "/sign-in", b"", {}), token)

    async def begin_by_link(self, code: str) -> str:
        """Sign in by a link; return the session's token."""
        request = request_of_browser("POST", "/sign-in/link", b"", {})
        return self.sessions.open(await self.sessions.begin_by_link(request, code))

    async def end(self, session: str) -> None:
        """Sign out."""
        await self.sessions.end(request_of_browser("POST", "/sign-out", b"", {}), session)

    async def create_link(self, token: str = TOKEN) -> str:
        """Return the code of a new link for the holder of a token."""
        return (await self.links.create(await self.server.who(token), PEER)).code


@asynccontextmanager
async def site(store: MemoryStore | None = None, key: DataKey | None = None) -> AsyncIterator[Site]:
    """Run the sessions of a server; a ``store`` and a ``key`` of another one make them replicas."""
    async with login_server(store, limits=JwtLimits(100, 100)) as server:
        guard = Guard(server.world.identifier, CallNotes(), lambda: server.store.now() / 1e6)
        links = SignInLinks(server.logins, key or DataKey(bytes(32)))
        yield Site(server, LoginSessions(guard, server.logins, links), links)


@virtual
async def test_a_session_is_a_login_token_of_the_same_identity_for_eight_hours() -> None:
    async with site() as s:
        session = await s.begin()
        person = await s.server.who(session)
        assert (person.name, person.auth_method.value) == ("ci", "login")
        await asyncio.sleep(7.9 * HOUR)
        await s.server.who(session)
        await asyncio.sleep(0.2 * HOUR)
        assert await s.server.refusal(session)


@virtual
async def test_a_session_cannot_be_renewed_past_its_end() -> None:
    async with site() as s:
        person = await s.server.who(await s.begin())
        with pytest.raises(LessorError, match="not renewable"):
            await s.server.logins.renew_self(person, PEER)


@virtual
async def test_a_jwt_begins_a_session_too() -> None:
    async with site() as s:
        session = await s.begin(KEY.sign(claims()))
        assert (await s.server.who(session)).auth_method.value == "login"


@pytest.mark.parametrize("text", [TOKEN, "", "lst_short", "s.abcdef"])
@virtual
async def test_no_other_token_works_as_a_cookie(text: str) -> None:
    async with site() as s:
        assert s.sessions.open(text) == ""


@virtual
async def test_a_login_token_of_another_client_is_no_session_and_may_live_longer_than_one() -> None:
    async with site() as s:
        bought = await s.server.logins.create_child(await s.server.who(TOKEN), PEER)
        assert s.sessions.open(bought.token.reveal()) == ""
        assert s.sessions.open(await s.create_link()) == ""


@virtual
async def test_a_session_cookie_is_no_credential_of_a_call() -> None:
    async with site() as s:
        cookie = await s.begin_cookie()
        assert "lst_" not in cookie
        assert await s.server.refusal(cookie)


@virtual
async def test_a_wrong_token_begins_nothing() -> None:
    async with site() as s:
        with pytest.raises(CallRefused) as caught:
            await s.begin("wrong-token-wrong")
        assert caught.value.error.reason == "UNAUTHENTICATED"
        assert "wrong-token" not in str(caught.value.error)


@virtual
async def test_a_session_ends_by_signing_out_and_doing_so_again_is_no_error() -> None:
    async with site() as s:
        session = await s.begin()
        await s.end(session)
        assert await s.server.refusal(session)
        await s.end(session)


@virtual
async def test_a_session_ends_with_the_identity_that_began_it() -> None:
    async with site() as s:
        session = await s.begin()
        others: tuple[Identity, ...] = tuple(one for one in RULES.identities if one.name != "ci")
        s.server.use(*others)
        assert await s.server.refusal(session)


@virtual
async def test_a_link_begins_one_session_of_eight_hours() -> None:
    async with site() as s:
        code = await s.create_link()
        session = await s.begin_by_link(code)
        await asyncio.sleep(7.9 * HOUR)
        assert (await s.server.who(session)).name == "ci"
        with pytest.raises(CallRefused):
            await s.begin_by_link(code)
        await asyncio.sleep(0.2 * HOUR)
        assert await s.server.refusal(session)


@virtual
async def test_a_link_says_who_created_it_and_that_does_not_use_it_up() -> None:
    async with site() as s:
        code = await s.create_link()
        request = request_of_browser("GET", f"/sign-in/link/{code}", b"", {})
        assert await s.sessions.find_link_owner(request, code) == "ci"
        assert await s.sessions.find_link_owner(request, code[::-1]) == ""
        await s.begin_by_link(code)
        assert await s.sessions.find_link_owner(request, code) == ""


@virtual
async def test_a_link_holds_for_a_minute() -> None:
    async with site() as s:
        code = await s.create_link()
        await asyncio.sleep(61)
        with pytest.raises(CallRefused):
            await s.begin_by_link(code)


@virtual
async def test_a_link_that_one_replica_has_let_in_is_refused_by_the_one_that_created_it() -> None:
    key = DataKey(bytes(32))
    async with site(key=key) as first, site(first.server.store, key) as second:
        code = await first.create_link()
        await second.begin_by_link(code)
        with pytest.raises(CallRefused):
            await first.begin_by_link(code)


@virtual
async def test_a_link_is_used_once_also_by_two_browsers_at_the_same_moment() -> None:
    async with site() as s:
        code = await s.create_link()
        outcomes = []

        async def use() -> None:
            try:
                outcomes.append(await s.begin_by_link(code))
            except CallRefused:
                outcomes.append("refused")

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(use())
        assert sorted(outcomes)[1:] == ["refused", "refused"]


@virtual
async def test_a_link_works_on_another_server_of_the_same_store() -> None:
    key = DataKey(bytes(range(32)))
    async with site(None, key) as first, site(first.server.store, key) as second:
        session = await second.begin_by_link(await first.create_link())
        assert (await first.server.who(session)).name == "ci"


@pytest.mark.parametrize("code", ["", "x", "ü", "=" * 9, "A" * 10_000, "aa/../bb", "A" * 200])
@virtual
async def test_a_code_that_is_no_link_is_refused(code: str) -> None:
    async with site() as s:
        with pytest.raises(CallRefused) as caught:
            await s.begin_by_link(code)
        assert caught.value.error.reason == "UNAUTHENTICATED"


@virtual
async def test_a_link_has_no_token_in_the_clear_and_its_repr_has_no_code() -> None:
    async with site() as s:
        link = await s.links.create(await s.server.who(TOKEN), PEER)
        assert "lst_" not in link.code
        assert link.code not in repr(link)
        assert link.expires_us - s.server.store.now() <= 60_000_000
        assert replace(link, code="").expires_us == link.expires_us
