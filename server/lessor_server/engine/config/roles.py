"""Operations on roles: each succeeds completely or changes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from lessor_server.domain import role as role_rules
from lessor_server.domain import root_kind
from lessor_server.domain.errors.access import HOW_TO_CHANGE
from lessor_server.domain.errors.base import AlreadyExists, NotFound, Precondition, require
from lessor_server.domain.events import Changed, Created, Deleted, Event
from lessor_server.domain.role import Role
from lessor_server.domain.root import partition_of
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.config.writes import require_etag, require_mount, write_unless_changed
from lessor_server.engine.ports import Linter, Observer, Store
from lessor_server.engine.store_types import draw_etag


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A role as it is, or would be, stored, with warnings about it."""

    role: Role
    warnings: tuple[str, ...]


class NoLinter:
    """The linter if none is installed: it has no findings."""

    async def findings(self, _document: str) -> list[str]:
        """Find nothing."""
        return []


class Roles:
    """Writes and reads roles."""

    def __init__(
        self, store: Store, roots: Roots, linter: Linter, notify: Observer, rng: random.Random
    ) -> None:
        """Change ``store``; ``roots`` report what they can serve; ``rng`` draws etags."""
        self._store = store
        self._roots = roots
        self._linter = linter
        self._notify = notify
        self._rng = rng

    async def put(
        self,
        mount: str,
        name: str,
        etag: str,
        change: Callable[[Role | None], Role],
        by: str,
        *,
        create_only: bool = False,
    ) -> Reviewed:
        """Replace a role by the result of ``change``.

        Raises:
            Invalid: The role breaks rules; the violations list each, under ``role``.
            NotFound: No such mount. EtagMismatch: The role is not the one of ``etag``.
            AlreadyExists: The role exists, and the caller may only create (``create_only``).
        """

        async def put() -> tuple[Reviewed, Event] | None:
            before = await self.find(mount, name, etag)
            if before is not None and create_only:
                raise AlreadyExists("role", f"{mount}/{name}", fix=HOW_TO_CHANGE)
            reviewed = await self.check(mount, change(before))
            role = replace(reviewed.role, etag=draw_etag(self._rng))
            if not await self._store.put_role(role, before.etag if before else None):
                return None
            event = (Changed if before else Created)("role", f"{mount}/{name}", by)
            return replace(reviewed, role=role), event

        written, event = await write_unless_changed(f"role {name}", put)
        self._notify(event)
        return written

    async def check(self, mount: str, role: Role) -> Reviewed:
        """Apply every rule to ``role`` and write nothing."""
        review = role_rules.review(role, await require_mount(self._store, mount))
        require(violation.under("role") for violation in review.violations)
        linted = await self._linter.findings(role.policy_document) if role.policy_document else []
        return Reviewed(role, (*review.warnings, *linted, *await self._find_unserved(role)))

    async def _find_unserved(self, role: Role) -> list[str]:
        """Warn of what the mount's root can't serve, as far as known without a call to AWS."""
        try:
            root = await self._roots.get(role.mount)
        except Precondition:  # no usable root yet: the issue reports it
            return []
        kind = self._roots.known_kind(root)
        unserved = root_kind.unserved(kind, role) if kind else []
        return [*unserved, *role_rules.partition_warnings(role, partition_of(root))]

    async def find(self, mount: str, name: str, etag: str = "") -> Role | None:
        """Return a role, or None if there is none.

        Raises:
            EtagMismatch: An ``etag`` is given that is not the role's.
        """
        role = await self._store.get_role(mount, name)
        require_etag(f"role {name}", role, etag, f"{mount}/{name}")
        return role

    async def get(self, mount: str, name: str) -> Role:
        """Return a role, or raise ``NotFound``."""
        await require_mount(self._store, mount)
        role = await self.find(mount, name)
        if role is None:
            raise NotFound("role", f"{mount}/{name}")
        return role

    async def list(self, mount: str, after: str, limit: int) -> list[Role]:
        """Return at most ``limit`` roles of a mount by name, those greater than ``after``."""
        await require_mount(self._store, mount)
        return await self._store.list_roles(mount, after, limit)

    async def delete(self, mount: str, name: str, by: str) -> None:
        """Delete a role, or raise ``NotFound``; its leases stay."""
        await require_mount(self._store, mount)
        if not await self._store.delete_role(mount, name):
            raise NotFound("role", f"{mount}/{name}")
        self._notify(Deleted("role", f"{mount}/{name}", by))
