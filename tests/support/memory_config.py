"""The part of the store in memory with mounts, roots and roles, and its injected failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from lessor_server.domain.errors.base import StoreUnavailable
from lessor_server.domain.errors.sealing import RowTampered
from lessor_server.domain.lease import Lease
from lessor_server.domain.mount import Mount
from lessor_server.domain.role import Role
from lessor_server.domain.root import StoredRoot
from lessor_server.engine.sealing_ports import RowSeals
from lessor_server.engine.store_types import StoredContext

At = Callable[[str], Awaitable[None]]


async def passing(_: str) -> None:
    """Let other tasks run: a store never answers immediately."""
    await asyncio.sleep(0)


class MemoryConfig:
    """Keeps configuration; ``at`` is awaited before each call and after each change of a lease."""

    def __init__(self, at: At, instance: str) -> None:
        """Begin empty."""
        self._at = at
        self._instance = instance
        self.mounts: dict[str, Mount] = {}
        self.roots: dict[str, StoredRoot] = {}
        self.roles: dict[tuple[str, str], Role] = {}
        self.tampered: set[str] = set()
        """The places of rows that somebody edited, as ``roles/aws/app``; leases are ``leases/<id>``."""
        self.seals: RowSeals | None = None
        self.fail_writes = False
        self.fails: set[str] = set()
        """Names of methods that fail while they are in this set."""

    async def _before(self, name: str, *, reads: bool = False) -> None:
        """Let other tasks run, and fail if the test asks for it."""
        await self._at(name)
        if name in self.fails or (self.fail_writes and not reads):
            raise StoreUnavailable(f"the store cannot do {name}: the test says so", retry_in=1.0)

    def _remembers(self, mount: str) -> bool:
        raise NotImplementedError

    def _earlier(self, mount: str, role: str, owner: str, request_id: str) -> Lease | None:
        raise NotImplementedError

    def _require_authentic(self, table: str, key: str) -> None:
        """Raise ``RowTampered`` if somebody edited the row."""
        if f"{table}/{key}" in self.tampered:
            raise RowTampered(table, key)

    def _current_root(self, root: StoredRoot) -> StoredRoot:
        raise NotImplementedError

    async def load_issue_context(
        self, mount: str, role: str, owner: str = "", request_id: str = ""
    ) -> StoredContext:
        """Read mount, root, role and the lease of an earlier same request at one instant."""
        await self._before("load_issue_context", reads=True)
        self._require_authentic("mounts", mount)
        self._require_authentic("roots", mount)
        self._require_authentic("roles", f"{mount}/{role}")
        earlier = self._earlier(mount, role, owner, request_id) if request_id else None
        return StoredContext(
            self.mounts.get(mount), self.roots.get(mount), self.roles.get((mount, role)), earlier
        )

    async def get_mount(self, name: str) -> Mount | None:
        """Return one mount."""
        await self._before("get_mount", reads=True)
        self._require_authentic("mounts", name)
        return self.mounts.get(name)

    async def put_mount(self, before: Mount | None, after: Mount) -> bool:
        """Store a mount, or replace the stored one; False if that is no longer ``before``."""
        await self._before("put_mount")
        if before is not None:
            self._require_authentic("mounts", after.name)
        if self.mounts.get(after.name) != before:
            return False
        self.mounts[after.name] = after
        return True

    async def list_mounts(self, after: str, limit: int) -> list[Mount]:
        """Return mounts by name."""
        await self._before("list_mounts", reads=True)
        names = (name for name in sorted(self.mounts) if f"mounts/{name}" not in self.tampered)
        return [self.mounts[name] for name in names if name > after][:limit]

    async def mount_names(self, after: str, limit: int) -> list[str]:
        """Return the names of mounts."""
        await self._before("mount_names", reads=True)
        return [name for name in sorted(self.mounts) if name > after][:limit]

    async def get_root(self, mount: str) -> StoredRoot | None:
        """Return the mount's sealed root."""
        await self._before("get_root", reads=True)
        return self.roots.get(mount)

    async def put_root(self, root: StoredRoot, expect_version: int) -> bool:
        """Store a root if the stored one has ``expect_version`` (0: none)."""
        await self._before("put_root")
        there = self.roots.get(root.mount)
        if (there.version if there else 0) != expect_version:
            return False
        if there and not root.account and self._remembers(root.mount):
            return False
        self.roots[root.mount] = self._current_root(root)
        self.tampered.discard(f"roots/{root.mount}")
        return True

    async def bind_account(self, mount: str, version: int, account: str) -> bool:
        """Store the account of a root of this version that had none."""
        await self._before("bind_account")
        self._require_authentic("roots", mount)
        root = self.roots.get(mount)
        if root is None or root.version != version or root.account not in ("", account):
            return False
        self.roots[mount] = replace(root, account=account)
        return True

    async def get_role(self, mount: str, name: str) -> Role | None:
        """Return one role."""
        await self._before("get_role", reads=True)
        self._require_authentic("roles", f"{mount}/{name}")
        return self.roles.get((mount, name))

    async def put_role(self, role: Role, expect_etag: str | None) -> bool:
        """Store a role if the stored one has ``expect_etag`` (None: there is none)."""
        await self._before("put_role")
        there = self.roles.get((role.mount, role.name))
        if (there.etag if there else None) != expect_etag:
            return False
        self.roles[role.mount, role.name] = role
        self.tampered.discard(f"roles/{role.mount}/{role.name}")
        return True

    async def delete_role(self, mount: str, name: str) -> bool:
        """Delete a role; False if there was none."""
        await self._before("delete_role")
        self.tampered.discard(f"roles/{mount}/{name}")
        return self.roles.pop((mount, name), None) is not None

    async def list_roles(self, mount: str, after: str, limit: int) -> list[Role]:
        """Return roles of a mount by name."""
        await self._before("list_roles", reads=True)
        named = sorted(name for of, name in self.roles if of == mount and name > after)
        authentic = [name for name in named if f"roles/{mount}/{name}" not in self.tampered]
        return [self.roles[mount, name] for name in authentic[:limit]]
