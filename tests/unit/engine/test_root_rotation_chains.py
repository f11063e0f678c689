"""Checks the rotation of a root with an assume chain: its key is that of the first user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lessor_server.domain.errors.base import Aborted, AwsUnavailable, LessorError
from lessor_server.domain.errors.preconditions import KeyLimit
from lessor_server.domain.events import KeyRetired, LostKeyDeleted
from lessor_server.domain.root import Hop
from lessor_server.domain.rotation import Phase
from tests.support import builders
from tests.support.engine_world import OTHER_ACCOUNT, World
from tests.support.iam import Iam
from tests.support.iam_faults import Fault, Kind
from tests.support.iam_home import ROOT
from tests.support.rotating import USER, keys_of, put, root_key, rotate, rotating, row_of, set_root
from tests.support.virtual_loop import virtual

KEYS_CALLS = ("ListAccessKeys", "CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey")


@asynccontextmanager
async def chained() -> AsyncIterator[tuple[World, Iam]]:
    """Make a world whose root goes on from its user into another account by two roles."""
    async with rotating() as w:
        other = w.iam.peer(OTHER_ACCOUNT)
        hops = w.iam.add_role("hub"), other.add_role("spoke", external_id="sesame")
        await set_root(w, assume_chain=(Hop(hops[0].arn), Hop(hops[1].arn, "sesame")))
        yield w, other


@virtual
async def test_the_key_at_the_beginning_of_a_chain_is_rotated_by_its_own_user() -> None:
    """The row has the user's account, and the mount that of the chain's end."""
    async with chained() as (w, other):
        new = await rotate(w)
        assert new == await root_key(w) != builders.ROOT_KEY
        assert "AssumeRole" not in w.aws.actions()
        await asyncio.sleep(70)
        assert keys_of(w) == {new: "Active"}
        assert "AssumeRole" not in w.aws.actions()
        assert set(KEYS_CALLS) <= set(w.aws.actions())
        row = await row_of(w)
        assert (row.account, row.user_name, row.phase) == (builders.ACCOUNT, ROOT, Phase.IDLE)
        made = await w.issue()
        assert [user.arn for user in other.users.values()] == [made.arn]
        assert w.store.roots["aws"].account == f"aws:{OTHER_ACCOUNT}"
        assert w.events.of(KeyRetired) == [KeyRetired("aws/root", builders.ROOT_KEY)]


@virtual
async def test_after_the_switch_the_chain_is_assumed_with_the_new_key() -> None:
    async with chained() as (w, other):
        before = await w.issue()
        assert w.aws.actions().count("AssumeRole") == 2
        await rotate(w)
        assert w.aws.actions().count("AssumeRole") == 2
        after = await w.issue()
        assert w.aws.actions().count("AssumeRole") == 4
        await asyncio.sleep(70)
        for made in (before, after):
            await w.revoke(made.lease.id)
        assert other.users == {}


@virtual
async def test_issues_in_progress_through_a_chain_succeed() -> None:
    async with chained() as (w, _):
        stop, failures, made = False, list[LessorError](), 0

        async def caller() -> None:
            nonlocal made
            while not stop:
                try:
                    await w.issue(ttl=30)
                    made += 1
                except LessorError as error:
                    failures.append(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(caller())
            for _ in range(2):
                await rotate(w)
                await asyncio.sleep(4)
            stop = True
        assert failures == []
        assert made > 50


@virtual
async def test_a_second_rotation_of_a_chained_root_deletes_the_retiring_key() -> None:
    async with chained() as (w, _):
        first = await rotate(w)
        second = await rotate(w)
        assert set(keys_of(w)) == {first, second}
        await asyncio.sleep(70)
        assert keys_of(w) == {second: "Active"}


@virtual
async def test_a_user_of_the_same_name_at_the_end_of_the_chain_keeps_its_keys() -> None:
    async with chained() as (w, other):
        other.create_user(ROOT).visible_at = 0.0
        theirs = other.create_access_key(ROOT).id
        w.aws.faults.add(Fault(Kind.LOSE, "CreateAccessKey", nth=1))
        new = await rotate(w)
        await asyncio.sleep(20 * 60)
        assert len(w.events.of(LostKeyDeleted)) == 1
        assert set(other.users[ROOT].keys) == {theirs}
        assert set(keys_of(w)) == {new}


@virtual
async def test_a_second_key_of_the_chain_s_first_user_is_named() -> None:
    async with chained() as (w, _):
        other_key = w.iam.create_access_key(ROOT).id
        with pytest.raises(KeyLimit) as raised:
            await rotate(w)
        assert other_key in raised.value.message


@virtual
async def test_a_paused_account_at_the_chain_s_end_does_not_delay_the_rotation() -> None:
    async with chained() as (w, _):
        await w.issue()
        root = await w.engine.mounts.get_root("aws")
        roots = w.engine.root_keys._roots
        roots.limiter(root).pause("nobody answers there", 1.0)
        await rotate(w)
        mine = await w.engine.mounts.enable(builders.mount("plain"), "test")
        await w.set_root(mine.name, await root_key(w))
        roots._limiters.limiter(builders.ACCOUNT, root.config.iam_endpoint).pause("nor here", 1.0)
        with pytest.raises(AwsUnavailable):
            await rotate(w)


@virtual
async def test_a_chain_added_during_a_rotation_does_not_end_it() -> None:
    async with rotating() as w:
        w.iam.visible_after = 10.0
        calling = asyncio.get_running_loop().create_task(rotate(w))
        await w.until(lambda: "VerifyKey" in w.aws.actions())
        role = w.iam.peer(OTHER_ACCOUNT).add_role("spoke")
        await set_root(w, assume_chain=(Hop(role.arn),))
        new = await calling
        config = (await w.engine.mounts.get_root("aws")).config
        assert (config.access_key, config.assume_chain) == (new, (Hop(role.arn),))
        await asyncio.sleep(70)
        assert keys_of(w) == {new: "Active"}


@virtual
async def test_another_user_s_key_set_during_a_rotation_ends_it() -> None:
    async with chained() as (w, _):
        w.iam.visible_after = 20.0
        calling = asyncio.get_running_loop().create_task(rotate(w))
        await w.until(lambda: "VerifyKey" in w.aws.actions())
        w.iam.visible_after = 0.0
        theirs = w.iam.create_access_key(USER).id
        await set_root(w, theirs)
        with pytest.raises(Aborted):
            await calling
        assert keys_of(w) == {builders.ROOT_KEY: "Active"}
        new = await rotate(w)
        assert set(keys_of(w, USER)) == {theirs, new}
        assert (await row_of(w)).user_name == USER


@virtual
async def test_a_user_of_another_account_set_during_a_rotation_deletes_no_key_of_the_first() -> None:
    async with chained() as (w, other):
        new = await rotate(w)
        other.create_user(ROOT).visible_at = 0.0
        theirs = other.create_access_key(ROOT).id
        w.aws.accounts[theirs] = other
        await set_root(w, theirs)
        await asyncio.sleep(90)
        assert set(other.users[ROOT].keys) == {theirs}
        assert keys_of(w) == {new: "Active"}
        assert (await row_of(w)).phase is Phase.IDLE


@virtual
async def test_static_roles_rotate_after_their_chained_root_was_rotated() -> None:
    async with chained() as (w, other):
        other.create_user(USER).visible_at = 0.0
        first = await put(w)
        await rotate(w)
        second = await w.engine.static_roles.rotate("aws", USER, "test", delete_other_key=False)
        assert set(other.users[USER].keys) == {first.current, second.current}
        assert keys_of(w, USER) == {}
