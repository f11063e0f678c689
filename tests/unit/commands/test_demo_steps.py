"""Checks the steps of the demo with scripted answers of its commands."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from lessor_server.commands.demo import TRIES, TRY_AGAIN, DemoServer, StepFailed, Tour
from lessor_server.domain.secret import Secret
from tests.support.virtual_loop import virtual


class Busy(Tour):
    """Commands that say "try again" for some time."""

    def __init__(self, busy: int) -> None:
        super().__init__(DemoServer("127.0.0.1:1", Secret("token"), "http://127.0.0.1:1"), lambda _: None)
        self.left, self.runs = busy, 0

    async def _run(self, _words: Collection[str], _stdin: str = "") -> tuple[int | None, str]:
        self.runs += 1
        self.left -= 1
        return (0 if self.left < 0 else TRY_AGAIN), f"run {self.runs}"


@virtual
async def test_a_command_with_a_temporary_failure_is_run_again() -> None:
    tour = Busy(TRIES - 1)
    assert await tour._lessor("creds", "reader") == f"run {TRIES}"


@virtual
async def test_a_command_that_never_succeeds_fails_the_demo() -> None:
    tour = Busy(TRIES)
    with pytest.raises(StepFailed, match="exits with 0, not with 6"):
        await tour._lessor("creds", "reader")
    assert tour.runs == TRIES
