"""The stream of events of the console: who gets it, and what a refusal says."""

from __future__ import annotations

import pytest

from tests.support.console_browser import browser
from tests.support.virtual_loop import virtual


@pytest.mark.parametrize(("prefix", "status"), [("aws", 400), ("", 400), ("aws/nonsense/", 400)])
@virtual
async def test_a_stream_of_events_that_is_refused_says_why(prefix: str, status: int) -> None:
    async with browser() as b:
        await b.sign_in()
        seen = await b.ask("GET", f"/events/stream?prefix={prefix}")
        assert seen.status == status
        assert seen.text


@virtual
async def test_a_stranger_gets_no_events() -> None:
    async with browser() as b:
        assert (await b.ask("GET", "/events/stream?prefix=aws/")).status == 303
