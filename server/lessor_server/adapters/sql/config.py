"""Mounts, roots and roles."""

from __future__ import annotations

from contextlib import aclosing

from lessor_server.adapters.sql import rows
from lessor_server.adapters.sql import statements as sql
from lessor_server.adapters.sql.base import StorePart
from lessor_server.adapters.sql.columns import Row
from lessor_server.adapters.sql.row_macs import place_mount, place_role, place_root, role_place
from lessor_server.adapters.sql.transaction import REPEAT, Transaction, require_row
from lessor_server.domain.lease import Lease
from lessor_server.domain.lease_id import is_name
from lessor_server.domain.mount import Mount
from lessor_server.domain.role import Role
from lessor_server.domain.root import StoredRoot, root_context
from lessor_server.engine.store_types import StoredContext


class StoredConfig(StorePart):
    """The rows of mounts, roots and roles."""

    async def load_issue_context(
        self, mount: str, role: str, owner: str = "", request_id: str = ""
    ) -> StoredContext:
        async def job(tx: Transaction) -> StoredContext:
            params: rows.Params = {"name": mount, "mount": mount, "role": role}
            mount_row = await tx.row(sql.GET_MOUNT, params)
            root_row = await tx.row(sql.GET_ROOT, params)
            role_row = await tx.row(sql.GET_ROLE, {"mount": mount, "name": role})
            of_mount = await self._reader.one(tx, rows.MOUNTS, mount_row)
            of_root = await self._reader.one(tx, rows.ROOTS, root_row)
            of_role = await self._reader.one(tx, rows.ROLES, role_row)
            earlier = await self._read_earlier(tx, params | {"owner": owner, "request_id": request_id})
            return StoredContext(of_mount, of_root, of_role, earlier)

        return await self._jobs.read(job)

    async def _read_earlier(self, tx: Transaction, params: rows.Params) -> Lease | None:
        """Return the lease that the same request id has, if any."""
        if not params["request_id"]:
            return None
        return await self._reader.one(tx, rows.LEASES, await tx.row(sql.BY_REQUEST, params))

    # --- mounts -----------------------------------------------------------------------------------------

    async def get_mount(self, name: str) -> Mount | None:
        return await self._find(rows.MOUNTS, sql.GET_MOUNT, {"name": name})

    async def put_mount(self, before: Mount | None, after: Mount) -> bool:
        async def job(tx: Transaction) -> bool:
            params = rows.mount_params(after)
            statement = sql.ADD_MOUNT
            if before is not None:
                statement = sql.PUT_MOUNT
                row = await tx.row(sql.GET_MOUNT, params)
                if await self._reader.one(tx, rows.MOUNTS, row) != before:
                    return False
            written = await tx.change(statement, params) == 1
            if written:
                await self._macs.put(tx, place_mount(await require_row(tx, sql.GET_MOUNT, params)))
            return written

        async def again(tx: Transaction, written: bool) -> bool:
            row = await tx.row(sql.GET_MOUNT, {"name": after.name})
            return (written and await self._reader.one(tx, rows.MOUNTS, row) == after) or await job(tx)

        return await self._jobs.write_alone(job, again)

    async def list_mounts(self, after: str, limit: int) -> list[Mount]:
        return await self._page(rows.MOUNTS, sql.LIST_MOUNTS, {"after": after}, limit)

    async def mount_names(self, after: str, limit: int) -> list[str]:
        async def job(tx: Transaction) -> list[str]:
            names: list[str] = []
            async with aclosing(tx.stream(sql.MOUNT_NAMES, {"after": after}, limit)) as found:
                async for (name,) in found:
                    if len(names) == limit:
                        break
                    if isinstance(name, str) and is_name(name):
                        names.append(name)
            return names

        return await self._jobs.read(job)

    # --- roots ------------------------------------------------------------------------------------------

    async def get_root(self, mount: str) -> StoredRoot | None:
        async def job(tx: Transaction) -> StoredRoot | None:
            row = await tx.row(sql.GET_ROOT, {"mount": mount})
            return await self._reader.one(tx, rows.ROOTS, row, grants=False)  # revocations need it

        return await self._jobs.read(job)

    async def put_root(self, root: StoredRoot, expect_version: int) -> bool:
        rows.require_storable(root)
        params: rows.Params = {
            "mount": root.mount,
            "sealed": self._macs.reseal(root.sealed, root_context(root.mount), str(root.version)),
            "account": root.account,
            "version": root.version,
            "etag": root.etag,
            "expect_version": expect_version,
        }
        statement = sql.PUT_ROOT if expect_version else sql.ADD_ROOT
        return await self._write_sealed(statement, params, sql.GET_ROOT, place_root)

    async def bind_account(self, mount: str, version: int, account: str) -> bool:
        params: rows.Params = {"mount": mount, "version": version, "account": account}

        async def job(tx: Transaction) -> bool:
            await self._reader.one(tx, rows.ROOTS, await tx.row(sql.GET_ROOT, params))
            written = await tx.change(sql.BIND_ACCOUNT, params) == 1
            if written:
                await self._macs.put(tx, place_root(await require_row(tx, sql.GET_ROOT, params)))
            return written

        return await self._jobs.write_alone(job, REPEAT)

    # --- roles ------------------------------------------------------------------------------------------

    async def get_role(self, mount: str, name: str) -> Role | None:
        return await self._find(rows.ROLES, sql.GET_ROLE, {"mount": mount, "name": name})

    async def put_role(self, role: Role, expect_etag: str | None) -> bool:
        statement = sql.ADD_ROLE if expect_etag is None else sql.PUT_ROLE
        params = rows.role_params(role) | {"expect": expect_etag}
        return await self._write_sealed(statement, params, sql.GET_ROLE, place_role)

    async def delete_role(self, mount: str, name: str) -> bool:
        params: rows.Params = {"mount": mount, "name": name}

        async def job(tx: Transaction) -> Row | None:
            row = await tx.row(sql.GET_ROLE, params)
            if row is not None:
                await tx.change(sql.DELETE_ROLE, params)
                await self._macs.drop(tx, mount, role_place(mount, name))
            return row

        async def again(tx: Transaction, deleted: Row | None) -> Row | None:
            # Another role may have the name by now.
            is_there = deleted is None or await tx.row(sql.GET_ROLE, params) == deleted
            return await job(tx) if is_there else deleted

        return await self._jobs.write_alone(job, again) is not None

    async def list_roles(self, mount: str, after: str, limit: int) -> list[Role]:
        return await self._page(rows.ROLES, sql.LIST_ROLES, {"mount": mount, "after": after}, limit)
