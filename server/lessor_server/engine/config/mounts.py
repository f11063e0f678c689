"""Operations on mounts and their roots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from lessor_server.domain import mount as mount_rules
from lessor_server.domain import root as root_rules
from lessor_server.domain.aws.sts_calls import AwsIdentity
from lessor_server.domain.errors.base import (
    AlreadyExists,
    AwsUnavailable,
    LessorError,
    Violation,
    require,
)
from lessor_server.domain.errors.preconditions import RootAccountChanged, SealBroken
from lessor_server.domain.events import Changed, Created, Event
from lessor_server.domain.mount import Mount
from lessor_server.domain.root import Root, RootConfig, StoredRoot
from lessor_server.domain.token_places import TokenPlaces
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.config.writes import require_etag, require_mount, write_unless_changed
from lessor_server.engine.ports import Observer, Store
from lessor_server.engine.rotation.root_keys import RootKeys

IDENTITY_SECONDS = 5.0
MOUNTS_PER_PAGE = 100


@dataclass(frozen=True, slots=True)
class RootRules:
    """The limits of the operator's settings on roots."""

    allowed_endpoints: tuple[str, ...] = ()
    ambient_mounts: tuple[str, ...] = ()
    token_places: TokenPlaces = root_rules.DEFAULT_PLACES


class Mounts:
    """Enables and changes mounts, and sets their roots."""

    def __init__(
        self,
        store: Store,
        roots: Roots,
        keys: RootKeys,
        notify: Observer,
        rules: RootRules,
    ) -> None:
        """Change ``store``; check roots by ``rules``; notify ``keys`` of changed roots."""
        self._store = store
        self._roots = roots
        self._keys = keys
        self._notify = notify
        self._rules = rules

    async def enable(self, mount: Mount, by: str) -> Mount:
        """Enable a new mount, or raise ``Invalid`` or ``AlreadyExists``."""
        require(mount_rules.new_violations(mount))
        made = replace(mount, created_us=self._store.now())
        if not await self._store.put_mount(None, made):
            raise AlreadyExists("mount", mount.name)
        self._notify(Created("mount", mount.name, by))
        return made

    async def get(self, name: str) -> Mount:
        """Return a mount, or raise ``NotFound``."""
        return await require_mount(self._store, name)

    async def list(self, after: str, limit: int) -> list[Mount]:
        """Return at most ``limit`` mounts by name, those greater than ``after``."""
        return await self._store.list_mounts(after, limit)

    async def tune(self, name: str, change: Callable[[Mount], Mount], by: str) -> Mount:
        """Replace a mount by the result of ``change``; existing leases keep their expiry."""

        async def put() -> Mount | None:
            before = await self.get(name)
            after = change(before)
            require(mount_rules.violations(after))
            return after if await self._store.put_mount(before, after) else None

        tuned = await write_unless_changed(f"mount {name}", put)
        self._notify(Changed("mount", name, by))
        return tuned

    async def get_root(self, name: str) -> Root:
        """Return a mount's root, or raise ``NotFound`` (mount) or ``RootNotSet``."""
        await self.get(name)
        return await self._roots.get(name)

    async def find_misplaced_tokens(self) -> tuple[str, ...]:
        """Return the mounts whose stored root reads its token from a path that is no longer allowed."""
        found: tuple[str, ...] = ()
        after = ""
        while page := await self._store.list_mounts(after, MOUNTS_PER_PAGE):
            after = page[-1].name
            for mount in page:
                with suppress(LessorError):  # not set, or it can't be decrypted
                    file = (await self._roots.get(mount.name)).config.identity_token_file
                    if file and self._rules.token_places.is_left_from_before(file):
                        found += (mount.name,)
        return found

    async def set_root(
        self,
        name: str,
        etag: str,
        change: Callable[[RootConfig | None], RootConfig],
        by: str,
        *,
        whole: bool = False,
    ) -> Root:
        """Replace a mount's root by the result of ``change``, completely or not at all.

        A ``whole`` new one keeps nothing of the old root, and can replace one that can't be decrypted.

        Raises:
            Invalid, NotFound, EtagMismatch, SealBroken: The request is wrong, or not ``whole``.
            RootAccountChanged: The mount has leases of another account.
            RootKeyRotatedAway, StaticUserTaken: A rotation has replaced the key, or will.
            AwsUnavailable: AWS does not report the new root's account, and leases exist.
        """
        await self.get(name)

        async def put() -> Event | None:
            stored = await self._store.get_root(name)
            require_etag(f"the root of {name}", stored, etag, name)
            before = await self._open_stored(stored, whole=whole)
            config = change(before.config if before else None)
            require(self._violations(name, config))
            if config.access_key and (before is None or config.access_key != before.config.access_key):
                await self._keys.require_free(config.access_key)
            version = stored.version if stored else 0
            root = await self._check_account(Root(name, version + 1, "", config))
            written = await self._store.put_root(self._roots.seal(root), version)
            return (Changed if stored else Created)("root", name, by) if written else None

        self._notify(await write_unless_changed(f"the root of {name}", put))
        await self._keys.align(name)
        return await self._roots.get(name)

    async def _open_stored(self, stored: StoredRoot | None, *, whole: bool) -> Root | None:
        """Return the current root; None if there is none, or it can't be decrypted and is replaced whole."""
        try:
            return await self._roots.get(stored.mount) if stored else None
        except SealBroken:
            if not whole:
                raise
            return None

    def _violations(self, name: str, config: RootConfig) -> Sequence[Violation]:
        """Return every violation of a mount's root; field paths begin at the request."""
        found = root_rules.violations(
            config,
            self._rules.allowed_endpoints,
            ambient=name in self._rules.ambient_mounts,
            token_places=self._rules.token_places,
        )
        return [violation.under("config") for violation in found]

    async def _check_account(self, root: Root) -> Root:
        """Bind the new root to the account of the mount's users, if it has or had any."""
        account = await self._store.get_bound_account(root.mount)
        if not account:
            return root
        identity = await self._identity(root)
        if identity.account != account:
            raise RootAccountChanged(
                f"mount {root.mount} has leases of another account than the new root's", subject=root.mount
            )
        return replace(root, account=identity.account)

    async def _identity(self, root: Root) -> AwsIdentity:
        try:
            async with asyncio.timeout(IDENTITY_SECONDS):
                return await self._roots.identity(root)
        except TimeoutError:
            raise AwsUnavailable(
                "AWS did not report in 5 s which account the root belongs to", retry_in=1.0
            ) from None
