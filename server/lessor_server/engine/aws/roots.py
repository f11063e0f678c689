"""Roots as the engine uses them: opened, bound to their account, each with its rate limiter.

A root is bound to (partition, account) by one GetCallerIdentity before its first intent, and the
account is kept with it; no answer of AWS is believed about a row of another account.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TypeVar

from lessor_server.domain import root as root_rules
from lessor_server.domain.aws.errors import AwsCallFailed, for_caller
from lessor_server.domain.aws.iam_calls import Call
from lessor_server.domain.aws.sts_calls import AwsIdentity, GetCallerIdentity
from lessor_server.domain.errors.base import InternalError, LessorError, NotFound, RootChanged
from lessor_server.domain.errors.preconditions import MountDisabling, RootNotSet
from lessor_server.domain.lease import Lease
from lessor_server.domain.mount import Mount, MountState
from lessor_server.domain.role import Role
from lessor_server.domain.root import Root, RootConfig, StoredRoot, root_context
from lessor_server.domain.root_kind import RootKind, kind_of
from lessor_server.engine.aws.caller import AwsCaller
from lessor_server.engine.aws.rate_limiter import Priority, RateLimiter, RateLimiters
from lessor_server.engine.ports import Aws, Store
from lessor_server.engine.sealing_ports import Sealer
from lessor_server.engine.store_types import draw_etag
from lessor_server.engine.supervisor import Supervisor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IssueContext:
    """What an issue needs: mount, role and root exist, and the mount accepts leases.

    ``earlier`` is the lease of an earlier same request, if there is one.
    """

    mount: Mount
    role: Role
    root: Root
    earlier: Lease | None = None


def _unbound(mount: str) -> str:
    """Return the stand-in for the account of a root whose account is unknown."""
    return f"mount:{mount}"


class Roots:
    """Opens roots and sends calls for them."""

    def __init__(
        self,
        store: Store,
        sealer: Sealer,
        aws: Aws,
        limiters: RateLimiters,
        rng: random.Random,
        instance: str,
        supervisor: Supervisor,
    ) -> None:
        """Read sealed roots from ``store``, and send calls to ``aws`` through ``limiters``.

        ``instance`` is this installation's id: part of every user's path and tags.
        """
        self.instance = instance
        self._store = store
        self._sealer = sealer
        self._aws = aws
        self._limiters = limiters
        self._rng = rng
        self._supervisor = supervisor
        self._known: set[str] = set()
        self._opened: dict[str, tuple[StoredRoot, Root]] = {}
        self._binding: dict[str, asyncio.Lock] = {}
        self._arns: dict[str, tuple[RootConfig, str]] = {}

    async def load_context(
        self, mount: str, role: str, owner: str = "", request_id: str = ""
    ) -> IssueContext:
        """Read mount, root and role in one transaction.

        Raises:
            NotFound: No such mount or role.
            MountDisabling, RootNotSet: The mount takes no leases.
        """
        grounds = await self._store.load_issue_context(mount, role, owner, request_id)
        if grounds.mount is None:
            self.forget(mount)
            raise NotFound("mount", mount)
        if grounds.mount.state is not MountState.ENABLED:
            raise MountDisabling(f"mount {mount} is being disabled", subject=mount)
        if grounds.role is None:
            raise NotFound("role", f"{mount}/{role}")
        if grounds.root is None:
            raise RootNotSet(f"mount {mount} has no root credentials", subject=mount)
        return IssueContext(grounds.mount, grounds.role, self._open(grounds.root), grounds.earlier)

    async def get(self, mount: str) -> Root:
        """Return the mount's root, or raise ``RootNotSet``."""
        stored = await self._store.get_root(mount)
        if stored is None:
            self.forget(mount)
            raise RootNotSet(f"mount {mount} has no root credentials", subject=mount)
        return self._open(stored)

    async def bind(self, root: Root) -> Root:
        """Return the root with its account; AWS is asked once for each root.

        Raises:
            AwsUnavailable, RootRefused: AWS does not say who we are.
            RootChanged: It was set again since.
        """
        if root.account:
            return root
        async with self._binding.setdefault(root.mount, asyncio.Lock()):
            return await self._bind_new(await self.get(root.mount))

    async def _bind_new(self, root: Root) -> Root:
        if root.account:
            return root
        identity = await self.identity(root)
        if not await self._store.bind_account(root.mount, root.version, identity.account):
            raise RootChanged(f"the root of {root.mount} changed during this call", retry_in=0.1)
        return replace(root, account=identity.account)  # read again, it may be another one without an account

    async def identity(self, root: Root) -> AwsIdentity:
        """Ask AWS for the identity of the root; raises the error that a caller gets."""
        identity = await self.call_or_raise(root, GetCallerIdentity())
        self._arns[root.mount] = root.config, identity.arn
        return identity

    async def kind(self, root: Root) -> RootKind:
        """Return the kind of the root; unless a chain determines it, AWS is asked once for each version.

        Raises:
            AwsUnavailable, RootRefused: AWS does not say who we are.
        """
        known = self.known_kind(root)
        return known or kind_of(root.config, (await self.identity(root)).arn)

    def known_kind(self, root: Root) -> RootKind | None:
        """Return the kind if it is known without asking AWS, or None."""
        config, arn = self._arns.get(root.mount, (None, ""))
        arn = arn if config == root.config else ""
        # Keys alone don't show it: they may be those of the account's root user.
        return kind_of(root.config, arn) if arn or root.config.assume_chain else None

    async def call_or_raise(self, root: Root, call: Call[T]) -> T:
        """Send one call and return its answer; raises the error that a caller gets."""
        outcome = await self.caller(root).call(call)
        if not isinstance(outcome, LessorError):
            return outcome
        raise for_caller(outcome)

    def caller(self, root: Root, priority: Priority = Priority.ISSUE) -> AwsCaller:
        """Return a caller for the root."""
        return AwsCaller(self, root, self.limiter(root), self._rng, priority)

    async def send(self, root: Root, call: Call[T]) -> T:
        """Send one call, with a newer key if a rotation has switched to one.

        Raises:
            AwsCallFailed: It ended in an unexpected exception; else as ``Aws.send``.
        """
        self._known.add(root.mount)
        try:
            try:
                return await self._aws.send(self._newest(root), call)
            except LessorError:
                raise
            except BaseException:  # a unit for each call would cost more than all else here
                with self._supervisor.unit(f"call {call.action}"):
                    raise
        except InternalError as error:
            raise AwsCallFailed(call.action, error.reference) from error

    def _newest(self, root: Root) -> Root:
        # A root without an account may belong to a new mount of this name, which another replica enabled.
        _, opened = self._opened.get(root.mount, (None, root))
        if opened.version <= root.version or not root.account or opened.account != root.account:
            return root
        new = opened.config
        same = replace(root.config, access_key=new.access_key, secret_key=new.secret_key, etag=new.etag)
        return opened if same == new else root

    def limiter(self, root: Root) -> RateLimiter:
        """Return the root's rate limiter: one for each account and endpoint."""
        return self._limiters.limiter(root.account or _unbound(root.mount), root.config.iam_endpoint)

    def forget(self, mount: str) -> None:
        """Delete the cached data of a mount that has no root any more."""
        if mount in self._known:
            self._known.remove(mount)
            self._opened.pop(mount, None)
            self._binding.pop(mount, None)
            self._arns.pop(mount, None)
            self._limiters.forget(_unbound(mount))
            self._aws.forget(mount)

    def forget_all_but(self, mounts: AbstractSet[str]) -> None:
        """Delete the cached data of all other mounts: another replica may have removed them."""
        for mount in self._known - mounts:
            self.forget(mount)

    def paused_accounts(self) -> frozenset[str]:
        """Return the paused accounts."""
        return frozenset(limiter.account for limiter in self._limiters.paused())

    def rates(self) -> dict[str, float]:
        """Return the limit of calls per second of each mount in use."""
        return {mount: self.limiter(root).rate for mount, (_, root) in self._opened.items()}

    def count_waiting(self) -> Counter[Priority]:
        """Count the calls that wait for a rate limiter, by priority."""
        return self._limiters.count_waiting()

    def seal(self, root: Root) -> StoredRoot:
        """Return a root as it is stored, with a new etag."""
        text = json.dumps(root_rules.to_plain(root.config))
        return StoredRoot(
            root.mount,
            self._sealer.seal(text.encode(), root_context(root.mount), str(root.version)),
            root.account,
            root.version,
            draw_etag(self._rng),
        )

    def _open(self, stored: StoredRoot) -> Root:
        before, root = self._opened.get(stored.mount, (None, None))
        if before is not None and before.etag != stored.etag and stored.version <= before.version:
            self.forget(stored.mount)  # another replica removed the mount and enabled it again
        if root is None or before != stored:
            with self._supervisor.unit(f"open the root of {stored.mount}"):
                plain = self._sealer.open(stored.sealed, root_context(stored.mount), str(stored.version))
                config = root_rules.from_plain(json.loads(plain), stored.etag)
            root = Root(stored.mount, stored.version, stored.account, config)
            self._opened[stored.mount] = (stored, root)
            self._known.add(stored.mount)
        return root
