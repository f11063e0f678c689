"""Checks that an attempt on a rotation ends when it has lost its claim."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from lessor_server.domain.errors.base import Aborted
from tests.support import builders
from tests.support.engine_world import World
from tests.support.rotating import root_key, rotate, rotating
from tests.support.virtual_loop import virtual

SUBJECT = "aws/root"


def take(w: World) -> None:
    """Change the row as a claim of another process does."""
    row = w.store.rotations[SUBJECT]
    w.store.rotations[SUBJECT] = replace(row, generation=row.generation + 1)


def drop(w: World) -> None:
    """Forget the row as a disabled mount does."""
    del w.store.rotations[SUBJECT]


@pytest.mark.parametrize("lose", [take, drop])
@pytest.mark.parametrize(
    ("after", "times"), [("ListAccessKeys done", 1), ("CreateAccessKey done", 1), ("VerifyKeyOnIam done", 3)]
)
@virtual
async def test_an_attempt_that_has_lost_its_claim_sends_no_more_calls(
    lose: Callable[[World], None], after: str, times: int
) -> None:
    async with rotating() as w:
        w.points.passed.clear()
        rotation = asyncio.get_running_loop().create_task(rotate(w))
        await w.until(lambda: w.points.passed.count(after) == times)
        lose(w)
        w.aws.sent.clear()
        await asyncio.wait([rotation])
        assert isinstance(rotation.exception(), Aborted)
        assert w.aws.actions() == []
        assert await root_key(w) == builders.ROOT_KEY
