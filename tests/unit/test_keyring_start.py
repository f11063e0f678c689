"""Checks how often a start asks AWS KMS, which does not answer."""

from __future__ import annotations

import asyncio
from typing import Any

from lessor_server.adapters.sealing.keyring import Keyring
from lessor_server.adapters.sealing.local_key import LocalKey
from lessor_server.domain.errors.sealing import SealingKeyUnavailable
from lessor_server.domain.events import Event, SealingKeyAway
from lessor_server.keyring_start import KeyringStart
from lessor_server.settings.model import load
from tests.support.virtual_loop import virtual


class Away(KeyringStart):
    """A start whose key is away for the first tries."""

    tries: tuple[float, ...] = ()
    away = 8

    async def open(self) -> Keyring:
        """Answer once enough tries were made."""
        Away.tries += (asyncio.get_running_loop().time(),)
        if len(self.tries) <= self.away:
            raise SealingKeyUnavailable("KMS throttles")
        return Keyring(LocalKey(bytes(32), "the key of the tests"))


@virtual
async def test_a_start_waits_longer_each_time_and_half_a_minute_at_most() -> None:
    nothing: Any = None
    events: list[Event] = []
    opened: list[float] = []
    start = asyncio.get_running_loop().time()

    async def while_away() -> None:
        opened.append(asyncio.get_running_loop().time() - start)

    Away.tries = ()
    assert await Away(nothing, load(None, {}), nothing, events.append).wait(while_away)
    assert [round(at - start) for at in Away.tries] == [0, 1, 3, 7, 15, 31, 61, 91, 121]
    assert opened == [0]
    assert events == [SealingKeyAway("KMS throttles")] * Away.away
