"""Bulk revocations, reconcile, the clock, and backups."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from lessor_server.adapters.sql import rows
from lessor_server.adapters.sql import statements as sql
from lessor_server.adapters.sql.base import StorePart
from lessor_server.adapters.sql.clock import MARK, ServiceTime, mark_of
from lessor_server.adapters.sql.columns import Row, text
from lessor_server.adapters.sql.keyring import UNREADABLE_HOLD
from lessor_server.adapters.sql.row_macs import HELD, place_mount
from lessor_server.adapters.sql.transaction import REPEAT, Jobs, Transaction, require_row
from lessor_server.domain import lease as steps
from lessor_server.domain.lease import CREATE_GRACE, STUCK_AFTER, TOMBSTONE_LIFE, Lease, Orphan, State
from lessor_server.domain.lease_id import IdRange, is_lease_id
from lessor_server.domain.mount import Mount
from lessor_server.engine.store_types import BulkRevocation, LeaseCount, LeaseGauges, Progress, StoreStatus

COUNT_PAGE_ROWS: Final = 5_000
_STATES: Final = frozenset(state.value for state in State)


class StoredUpkeep(StorePart):
    """Ranges of leases, tombstones, and the store as a whole."""

    def __init__(self, jobs: Jobs, clock: ServiceTime, schema: int, instance: str) -> None:
        """Serve the database of the installation ``instance``, which was migrated to ``schema``."""
        super().__init__(jobs, clock)
        self.count_page = COUNT_PAGE_ROWS
        """How many leases are read at a time to be counted: other jobs go on meanwhile."""
        self._schema = schema
        self._instance = instance

    # --- prefixes ---------------------------------------------------------------------------------------

    async def open_prefix(self, ids: IdRange, owner: str = "") -> tuple[BulkRevocation, int]:
        async def job(tx: Transaction) -> tuple[BulkRevocation, int]:
            prefix = BulkRevocation(ids, await self._read_cutoff(tx, ids), owner)
            return prefix, await _open(tx, prefix)

        async def again(tx: Transaction, opened: tuple[BulkRevocation, int]) -> tuple[BulkRevocation, int]:
            is_open = await tx.row(sql.IS_OPEN, _prefix(opened[0])) is not None
            return opened if is_open else await job(tx)

        return await self._jobs.write(job, again)

    async def disable(self, mount: str) -> tuple[Mount, int] | None:
        async def job(tx: Transaction) -> tuple[Mount, int] | None:
            before = await tx.row(sql.GET_MOUNT, {"name": mount})
            if before is None:
                return None
            authentic = await self._macs.is_authentic(tx, place_mount(before))
            row = await require_row(tx, sql.DISABLE_MOUNT, {"name": mount})
            if authentic:  # else it stays what nothing is granted from
                await self._macs.put(tx, place_mount(row))
            ids = IdRange.of_mount(mount)
            prefix = BulkRevocation(ids, await self._read_cutoff(tx, ids))
            return self._reader.salvage(rows.MOUNTS, row), await _open(tx, prefix)

        async def again(tx: Transaction, disabled: tuple[Mount, int] | None) -> tuple[Mount, int] | None:
            row = await tx.row(sql.GET_MOUNT, {"name": mount})
            found = self._reader.salvage(rows.MOUNTS, row) if row else None
            # Another mount may have the name by now.
            is_there = disabled is None or (found and found.created_us == disabled[0].created_us)
            return await job(tx) if is_there else disabled

        return await self._jobs.write_alone(job, again)

    async def _read_cutoff(self, _tx: Transaction, _ids: IdRange) -> int:
        """Return when the newest lease of a range has begun, or a later time that is not in the future."""
        return self.now()

    async def prefixes(self) -> list[BulkRevocation]:
        return await self._list(rows.PREFIXES, sql.OPEN_PREFIXES, {})

    async def mark_range_revoking(self, prefix: BulkRevocation, after: str, limit: int) -> list[str]:
        statement = _scoped(sql.MARK_RANGE_REVOKING, prefix)
        return sorted(await self._ids(statement, _prefix(prefix) | {"after": after, "limit": limit}))

    async def close_prefix(self, prefix: BulkRevocation) -> None:
        await self._repeatable(sql.CLOSE_PREFIX, _prefix(prefix))

    async def progress(self, prefix: BulkRevocation) -> Progress:
        statement, alive, failed, gone = _scoped(sql.PROGRESS, prefix), 0, 0, 0
        last: str | None = ""
        while last is not None:  # behind the last page there is no id
            params = _prefix(prefix) | {"after": last, "limit": self.count_page}
            page = await self._jobs.read(
                partial(require_row, statement=statement, params=params), single=True
            )
            alive, failed, gone, last = alive + page[0], failed + page[1], gone + page[2], page[3]
        return Progress(alive, failed, gone)

    async def abandon(self, ids: IdRange, limit: int, *, live: bool) -> list[str]:
        params = rows.range_params(ids) | {"limit": limit, "live": live}
        return await self._ids(sql.ABANDON, params)

    async def _ids(self, statement: str, params: rows.Params) -> list[str]:
        async def job(tx: Transaction) -> list[str]:
            found = await tx.rows(statement, params | {"now": self.now()})
            return [row[0] for row in found if isinstance(row[0], str)]

        async def again(tx: Transaction, ids: list[str]) -> list[str]:
            return list({*ids, *await job(tx)})

        return await self._jobs.write(job, again)

    # --- reconcile --------------------------------------------------------------------------------------

    async def leases_by_user_name(self, user_names: Sequence[str]) -> dict[str, Lease | None]:
        async def job(tx: Transaction) -> dict[str, Lease | None]:
            found = await tx.rows(sql.LEASES_BY_USER_NAME, {"names": json.dumps(list(user_names))})
            named: dict[str, Lease | None] = {row[rows.USER_NAME]: None for row in found}
            leases = self._reader.salvaged(rows.LEASES, found)
            return named | {lease.footprint.user_name: lease for lease in leases}

        return await self._jobs.read(job)

    async def adopt(self, orphan: Orphan) -> bool:
        lease = steps.adopt(orphan, self.now())
        params = rows.lease_params(lease)
        params["mac"] = self._macs.lease_mac(params)

        async def job(tx: Transaction) -> bool:
            return await tx.change(sql.ADOPT, params) == 1

        async def again(tx: Transaction, adopted: bool) -> bool:
            if not adopted or await job(tx):
                return adopted
            row = await tx.row(sql.GET_LEASE, params)
            found = self._reader.salvage(rows.LEASES, row) if row else None
            return found is not None and found.footprint == lease.footprint

        return await self._jobs.write(job, again)

    async def purge_tombstones(self, account: str, listed_us: int) -> int:
        statement = sql.PURGE_TOMBSTONES if account else sql.PURGE_SESSIONS
        params: rows.Params = {
            "account": account,
            "listed_us": listed_us,
            "old_us": self.now() - rows.us(TOMBSTONE_LIFE),
            "grace_us": rows.us(CREATE_GRACE),
        }
        return await self._repeatable(statement, params)

    async def remove_disabled(self) -> list[str]:
        removals = (sql.REMOVE_ROTATIONS, sql.REMOVE_ROLES, sql.REMOVE_ROOT, sql.REMOVE_MOUNT)

        async def job(tx: Transaction) -> list[str]:
            found = await tx.rows(sql.DISABLED, {"stuck": STUCK_AFTER})
            names: list[str] = [row[0] for row in found if isinstance(row[0], str)]
            for name in names:
                for statement in removals:
                    await tx.change(statement, {"mount": name})
                await self._macs.drop_mount(tx, name)
            return names

        async def again(tx: Transaction, names: list[str]) -> list[str]:
            gone = [name for name in names if await tx.row(sql.GET_MOUNT, {"name": name}) is None]
            return gone + await job(tx)

        return await self._jobs.write_alone(job, again)

    # --- the clock, and the store as a whole ---------------------------------------------------------------

    def drift_us(self) -> int:
        return self._clock.drift_us()

    async def status(self) -> StoreStatus:
        async def job(tx: Transaction) -> StoreStatus:
            row = await tx.row(sql.GET_META, {"key": HELD})
            hold, problem = (row[0], text(row[0])) if row else ("", "")
            if problem:
                self._reader.note("meta", HELD, problem)
                hold = UNREADABLE_HOLD
            unreadable = self._reader.unreadable.items()
            return StoreStatus(
                instance_id=self._instance,
                schema_version=self._schema,
                first_start=self._clock.first_start,
                expiry_hold=hold,
                tampered_rows=tuple(f"{table} {key}" for table, key in sorted(self._reader.tampered)),
                unreadable_rows=tuple(f"{table} {key}: {problem}" for (table, key), problem in unreadable),
            )

        return await self._jobs.read(job)

    def measure_commits(self, on_commit: Callable[[float], None]) -> None:
        """Call ``on_commit`` with the seconds of each commit."""
        self._jobs.measure_commits(on_commit)

    async def measure_leases(self) -> LeaseGauges:
        now = {"now": self.now()}

        async def job(tx: Transaction) -> tuple[Sequence[Row], list[str], int, int]:
            counts = await tx.rows(sql.LIVE_COUNTS, {})
            mounts = [row[0] for row in await tx.rows(sql.MOUNT_NAMES, {"after": ""})]
            stuck = (await require_row(tx, sql.COUNT_STUCK, {}))[0]
            return counts, mounts, stuck, (await require_row(tx, sql.OLDEST_DUE, now))[0] or 0

        counts, mounts, stuck, oldest_due_us = await self._jobs.read(job)
        overdue = await self._count_overdue(now["now"]) if oldest_due_us else Counter()
        # With ten thousand roles this takes longer than the loop may be blocked.
        shown = await asyncio.to_thread(_shown_counts, counts, overdue)
        return LeaseGauges(shown, tuple(mounts), stuck, oldest_due_us)

    async def _count_overdue(self, now_us: int) -> Counter[tuple[str, str]]:
        """Count the expired ACTIVE leases by mount and role, a page at a time."""
        found = Counter[tuple[str, str]]()
        params: rows.Params = {"now": now_us, "due_us": -1, "id": "", "limit": self.count_page}
        while True:
            page = await self._jobs.read(partial(_read_overdue, params), single=True)
            found.update((mount, role) for mount, role, _, _ in page)
            if len(page) < self.count_page:
                return found
            params = params | {"due_us": page[-1][2], "id": page[-1][3]}

    async def set_expiry_hold(self, why: str) -> None:
        await self._jobs.write_alone(lambda tx: self._macs.put_hold(tx, why), REPEAT)

    async def lower_clock(self) -> None:
        async def job(tx: Transaction) -> None:
            now = self._clock.lower()
            await tx.change(sql.BEGUN_BY_NOW, {"now": now})
            await tx.change(sql.PUT_META, {"key": MARK, "value": mark_of(now)})

        await self._jobs.write(job, REPEAT)


async def _read_overdue(params: rows.Params, tx: Transaction) -> Sequence[Row]:
    return await tx.rows(sql.OVERDUE_PAGE, params)


def _shown_counts(counts: Iterable[Row], overdue: Mapping[tuple[str, str], int]) -> tuple[LeaseCount, ...]:
    """Return the numbers by the state that callers see: an expired ACTIVE lease is REVOKING."""
    found = Counter[tuple[str, str, str]]()
    for mount, role, state, n in counts:
        if isinstance(mount, str) and isinstance(role, str) and state in _STATES and type(n) is int:
            found[mount, role, state] += n
    for (mount, role), n in overdue.items():
        moved = min(n, found[mount, role, State.ACTIVE.value])
        found[mount, role, State.ACTIVE.value] -= moved
        found[mount, role, State.REVOKING.value] += moved
    return tuple(
        LeaseCount(mount, role, State(state), n) for (mount, role, state), n in found.items() if n > 0
    )


async def _open(tx: Transaction, prefix: BulkRevocation) -> int:
    """Store a bulk revocation; return how many live leases its range has."""
    await tx.change(sql.OPEN_PREFIX, _prefix(prefix))
    ids, mount = prefix.ids, prefix.ids.mount
    if prefix.owner or is_lease_id(ids.low):
        taken: int = (await require_row(tx, _scoped(sql.COUNT_RANGE, prefix), _prefix(prefix)))[0]
        return taken
    found = await tx.rows(sql.COUNT_ROLES, {"mount": mount})
    return sum(n for role, n in found if isinstance(role, str) and ids.covers_role(mount, role))


def _prefix(prefix: BulkRevocation) -> rows.Params:
    return rows.range_params(prefix.ids) | {"cutoff_us": prefix.cutoff_us, "owner": prefix.owner}


def _scoped(statement: str, prefix: BulkRevocation) -> str:
    """Return the statement for every owner's leases, or for those of the prefix's owner."""
    return sql.by_owner(statement) if prefix.owner else statement
