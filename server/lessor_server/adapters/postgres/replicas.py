"""The table of replicas: who lives, and the share of each in the rates of accounts.

Signs of life are given one after another, by a lock on one row, so each sees the shares of all. Times are
those of the database's clock, which does not depend on what a replica knows of it.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from lessor_server.adapters.postgres import replica_statements as sql
from lessor_server.adapters.postgres import statements as own
from lessor_server.adapters.sql.base import StorePart
from lessor_server.adapters.sql.columns import Row
from lessor_server.adapters.sql.transaction import REPEAT, Params, Transaction, require_row
from lessor_server.domain.rate_shares import GrantedShare, StoredShare, grant_share
from lessor_server.engine.replica_ports import (
    EVENT_SECONDS,
    FORGET_SECONDS,
    SILENT_SECONDS,
    Fleet,
    ReplicaSign,
    ReplicaStatus,
    SharedEvent,
)

_ACCOUNTS_A_TURN: Final = 200
"""A thousand accounts take 20 ms, in which nothing else would run."""


class StoredReplicas(StorePart):
    """Implements ``engine.replica_ports.ReplicaStore``."""

    async def report_alive(self, sign: ReplicaSign) -> Fleet:
        async def job(tx: Transaction) -> Fleet:
            await tx.row(sql.LOCK, {})
            now_us = await _read_clock(tx)
            await tx.change(sql.FORGET, {"until_us": now_us - int(FORGET_SECONDS * 1e6)})
            await tx.change(sql.DROP_EVENTS, {"until_us": now_us - int(EVENT_SECONDS * 1e6)})
            await tx.change(sql.SIGN, _params_of_sign(sign, now_us))
            replicas = [_read_replica(row) for row in await tx.rows(sql.REPLICAS, {})]
            live = [one.name for one in replicas if not one.is_silent(now_us)]
            shares, granted = await _grant(tx, sign, live, now_us)
            of_replica: defaultdict[str, list[StoredShare]] = defaultdict(list)
            for share in shares:
                of_replica[share.replica].append(share)
            listed = tuple(replace(one, shares=tuple(of_replica[one.name])) for one in replicas)
            active = await tx.row(sql.ACTIVE_KEY, {})
            return Fleet(now_us, listed, granted, active[0] if active else "")

        return await self._jobs.write(job, REPEAT)

    async def remove_replica(self, name: str) -> None:
        await self._repeatable(sql.LEAVE, {"name": name})

    async def void_claims_of(self, names: Sequence[str]) -> int:
        async def job(tx: Transaction) -> int:
            now_us = await _read_clock(tx)
            until_us = now_us - int(SILENT_SECONDS * 1e6)
            params: Params = {"names": json.dumps(list(names)), "until_us": until_us, "now": now_us}
            return await tx.change(sql.VOID_CLAIMS_OF, params)

        async def again(tx: Transaction, voided: int) -> int:
            return max(voided, await job(tx))

        return await self._jobs.write(job, again)

    async def void_lost_claims(self, name: str, kept: Sequence[str]) -> int:
        async def job(tx: Transaction) -> int:
            params: Params = {"by": name, "ids": json.dumps(list(kept)), "now": await _read_clock(tx)}
            return await tx.change(sql.VOID_LOST_CLAIMS, params)

        async def again(tx: Transaction, voided: int) -> int:
            return max(voided, await job(tx))

        return await self._jobs.write(job, again)

    async def append_events(self, replica: str, events: Sequence[SharedEvent]) -> None:
        async def job(tx: Transaction) -> int:
            (last,) = await require_row(tx, sql.NEXT_EVENTS, {"count_us": len(events)})
            numbered = enumerate(events, last - len(events) + 1)
            await tx.change_many(
                sql.ADD_EVENT, [_params_of_event(replica, number, event) for number, event in numbered]
            )
            return int(last)

        async def again(tx: Transaction, last: int) -> int:
            is_stored = await tx.row(sql.IS_EVENT, {"number_us": last, "replica": replica}) is not None
            return last if is_stored else await job(tx)

        await self._jobs.write(job, again)

    async def find_last_event(self, before_us: int) -> int:
        async def job(tx: Transaction) -> int:
            return int((await require_row(tx, sql.LAST_EVENT, {"until_us": before_us}))[0])

        return await self._jobs.read(job, single=True)

    async def list_events(self, after: int, without: str, limit: int) -> list[tuple[int, SharedEvent]]:
        async def job(tx: Transaction) -> list[tuple[int, SharedEvent]]:
            params: Params = {"after_us": after, "replica": without, "limit": limit}
            return [(row[0], SharedEvent(*row[1:])) for row in await tx.rows(sql.EVENTS, params)]

        return await self._jobs.read(job, single=True)


async def _read_clock(tx: Transaction) -> int:
    return int((await require_row(tx, own.CLOCK, {}))[0])


async def _grant(
    tx: Transaction, sign: ReplicaSign, live: Sequence[str], now_us: int
) -> tuple[list[StoredShare], tuple[GrantedShare, ...]]:
    """Grant the shares that a replica asks for, and store them; return all shares, and the granted ones."""
    await tx.change(sql.END_SHARES, {"now": now_us})
    accounts: defaultdict[str, dict[str, StoredShare]] = defaultdict(dict)
    for row in await tx.rows(sql.SHARES, {}):
        share = StoredShare(*row)
        accounts[share.account][share.replica] = share
    granted: list[GrantedShare] = []
    for number, asked in enumerate(sign.shares):
        if number % _ACCOUNTS_A_TURN == 0:
            await asyncio.sleep(0)
        rows = accounts[asked.account]
        rows[sign.name], found = grant_share(sign.name, asked, list(rows.values()), live, now_us)
        granted.append(found)
    changed = [_params_of_share(accounts[asked.account][sign.name]) for asked in sign.shares]
    await tx.change_many(sql.PUT_SHARE, changed)
    return [share for rows in accounts.values() for share in rows.values()], tuple(granted)


def _params_of_sign(sign: ReplicaSign, now_us: int) -> Params:
    return {
        "name": sign.name,
        "program": sign.version,
        "seen_us": now_us,
        "ahead_us": sign.wall_us - now_us,
        "settings": json.dumps(dict(sign.settings)),
        "known_key": sign.known_key,
        "used_key": sign.used_key,
    }


def _read_replica(row: Row) -> ReplicaStatus:
    name, version, seen_us, ahead_us, settings, known, used = row
    found = tuple(json.loads(settings).items())
    return ReplicaStatus(name, version, seen_us, ahead_us, found, known_key=known, used_key=used)


def _params_of_share(share: StoredShare) -> dict[str, str | float]:
    return {
        "replica": share.replica,
        "account": share.account,
        "rate": share.rate,
        "demand": share.demand,
        "share": share.share,
        "reserved": share.reserved,
        "until_us": share.until_us,
    }


def _params_of_event(replica: str, number: int, event: SharedEvent) -> Params:
    return {
        "number_us": number,
        "replica": replica,
        "kind": event.kind,
        "lease_id": event.lease_id,
        "owner": event.owner,
        "at_us": event.at_us,
        "error": event.error,
    }
