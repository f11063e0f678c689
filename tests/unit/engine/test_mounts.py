"""Checks changes of mounts and roots: they are atomic, and never change the account of live leases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from lessor_server.domain.errors.base import AlreadyExists, AwsUnavailable, Invalid, NotFound
from lessor_server.domain.errors.preconditions import EtagMismatch, RootAccountChanged, RootNotSet
from lessor_server.domain.events import Changed
from lessor_server.domain.mount import Mount
from lessor_server.engine.issuing.request import Credentials
from tests.support import builders
from tests.support.engine_world import world
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual


@virtual
async def test_a_mount_is_enabled_once() -> None:
    async with world() as w:
        before = await w.engine.mounts.get("aws")
        with pytest.raises(AlreadyExists):
            await w.engine.mounts.enable(builders.mount(description="again"), "test")
        assert await w.engine.mounts.get("aws") == before


@virtual
async def test_a_mount_that_breaks_rules_is_not_stored() -> None:
    async with world() as w:
        with pytest.raises(Invalid):
            await w.engine.mounts.enable(builders.mount("bad name"), "test")
        with pytest.raises(Invalid):
            await w.engine.mounts.tune("aws", lambda mount: replace(mount, max_users=0), "test")
        assert [mount.name for mount in await w.engine.mounts.list("", 10)] == ["aws"]


@virtual
async def test_concurrent_tunings_lose_nothing() -> None:
    async with world() as w:
        mounts = w.engine.mounts

        def users(mount: Mount) -> Mount:
            return replace(mount, max_users=7)

        def lease(mount: Mount) -> Mount:
            return replace(mount, lease=timedelta(minutes=5))

        def described(mount: Mount) -> Mount:
            return replace(mount, description="ours")

        async with asyncio.TaskGroup() as group:
            for change in (users, lease, described):
                group.create_task(mounts.tune("aws", change, "test"))
        mount = await mounts.get("aws")
        assert (mount.max_users, mount.lease, mount.description) == (7, timedelta(minutes=5), "ours")
        assert len([event for event in w.events.of(Changed) if event.what == "mount"]) == 3


@virtual
async def test_a_root_of_a_mount_without_leases_is_stored_without_a_call() -> None:
    async with world() as w:
        w.aws.away = True
        await w.set_root()
        assert w.aws.sent == []
        assert (await w.engine.mounts.get_root("aws")).account == ""


@virtual
async def test_a_root_of_the_same_account_may_replace_one_with_live_leases() -> None:
    async with world() as w:
        made = await w.issue()
        w.aws.sent.clear()
        await w.set_root()
        assert w.aws.actions() == ["GetCallerIdentity"]
        assert (await w.engine.mounts.get_root("aws")).account == builders.ACCOUNT
        await w.revoke(made.lease.id)
        assert w.users() == []


@pytest.mark.parametrize("gone", [False, True])
@virtual
async def test_a_root_of_another_account_is_refused_while_there_are_rows(gone: bool) -> None:
    """Live leases and tombstones bind the mount to its account."""
    async with world() as w:
        made = await w.issue()
        if gone:
            await w.revoke(made.lease.id)
        before = w.store.roots["aws"]
        with pytest.raises(RootAccountChanged):
            await w.set_root(key_id=builders.OTHER_ROOT_KEY)
        assert w.store.roots["aws"] == before


@virtual
async def test_a_mount_without_rows_may_change_its_account() -> None:
    async with world() as w:
        await w.set_root(key_id=builders.OTHER_ROOT_KEY)
        made = await w.issue()
        assert made.lease.footprint.account.endswith(w.other_iam.account)


@pytest.mark.parametrize("kind", [Kind.DROP, Kind.HANG])
@virtual
async def test_with_leases_a_root_that_aws_does_not_confirm_is_not_stored(kind: Kind) -> None:
    async with world() as w:
        await w.issue()
        before, start = w.store.roots["aws"], w.now()
        w.aws.faults.add(Fault(kind, "GetCallerIdentity"))
        with pytest.raises(AwsUnavailable):
            await w.set_root()
        assert w.now() - start <= 5.0
        assert w.store.roots["aws"] == before


@virtual
async def test_an_old_etag_changes_no_root() -> None:
    async with world() as w:
        mounts = w.engine.mounts
        etag = (await mounts.get_root("aws")).config.etag
        with pytest.raises(EtagMismatch):
            await mounts.set_root("aws", "old", lambda _: builders.root_config(), "test")
        root = await mounts.set_root("aws", etag, lambda _: builders.root_config(region="eu-west-1"), "test")
        assert (root.config.region, root.version) == ("eu-west-1", 2)
        assert root.config.etag != etag


@virtual
async def test_an_etag_sets_no_first_root() -> None:
    """The root that the caller read may have been removed with its mount."""
    async with world() as w:
        await w.engine.mounts.enable(builders.mount("bare"), "test")
        with pytest.raises(EtagMismatch):
            await w.engine.mounts.set_root("bare", "old", lambda _: builders.root_config(), "test")
        with pytest.raises(RootNotSet):
            await w.engine.mounts.get_root("bare")


@virtual
async def test_a_root_at_an_endpoint_that_is_not_allowed_is_refused() -> None:
    async with world() as w:
        config = builders.root_config(iam_endpoint="https://iam.evil.test")
        with pytest.raises(Invalid):
            await w.engine.mounts.set_root("aws", "", lambda _: config, "test")
        assert (await w.engine.mounts.get_root("aws")).version == 1


@virtual
async def test_a_mount_without_a_root_and_an_unknown_mount_are_different_errors() -> None:
    async with world() as w:
        await w.engine.mounts.enable(builders.mount("bare"), "test")
        with pytest.raises(RootNotSet):
            await w.engine.mounts.get_root("bare")
        with pytest.raises(NotFound):
            await w.engine.mounts.get_root("none")


@virtual
async def test_an_issue_uses_a_root_that_changed_before_its_intent_was_stored() -> None:
    async with world() as w:
        async with asyncio.TaskGroup() as group:
            caller = group.create_task(w.attempt())
            await asyncio.sleep(0.02)
            await w.set_root(key_id=builders.OTHER_ROOT_KEY)
        made = caller.result()
        assert isinstance(made, Credentials)
        assert (w.users(), list(w.other_iam.users)) == ([], [made.lease.footprint.user_name.casefold()])
        await w.revoke(made.lease.id)
        assert w.other_iam.users == {}
