"""Checks when the keys of an issuer are read, how long they serve, and what is refused meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.json_web_tokens import FakeReader, SigningKey, issuer, key_set
from tests.support.virtual_loop import virtual

from lessor_server.adapters.identity.issuer_keys import IssuerKeys
from lessor_server.adapters.identity.key_source import KeysUnreadable
from lessor_server.domain.access.access_config import JwtIssuer
from lessor_server.domain.errors.access import IssuerUnavailable
from lessor_server.domain.errors.base import Unauthenticated

ONE, TWO = SigningKey("one"), SigningKey("two", "P-256")
AWAY = KeysUnreadable("connection refused")


class World:
    """The keys of one issuer, and what became of them."""

    def __init__(self, group: asyncio.TaskGroup, answer: bytes | Exception) -> None:
        self.reader = FakeReader(answer)
        self.removed = 0
        self.problems: list[str] = []
        self.keys = IssuerKeys(issuer(), self.reader.read_keys, group.create_task, self)

    def keys_removed(self, issuer: JwtIssuer) -> None:
        self.removed += 1

    def keys_unreadable(self, issuer: JwtIssuer, problem: str) -> None:
        self.problems.append(problem)

    @property
    def reads(self) -> int:
        return len(self.reader.reads)

    async def finds(self, kid: str | None = "one", algorithm: str = "RS256") -> str:
        """Return "key", or the reason of the error."""
        try:
            await self.keys.find(kid, algorithm)
        except Unauthenticated as error:
            return error.reason
        return "key"


@asynccontextmanager
async def world(answer: bytes | Exception | None = None) -> AsyncIterator[World]:
    """Yield a world whose issuer answers with ``answer``, by default the key ONE."""
    async with asyncio.TaskGroup() as group:
        yield World(group, key_set(ONE) if answer is None else answer)


@virtual
async def test_keys_are_read_when_they_are_needed_and_then_served_without_a_read() -> None:
    async with world() as here:
        assert here.reads == 0
        assert await here.finds() == "key"
        await asyncio.sleep(1799)
        assert await here.finds() == "key"
        assert here.reads == 1


@virtual
async def test_calls_at_the_same_time_wait_for_one_read() -> None:
    async with world() as here:
        here.reader.held = asyncio.Event()
        calls = [asyncio.create_task(here.finds()) for _ in range(20)]  # noqa: TID251
        await asyncio.sleep(1)
        calls[0].cancel()
        await asyncio.sleep(1)
        here.reader.held.set()
        assert {await call for call in calls[1:]} == {"key"}
        assert here.reads == 1


@virtual
async def test_keys_that_are_used_are_read_again_in_the_background() -> None:
    async with world() as here:
        await here.finds()
        here.reader.held = asyncio.Event()
        await asyncio.sleep(1800)
        assert await here.finds() == "key"
        await asyncio.sleep(0.1)
        assert here.reads == 2
        assert await here.finds() == "key"
        here.reader.held.set()
        await asyncio.sleep(1799)
        assert await here.finds() == "key"
        assert here.reads == 2


@virtual
async def test_keys_older_than_an_hour_are_read_on_the_path_of_the_call() -> None:
    async with world() as here:
        await here.finds()
        here.reader.answer = key_set(TWO)
        await asyncio.sleep(3600)
        assert await here.finds() == "UNAUTHENTICATED"
        assert here.reads == 2


@virtual
async def test_keys_serve_for_a_day_while_the_issuer_is_away() -> None:
    async with world() as here:
        await here.finds()
        here.reader.answer = AWAY
        await asyncio.sleep(3600)
        assert await here.finds() == "key"
        assert here.problems == ["connection refused"]
        await asyncio.sleep(86_400 - 3601)
        assert await here.finds() == "key"
        await asyncio.sleep(1)
        assert await here.finds() == "ISSUER_UNAVAILABLE"


@virtual
async def test_an_issuer_that_hangs_holds_up_calls_once_only() -> None:
    async with world() as here:
        await here.finds()
        here.reader.answer = AWAY
        await asyncio.sleep(3600)
        await here.finds()
        here.reader.held = asyncio.Event()
        await asyncio.sleep(60)
        assert await here.finds() == "key"
        await here.keys.refresh()
        here.reader.answer = key_set(ONE)
        here.reader.held.set()
        await asyncio.sleep(0.1)
        assert here.reads == 3
        assert here.keys.problem == ""


@virtual
async def test_an_unknown_key_is_asked_for_at_most_once_in_ten_seconds() -> None:
    async with world() as here:
        await here.finds()
        here.reader.answer = key_set(ONE, TWO)
        await asyncio.sleep(9.9)
        assert await here.finds("two", "ES256") == "UNAUTHENTICATED"
        assert here.reads == 1
        await asyncio.sleep(0.1)
        assert await here.finds("two", "ES256") == "key"
        assert here.reads == 2
        for _ in range(50):
            assert await here.finds("three") == "UNAUTHENTICATED"
        assert here.reads == 2


@virtual
async def test_an_unknown_key_while_the_issuer_is_away_is_told_apart() -> None:
    async with world() as here:
        await here.finds()
        here.reader.answer = AWAY
        await asyncio.sleep(10)
        assert await here.finds("two") == "ISSUER_UNAVAILABLE"
        assert await here.finds("two") == "ISSUER_UNAVAILABLE"
        assert await here.finds("one") == "key"
        assert here.reads == 2


@virtual
async def test_keys_that_were_never_read_are_asked_for_once_in_ten_seconds() -> None:
    async with world(AWAY) as here:
        for _ in range(5):
            with pytest.raises(IssuerUnavailable) as caught:
                await here.keys.find("one", "RS256")
        assert caught.value.private == "connection refused"
        assert "refused" not in caught.value.message
        assert here.reads == 1
        here.reader.answer = key_set(ONE)
        await asyncio.sleep(10)
        assert await here.finds() == "key"


@virtual
async def test_a_set_that_cannot_be_used_counts_as_no_answer() -> None:
    async with world(b"<html>") as here:
        assert await here.finds() == "ISSUER_UNAVAILABLE"
        here.reader.answer = RuntimeError("secret in a library's text")
        await asyncio.sleep(10)
        assert await here.finds() == "ISSUER_UNAVAILABLE"
        assert [problem.split(":")[0] for problem in here.problems] == [
            "its key set is malformed",
            "RuntimeError",
        ]


@virtual
async def test_a_key_that_leaves_or_changes_is_reported_and_a_new_one_is_not() -> None:
    async with world() as here:
        await here.finds()
        answers = [
            key_set(ONE, TWO),
            key_set(ONE),
            key_set(SigningKey("one", number=1)),
            key_set(ONE.jwk(use="enc")),
        ]
        for answer, removed in zip(answers, (0, 1, 2, 3), strict=True):
            here.reader.answer = answer
            await asyncio.sleep(10)
            await here.finds("unknown")
            assert here.removed == removed


@virtual
async def test_remembered_tokens_wait_only_for_keys_that_are_too_old() -> None:
    async with world() as here:
        await here.keys.refresh()
        await here.keys.refresh()
        assert here.reads == 1
        here.reader.answer = AWAY
        await asyncio.sleep(90_000)
        with pytest.raises(IssuerUnavailable):
            await here.keys.refresh()
