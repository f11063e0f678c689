"""Checks the records of logins, and that no failure leaves a token behind that nobody has."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lessor_server.domain.audit.record import RecordKind
from lessor_server.domain.errors.access import (
    AuditUnavailable,
    TokenNotRenewable,
    TooManyLoginTokens,
)
from lessor_server.domain.errors.base import (
    InternalError,
    Invalid,
    StoreUnavailable,
)
from tests.support.identifier_world import TOKEN
from tests.support.login_world import PEER, login_server
from tests.support.virtual_loop import virtual

SECRET = "not-the-secret-of-ci"


@virtual
async def test_each_call_is_recorded_with_the_accessor_and_without_the_token() -> None:
    async with login_server() as here:
        new = await here.log_in()
        caller = await here.who(new.token.reveal())
        child = await here.logins.create_child(caller, PEER)
        await here.logins.renew_self(caller, PEER)
        await here.logins.look_up(caller, PEER)
        await here.logins.revoke_self(caller, PEER)
        found = [(one.rpc, one.kind, one.accessor, one.request) for one in here.audit.written]
        own, of_child = new.status.accessor, child.status.accessor
        request, response = RecordKind.REQUEST, RecordKind.RESPONSE
        assert found == [
            ("Token.Login", request, "", "id-1"),
            ("Token.Login", response, own, "id-1"),
            ("Token.Create", request, own, "id-2"),
            ("Token.Create", response, of_child, "id-2"),
            ("Token.RenewSelf", request, own, "id-3"),
            ("Token.RenewSelf", response, own, "id-3"),
            ("Token.RevokeSelf", request, own, "id-5"),
            ("Token.RevokeSelf", response, own, "id-5"),
        ]
        assert [(one.rpc, one.accessor) for one in here.audit.noted] == [("Token.LookupSelf", own)]
        assert {one.identity for one in here.audit.records} == {"ci"}
        assert {one.auth_method for one in here.audit.written[:2]} == {"token"}
        assert {one.auth_method for one in here.audit.written[2:]} == {"login"}
        assert here.audit.written[0].path == "auth/approle/login"
        texts = str([one.content() for one in here.audit.records])
        assert new.token.reveal() not in texts
        assert caller.login.digest not in texts  # type: ignore[union-attr]
        assert TOKEN not in texts


@virtual
async def test_refused_calls_are_recorded_with_the_reason() -> None:
    async with login_server() as here:
        with pytest.raises(Invalid):
            await here.logins.log_in(PEER, "approle", {"role_id": "ci", "secret_id": SECRET})
        with pytest.raises(TokenNotRenewable):
            await here.logins.renew_self(await here.who(TOKEN), PEER)
        stranger, known = here.audit.noted
        assert (stranger.decision, stranger.status, stranger.identity) == (
            "unauthenticated",
            "INVALID_ARGUMENT",
            "",
        )
        assert (known.decision, known.reason, known.identity) == ("allowed", "TOKEN_NOT_RENEWABLE", "ci")
        assert SECRET not in str(stranger.content())


@virtual
async def test_without_audit_nothing_is_created_and_revocations_go_on() -> None:
    async with login_server() as here:
        new = await here.log_in()
        caller = await here.who(new.token.reveal())
        here.audit.works = False
        for work in (
            here.log_in(),
            here.logins.create_child(caller, PEER),
            here.logins.renew_self(caller, PEER),
        ):
            with pytest.raises(AuditUnavailable):
                await work
        assert len(here.store.login_tokens) == 1
        await here.logins.revoke_self(caller, PEER)
        assert here.store.login_tokens == {}
        assert [one.rpc for one in here.audit.noted_effects] == ["Token.RevokeSelf"] * 2


@virtual
async def test_a_token_whose_answer_cannot_be_recorded_is_ended() -> None:
    async with login_server() as here:

        def fail(record: Any) -> None:
            here.audit.works = record.kind is RecordKind.REQUEST

        here.audit.before_write = fail
        with pytest.raises(AuditUnavailable):
            await here.log_in()
        assert here.store.login_tokens == {}


@virtual
async def test_a_caller_that_leaves_before_the_answer_leaves_no_token() -> None:
    async with login_server() as here:

        def hold(record: Any) -> None:
            if record.kind is RecordKind.RESPONSE:
                here.audit.may_write.clear()

        here.audit.before_write = hold
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await here.log_in()
        assert here.store.login_tokens == {}
        assert [one.status for one in here.audit.noted] == ["CANCELLED"]


@virtual
async def test_a_kill_between_the_row_and_the_answer_leaves_a_row_that_ends_by_itself() -> None:
    class Killed(BaseException):
        """The process dies here."""

    async with login_server(max_tokens=1) as here:

        async def die(step: str) -> None:
            await asyncio.sleep(0)
            if step == "add_login_token done":
                raise Killed

        here.store._at = die
        with pytest.raises(Killed):
            await here.log_in()
        here.store._at = lambda _: asyncio.sleep(0)
        assert len(here.store.login_tokens) == 1
        with pytest.raises(TooManyLoginTokens):
            await here.log_in()
        await asyncio.sleep(3600)
        assert await here.log_in()
        await here.tokens.purge()
        assert len(here.store.login_tokens) == 1


@virtual
async def test_a_token_whose_answer_was_not_delivered_can_be_withdrawn() -> None:
    async with login_server() as here:
        new = await here.log_in()
        await here.logins.withdraw(new, PEER)
        assert "has ended" in await here.refusal(new.token.reveal())


@virtual
async def test_an_unexpected_exception_is_logged_and_shows_nothing() -> None:
    async with login_server() as here:

        async def fail(_: str) -> None:
            raise ZeroDivisionError(SECRET)

        here.store._at = fail
        with pytest.raises(InternalError, match="reference report-1") as caught:
            await here.log_in()
        assert SECRET not in str(caught.value)
        assert here.reports.take() == ["Token.Login"]


@virtual
async def test_a_store_that_fails_creates_and_ends_nothing() -> None:
    async with login_server() as here:
        new = await here.log_in()
        caller = await here.who(new.token.reveal())
        here.store.fail_writes = True
        for work in (here.log_in(), here.logins.revoke_self(caller, PEER)):
            with pytest.raises(StoreUnavailable):
                await work
        here.store.fail_writes = False
        assert (await here.who(new.token.reveal())).name == "ci"


@virtual
async def test_expired_rows_are_purged_each_minute_also_after_the_store_has_failed() -> None:
    async with login_server() as here:
        await here.log_in()
        purging = asyncio.create_task(here.tokens.run())  # noqa: TID251
        await asyncio.sleep(3590)
        assert len(here.store.login_tokens) == 1
        here.store.fail_writes = True
        await asyncio.sleep(120)
        here.store.fail_writes = False
        await asyncio.sleep(60)
        assert here.store.login_tokens == {}
        purging.cancel()
