"""What IAM groups say, for sessions that are given their groups' policies.

A session is not a member of a group (AWS knows users alone as members), so the policies are read and sent
along. They are kept for 60 s, so that a busy role costs no call to IAM for each session; a change of a
group's policies counts for sessions made a minute later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from lessor_server.domain.aws.errors import AwsRefused, Refusal, for_caller
from lessor_server.domain.aws.iam_calls import (
    Call,
    GetGroupPolicy,
    ListAttachedGroupPolicies,
    ListGroupPolicies,
    Names,
)
from lessor_server.domain.errors.base import LessorError, shown
from lessor_server.domain.errors.preconditions import RoleNotUsable
from lessor_server.domain.policy.policy_merge import GroupPolicies
from lessor_server.domain.root import Root
from lessor_server.engine.aws.caller import AwsCaller, failure
from lessor_server.engine.aws.pages import PageCount
from lessor_server.engine.aws.roots import Roots

KEPT_SECONDS: Final = 60.0
MAX_NAMES: Final = 1_000
"""Policies of a group, each read by one call; all inline ones together have 5,120 characters (IAM quotas)."""

Key = tuple[str, str, str, str]
"""The mount, the account and the etag of its root, the group.

A mount may be enabled again for another account, with a root of the same version.
"""


class Groups:
    """Reads the policies of groups and keeps them for a short time; concurrent callers share one read."""

    def __init__(self, roots: Roots) -> None:
        """Ask AWS through ``roots``."""
        self._roots = roots
        self._kept: dict[Key, tuple[float, GroupPolicies]] = {}
        self._reading: dict[Key, asyncio.Future[GroupPolicies | LessorError]] = {}

    async def policies(self, root: Root, groups: tuple[str, ...]) -> tuple[GroupPolicies, ...]:
        """Return the policies of each of ``groups``.

        Raises:
            RoleNotUsable: There is no such group.
            AwsUnavailable, RootRefused, AwsRefused: AWS did not return them.
        """
        async with asyncio.TaskGroup() as together:
            tasks = [together.create_task(self._load(root, group)) for group in groups]
        found = [task.result() for task in tasks]
        for outcome in found:
            if isinstance(outcome, LessorError):
                raise outcome
        return tuple(outcome for outcome in found if isinstance(outcome, GroupPolicies))

    async def _load(self, root: Root, group: str) -> GroupPolicies | LessorError:
        key = (root.mount, root.account, root.config.etag, group)
        until, kept = self._kept.get(key, (0.0, GroupPolicies()))
        if asyncio.get_running_loop().time() < until:
            return kept
        reading = self._reading.get(key)
        if reading is None:
            return await self._read_once(key, root)
        return await asyncio.shield(reading)

    async def _read_once(self, key: Key, root: Root) -> GroupPolicies | LessorError:
        """Read a group once for all concurrent callers; a failure is not kept."""
        loop = asyncio.get_running_loop()
        reading = self._reading[key] = loop.create_future()
        try:
            outcome = await _read(self._roots.caller(root), key[-1])
            if not isinstance(outcome, LessorError):
                self._forget_old(loop.time())
                self._kept[key] = (loop.time() + KEPT_SECONDS, outcome)
            reading.set_result(outcome)
            return outcome
        except Exception as error:
            reading.set_exception(error)  # those who share the reading fail as its reader does
            reading.exception()
            raise
        finally:
            reading.cancel()
            del self._reading[key]

    def _forget_old(self, now: float) -> None:
        self._kept = {key: entry for key, entry in self._kept.items() if now < entry[0]}


async def _read(caller: AwsCaller, group: str) -> GroupPolicies | LessorError:
    inline = await _list_all(caller, lambda marker: ListGroupPolicies(group, marker))
    managed = await _list_all(caller, lambda marker: ListAttachedGroupPolicies(group, marker))
    for listed in (inline, managed):
        if isinstance(listed, LessorError):
            return _for_caller(listed, group)
    assert isinstance(inline, tuple)
    assert isinstance(managed, tuple)
    outcomes = await caller.call_all(tuple(GetGroupPolicy(group, name) for name in inline))
    error = failure(outcomes)
    if error is not None:
        return _for_caller(error, group)
    return GroupPolicies(tuple(str(one) for one in outcomes if not isinstance(one, LessorError)), managed)


async def _list_all(caller: AwsCaller, page: Callable[[str], Call[Names]]) -> tuple[str, ...] | LessorError:
    """Return the names on all pages of a list."""
    names: list[str] = []
    marker, count = "", PageCount(page("").action)
    while True:
        outcome = await caller.call(page(marker))
        if isinstance(outcome, LessorError):
            return outcome
        names += outcome.names
        marker = outcome.marker
        if not marker and len(names) <= MAX_NAMES:
            return tuple(names)
        if len(names) > MAX_NAMES or not count.may_go_on(marker):
            return count.endless()


def _for_caller(error: LessorError, group: str) -> LessorError:
    if isinstance(error, AwsRefused) and error.refusal is Refusal.NO_SUCH_OTHER:
        missing = RoleNotUsable(f"AWS knows no group {shown(group)}, or not its policy any more")
        missing.aws = error.aws
        return missing
    return for_caller(error)
