"""Checks how operators change mounts and roots: whole or not at all, and never to another account."""

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
    """A second mount of the name is refused, and the first is as it was."""
    async with world() as w:
        before = await w.engine.mounts.get("aws")
        with pytest.raises(AlreadyExists):
            await w.engine.mounts.enable(builders.mount(description="again"), "test")
        assert await w.engine.mounts.get("aws") == before


@virtual
async def test_a_mount_that_breaks_rules_is_not_stored() -> None:
    """A faulty mount is refused with its fields, when enabled and when tuned."""
    async with world() as w:
        with pytest.raises(Invalid):
            await w.engine.mounts.enable(builders.mount("bad name"), "test")
        with pytest.raises(Invalid):
            await w.engine.mounts.tune("aws", lambda mount: replace(mount, max_users=0), "test")
        assert [mount.name for mount in await w.engine.mounts.list("", 10)] == ["aws"]


@virtual
async def test_tunings_at_the_same_time_lose_nothing() -> None:
    """Operators who tune different fields at once all get theirs."""
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
async def test_a_root_of_a_mount_without_leases_asks_aws_nothing() -> None:
    """A first root is stored without a word from AWS, so that an operator can prepare while it is away."""
    async with world() as w:
        w.aws.away = True
        await w.set_root()
        assert w.aws.sent == []
        assert (await w.engine.mounts.get_root("aws")).account == ""


@virtual
async def test_a_root_of_the_same_account_takes_over_live_leases() -> None:
    """With leases there AWS is asked whose the new root is; of the same account it is taken at once."""
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
    """Live leases and tombstones bind the mount to its account: the change is refused and changes nothing."""
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
    """As long as nothing was issued, a root of another account replaces the first."""
    async with world() as w:
        await w.set_root(key_id=builders.OTHER_ROOT_KEY)
        made = await w.issue()
        assert made.lease.footprint.account.endswith(w.other_iam.account)


@pytest.mark.parametrize("kind", [Kind.DROP, Kind.HANG])
@virtual
async def test_a_root_that_aws_says_nothing_about_is_not_stored(kind: Kind) -> None:
    """With leases there and no word from AWS in 5 s, SetRoot is UNAVAILABLE and the old root stays."""
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
    """Who read another root than the one there is told so; who read this one may replace it."""
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
    """Who read a root that was removed with its mount since does not set it on the mount of the same name."""
    async with world() as w:
        await w.engine.mounts.enable(builders.mount("bare"), "test")
        with pytest.raises(EtagMismatch):
            await w.engine.mounts.set_root("bare", "old", lambda _: builders.root_config(), "test")
        with pytest.raises(RootNotSet):
            await w.engine.mounts.get_root("bare")


@virtual
async def test_a_root_at_an_endpoint_that_is_not_allowed_is_refused() -> None:
    """A root may point at AWS's own hosts and at what the operator allowed, nowhere else."""
    async with world() as w:
        config = builders.root_config(iam_endpoint="https://iam.evil.test")
        with pytest.raises(Invalid):
            await w.engine.mounts.set_root("aws", "", lambda _: config, "test")
        assert (await w.engine.mounts.get_root("aws")).version == 1


@virtual
async def test_a_mount_without_a_root_says_so() -> None:
    """Reading the root of a mount that has none, or of no mount, are two clear errors."""
    async with world() as w:
        await w.engine.mounts.enable(builders.mount("bare"), "test")
        with pytest.raises(RootNotSet):
            await w.engine.mounts.get_root("bare")
        with pytest.raises(NotFound):
            await w.engine.mounts.get_root("none")


@virtual
async def test_a_root_changed_while_an_issue_is_on_its_way_serves_it_and_makes_no_stray_user() -> None:
    """An issue that read the old root before its intent was stored reads again, and is of the new account."""
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
