"""Leases: each method is one job with at most one writing statement; its rules are the port's."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import timedelta

from lessor_server.adapters.sql import rows
from lessor_server.adapters.sql import statements as sql
from lessor_server.adapters.sql.base import StorePart
from lessor_server.adapters.sql.columns import MAX_US, Row, numbered
from lessor_server.adapters.sql.transaction import REPEAT, Transaction, Writes, require_row
from lessor_server.domain import backoff
from lessor_server.domain import lease as steps
from lessor_server.domain.errors.access import RuleFull
from lessor_server.domain.errors.base import Aborted, LessorError, MountFull, NotFound, RoleFull, RootChanged
from lessor_server.domain.errors.preconditions import LeaseRevoking, MountDisabling
from lessor_server.domain.lease import Intent, Lease, State
from lessor_server.domain.lease_id import IdRange, is_lease_id
from lessor_server.engine.store_types import ClaimTerms, LeaseCount


class StoredLeases(StorePart):
    """The rows of leases."""

    # --- steps ------------------------------------------------------------------------------------------

    async def begin(self, intent: Intent, span: timedelta) -> Lease:
        async def job(tx: Transaction) -> Lease:
            lease, params = self._begun(intent, span)
            if await tx.change(sql.BEGIN, params) != 1:
                raise await explain_refusal(tx, intent, params)
            return lease

        return await self._jobs.write(job, REPEAT, Writes.ONE_LEASE)

    def _begun(self, intent: Intent, span: timedelta) -> tuple[Lease, rows.Params]:
        """Return the lease of an intent, and the parameters that store it."""
        lease = steps.begin(intent, self.now(), span)
        params = rows.lease_params(lease) | rows.limit_params(intent) | {"now": lease.created_us}
        params["mac"] = self._macs.lease_mac(params)
        return lease, params

    def _changed(self, before: Lease, after: Lease) -> rows.Params:
        """Return the parameters of a step."""
        params = rows.lease_params(after) | {"before": before.generation}
        # Of what the MAC covers, a step changes this alone; of a row that is not authentic it stays wrong.
        changes = after.max_expires_us != before.max_expires_us and not before.tampered
        params["new_mac"] = self._macs.lease_mac(params) if changes else None
        return params

    async def write(self, before: Lease, after: Lease) -> bool:
        params = self._changed(before, after)
        stays_active = before.state is after.state is State.ACTIVE
        statement = sql.WRITE_ACTIVE_LEASE if stays_active else sql.WRITE_LEASE
        has_expired = 0 < before.expires_us <= self.now()

        async def job(tx: Transaction) -> bool:
            return await tx.change(statement, params | {"now": self.now()}) == 1

        return await self._jobs.write(job, REPEAT, Writes.EXPIRED_LEASE if has_expired else Writes.ONE_LEASE)

    async def renew(self, lease_id: str, renew: Callable[[Lease, int], Lease]) -> Lease | None:
        async def job(tx: Transaction) -> Lease | None:
            row = await tx.row(sql.GET_LEASE, {"id": lease_id})
            lease = await self._reader.one(tx, rows.LEASES, row)
            if lease is None:
                return None
            now = self.now()
            renewed = renew(lease, now)
            if await tx.change(sql.WRITE_ACTIVE_LEASE, self._changed(lease, renewed) | {"now": now}) != 1:
                raise LeaseRevoking(f"lease {lease_id} is being revoked with others", subject=lease_id)
            return renewed

        return await self._jobs.write(job, REPEAT, Writes.ONE_LEASE)

    async def revoke(self, lease_id: str) -> Lease | None:
        async def job(tx: Transaction) -> Lease | None:
            params: rows.Params = {"id": lease_id, "now": self.now()}
            row = await tx.row(sql.REVOKE, params)
            if row is None:
                row = await tx.row(sql.GET_LEASE, params)
            return self._reader.salvage(rows.LEASES, row) if row else None

        return await self._jobs.write(job, REPEAT, Writes.ONE_LEASE)

    async def reopen(self, lease_id: str, last_create_us: int) -> None:
        params: rows.Params = {"id": lease_id, "last_create_us": last_create_us}
        await self._repeatable(sql.REOPEN, params | {"now": self.now()})

    async def claim(self, ids: Sequence[str], terms: ClaimTerms) -> list[Lease]:
        async def job(tx: Transaction) -> list[Lease]:
            return await self._claim_each(tx, ids, self._claiming(terms))

        return await self._jobs.write(job, REPEAT, Writes.DUE_LEASES)

    async def claim_due(
        self, terms: ClaimTerms, limit: int, without: frozenset[str] = frozenset()
    ) -> list[Lease]:
        """Claim due rows, earliest first, until ``limit`` readable rows are found.

        The others stay claimed, so they come no earlier than that ends, and hold nobody up.
        """

        async def job(tx: Transaction) -> list[Lease]:
            params = self._claiming(terms)
            claims: list[Lease] = []
            ids: list[str | bytes] = []
            while (room := limit - len(claims)) > 0:
                asked = params | {"limit": room, "without": json.dumps(sorted(without))}
                before, ids = ids, [row[0] for row in await tx.rows(sql.DUE, asked)]
                claims += await self._claim_each(tx, ids, params)
                if len(ids) < room or ids == before:
                    break
            return claims

        return await self._jobs.write(job, REPEAT, Writes.DUE_LEASES)

    async def _claim_each(
        self, tx: Transaction, ids: Sequence[str | bytes], params: rows.Params
    ) -> list[Lease]:
        """Claim those of ``ids`` that are due and unclaimed, in this order, each by one statement."""
        found = [await self._claim_row(tx, lease_id, params) for lease_id in ids]
        return self._reader.salvaged(rows.LEASES, (row for row in found if row is not None))

    async def _claim_row(self, tx: Transaction, lease_id: str | bytes, params: rows.Params) -> Row | None:
        """Claim a row and return it; one that cannot be claimed is due again when its claim would end."""
        problem = "id is not a string"
        if isinstance(lease_id, str):
            row, problem = await tx.attempt(sql.CLAIM, params | {"id": lease_id})
            if not problem:
                if row is not None and (problem := numbered(row[rows.GENERATION])):
                    self._reader.note("leases", lease_id, f"generation {problem}")
                    row = await tx.row(sql.RECOUNT, {"id": lease_id})
                return row
        raw = lease_id.encode() if isinstance(lease_id, str) else lease_id
        await tx.change(sql.POSTPONE_UNREADABLE, params | {"id": raw})
        self._reader.note("leases", str(lease_id), problem)
        return None

    def _claiming(self, terms: ClaimTerms) -> rows.Params:
        now = self.now()
        return {"by": terms.by, "held": terms.held, "now": now, "until": now + rows.us(terms.span)}

    async def void_stale_claims(self) -> int:
        """Void every claim: no other process runs.

        Rows with an invalid due time are due when they expire, or now.
        """

        async def job(tx: Transaction) -> int:
            params = {"now": self.now(), "max_us": MAX_US}
            for statement in (sql.RESTORE_DUE, sql.RESTORE_DUE_ROTATIONS, sql.VOID_ROTATION_CLAIMS):
                await tx.change(statement, params)
            return await tx.change(sql.VOID_CLAIMS, params)

        async def again(tx: Transaction, voided: int) -> int:
            return max(voided, await job(tx))

        return await self._jobs.write(job, again)

    # --- reading ----------------------------------------------------------------------------------------

    async def list_due_within(self, span: timedelta, limit: int) -> list[tuple[str, int]]:
        now = self.now()
        params = {"now": now, "until": now + rows.us(span), "limit": limit}
        found = await self._jobs.read(lambda tx: tx.rows(sql.DUE_WITHIN, params), single=True)
        return [
            (lease_id, due_us)
            for lease_id, due_us in found
            if isinstance(lease_id, str) and type(due_us) is int
        ]

    async def get(self, lease_id: str, *, salvage: bool = False) -> Lease | None:
        if not salvage:
            return await self._find(rows.LEASES, sql.GET_LEASE, {"id": lease_id})

        async def job(tx: Transaction) -> Lease | None:
            row = await tx.row(sql.GET_LEASE, {"id": lease_id})
            return self._reader.salvage(rows.LEASES, row) if row else None

        return await self._jobs.read(job, single=True)

    async def is_current(self, lease: Lease) -> bool:
        params: rows.Params = {"id": lease.id, "generation": lease.generation}
        return await self._jobs.read(lambda tx: tx.row(sql.IS_CURRENT, params), single=True) is not None

    async def get_owner(self, lease_id: str) -> str | None:
        async def job(tx: Transaction) -> str | None:
            row = await tx.row(sql.GET_OWNER, {"id": lease_id})
            return row[0] if row and isinstance(row[0], str) else None

        return await self._jobs.read(job, single=True)

    async def get_bound_account(self, mount: str) -> str:
        params = rows.range_params(IdRange.of_mount(mount)) | {"mount": mount}

        async def job(tx: Transaction) -> str:
            row = await tx.row(sql.BOUND_ACCOUNT, params)
            return row[0] if row else ""

        return await self._jobs.read(job, single=True)

    async def page(
        self, ids: IdRange, state: State | None, after: str, limit: int, owner: str | None = None
    ) -> list[Lease]:
        params: rows.Params = {"after": after, "state": state.value if state else "", "now": self.now()}
        if owner is not None:
            return await self._page(
                rows.LEASES, sql.LIST_OF_OWNER, params | rows.own_params(ids, owner), limit
            )
        return await self._page(rows.LEASES, sql.LIST_LEASES, params | rows.range_params(ids), limit)

    async def count(self, ids: IdRange, state: State | None, owner: str | None = None) -> list[LeaseCount]:
        if is_lease_id(ids.low):
            found = await self.page(ids, state, "", 1, owner)
            return [LeaseCount(one.mount, one.role, one.state_at(self.now()), 1) for one in found]
        if owner is not None:
            params = rows.own_params(ids, owner) | {"state": state.value if state else "", "now": self.now()}
            return await self._list(rows.OWN_COUNTS, sql.COUNT_OF_OWNER, params)
        now = self.now()

        async def job(tx: Transaction) -> dict[tuple[str, str, State], int]:
            found = await self._reader.readable(tx, rows.COUNTS, await tx.rows(sql.COUNT_LEASES, {}))
            counts = {(one.mount, one.role, one.state): one.count for one in found}
            for mount, role, n in await tx.rows(sql.COUNT_OVERDUE, {"now": now}):
                if (mount, role, State.ACTIVE) not in counts:
                    continue  # its counts cannot be read
                counts[mount, role, State.ACTIVE] -= n
                revoking = (mount, role, State.REVOKING)
                counts[revoking] = counts.get(revoking, 0) + n
            return counts

        counts = await self._jobs.read(job)
        return [
            LeaseCount(mount, role, counted, min(n, backoff.MAX_COUNT))
            for (mount, role, counted), n in sorted(
                counts.items(), key=lambda item: (*item[0][:2], item[0][2].value)
            )
            if n > 0 and ids.covers_role(mount, role) and state in (None, counted)
        ]

    async def list_owners(self, after: str, limit: int) -> list[tuple[str, int]]:
        async def job(tx: Transaction) -> list[tuple[str, int]]:
            owners: list[tuple[str, int]] = []
            async with aclosing(tx.stream(sql.LIVE_OWNERS, {"after": after}, limit)) as found:
                async for owner, n in found:
                    if len(owners) == limit:
                        break
                    if isinstance(owner, str):
                        owners.append((owner, n))
            return owners

        return await self._jobs.read(job)


async def explain_refusal(tx: Transaction, intent: Intent, params: rows.Params) -> LessorError:
    """Return why an intent was not stored, read in the transaction that refused it."""
    state = await tx.row(sql.MOUNT_STATE, params)
    if state is None:
        return NotFound("mount", intent.mount)
    if state[0] != "enabled":
        return MountDisabling(f"mount {intent.mount} is being disabled", subject=intent.mount)
    if intent.request and await tx.row(sql.BY_REQUEST, params):
        return Aborted(f"request {intent.request.id} is being served by another process", retry_in=0.5)
    if await tx.row(sql.LEASE_EXISTS, params):
        return Aborted(
            f"the lease id {intent.id} is already in use; the next attempt uses another", retry_in=0.1
        )
    if await tx.row(sql.ROOT_IS, params) is None:
        return RootChanged(f"the root of {intent.mount} changed during this call", retry_in=0.1)
    most = intent.rule_max_leases
    if most is not None and (await require_row(tx, sql.RULE_LEASES, params))[0] >= most:
        return RuleFull.of(intent.policy_rule, most)
    live = (await require_row(tx, sql.ROLE_LIVE, params))[0]
    if intent.max_leases and live >= intent.max_leases:
        return RoleFull(
            f"role {intent.role} has its max_leases, {intent.max_leases}",
            subject=f"role/{intent.mount}/{intent.role}",
        )
    revoking = (await require_row(tx, sql.MOUNT_REVOKING, params))[0]
    return MountFull(
        f"mount {intent.mount} has its max_users, {intent.max_users}; {revoking} of them are being revoked",
        subject=f"mount/{intent.mount}",
    )
