"""``python -m bench.fill ROLE COUNT EXPIRES_IN``: fills a store with ACTIVE leases as the product does.

It opens the store of the environment's settings with its keyring, so no server may run on it, and takes each
lease through its two durable writes, group by group. With EXPIRES_IN, all but the first tenth expire in the
same microsecond, that many seconds or more after the fill has ended; with 0 each lives for a day. Prints one
line of JSON for each tenth, and last what it took.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial

import structlog
import uvloop

from bench.lessor import MOUNT
from lessor_server.domain import lease as steps
from lessor_server.domain.lease import Footprint, Intent
from lessor_server.domain.lease_id import RANDOM_BOUND, LeaseId, suffix_of
from lessor_server.domain.user_names import user_name, user_path
from lessor_server.engine.store_types import StoredContext
from lessor_server.keyring_start import KeyringStart
from lessor_server.settings.model import load
from lessor_server.store_start import OpenedStore, open_store_of

_GROUP = 1000
_SLOWER = 1.5
"""A fill may become this much slower after its first tenth."""
_SPAN = timedelta(minutes=3)
_TTL, _MAX_TTL = timedelta(hours=24), timedelta(hours=48)


class Filler:
    """Writes leases of one role."""

    def __init__(self, store: OpenedStore, context: StoredContext, instance: str) -> None:
        """Write to ``store``."""
        self._store = store
        self._context = context
        self._instance = instance
        self._rng = random.Random()
        self.expires_us = 0
        """When leases expire that are written from now on; 0 for a ttl of each."""

    async def add(self, number: int) -> None:
        """Write the ``number``-th lease: an intent, then ACTIVE."""
        lease = await self._store.begin(self._intent(), _SPAN)
        active = steps.activate(lease, f"AKIAFILLED{number:010}", self._store.now())
        if self.expires_us:
            active = replace(active, expires_us=self.expires_us, due_us=self.expires_us)
        assert await self._store.write(lease, active)

    def _intent(self) -> Intent:
        mount, root, role = self._context.mount, self._context.root, self._context.role
        assert mount is not None
        assert root is not None
        assert role is not None
        suffix = suffix_of(self._store.now() // 1000, self._rng.randrange(RANDOM_BOUND))
        return Intent(
            id=str(LeaseId(mount.name, role.name, suffix)),
            mount=mount.name,
            role=role.name,
            credential_type=role.credential_type,
            owner="root",
            footprint=Footprint(
                root.account,
                user_name("", mount.name, role.name, suffix),
                user_path(self._instance, ""),
                "lessor" if role.policy_document else "",
            ),
            ttl=_TTL,
            max_ttl=_MAX_TTL,
            max_users=mount.max_users,
            max_leases=role.max_leases,
            root_version=root.version,
        )


async def fill(role: str, count: int, expires_in: float) -> None:
    """Write ``count`` leases of ``role``."""
    settings = load(None, os.environ)
    loop = asyncio.get_running_loop()
    began = loop.time()
    group = max(min(_GROUP, count // 10), 1)
    key = KeyringStart(settings, structlog.get_logger(), lambda _: None)
    verify = partial(key.verify, _nothing)
    async with open_store_of(settings, lambda _: None, verify) as store:
        await key.open(store)
        context = await store.load_issue_context(MOUNT, role)
        filler = Filler(store, context, (await store.status()).instance_id)
        for start in range(0, count, group):
            took = loop.time() - began
            if expires_in and not filler.expires_us and start * 10 >= count:
                left = took * count / start - took
                filler.expires_us = store.now() + round((expires_in + left * _SLOWER) * 1e6)
            async with asyncio.TaskGroup() as tasks:
                for number in range(start, min(start + group, count)):
                    tasks.create_task(filler.add(number))
            if start * 10 // count != (start + group) * 10 // count:
                print(json.dumps({"leases": min(start + group, count)}), flush=True)
    print(json.dumps({"seconds": loop.time() - began, "expires_us": filler.expires_us}), flush=True)


async def _nothing() -> None:
    """Open no port while the key is away: it is in a file."""


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        uvloop.run(fill(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
