"""Checks the rules of mounts, roots and roles that every kind of store has."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from tests.support import builders, lease_steps
from tests.support.stores import Bench

from lessor_server.domain.mount import Mount, MountState
from lessor_server.domain.role import CredentialType, Role
from lessor_server.engine.store_types import StoredContext

HOUR = timedelta(hours=1)


async def test_a_mount_is_read_as_it_was_stored(b: Bench) -> None:
    full = Mount("full", "ours", HOUR, 2 * HOUR, 7, HOUR, 2 * HOUR, MountState.DISABLING, 123)
    for mount in (full, Mount("bare")):
        await b.store.put_mount(None, mount)
        assert await b.store.get_mount(mount.name) == mount
    assert await b.store.get_mount("none") is None


async def test_a_second_mount_of_a_name_is_refused(b: Bench) -> None:
    assert not await b.store.put_mount(None, Mount("aws", "again"))
    assert await b.store.get_mount("aws") == builders.mount()


async def test_a_mount_is_replaced_only_if_it_is_unchanged(b: Bench) -> None:
    before = builders.mount()
    first, second = replace(before, max_users=1), replace(before, max_users=2)
    assert await b.store.put_mount(before, first)
    assert not await b.store.put_mount(before, second)
    assert not await b.store.put_mount(Mount("none"), Mount("none"))
    assert await b.store.get_mount("aws") == first


async def test_mounts_are_listed_by_name(b: Bench) -> None:
    for name in ("c", "b"):
        await b.store.put_mount(None, Mount(name))
    assert [mount.name for mount in await b.store.list_mounts("", 2)] == ["aws", "b"]
    assert [mount.name for mount in await b.store.list_mounts("b", 9)] == ["c"]


async def test_a_root_is_replaced_only_by_its_next_version(b: Bench) -> None:
    blob = bytes(range(256))
    assert not await b.store.put_root(builders.stored_root(version=2), 0)
    assert not await b.store.put_root(builders.stored_root(version=3), 2)
    following = replace(builders.stored_root(version=2), sealed=blob)
    assert await b.store.put_root(following, 1)
    assert await b.store.get_root("aws") == following
    assert await b.store.get_root("none") is None
    assert not await b.store.put_root(builders.stored_root("second"), 1)


async def test_a_root_without_an_account_does_not_replace_one_with_rows(b: Bench) -> None:
    unbound = builders.stored_root(account="", version=2)
    await lease_steps.finish(b.store, await b.taken())
    assert not await b.store.put_root(unbound, 1)
    assert await b.store.put_root(builders.stored_root(version=2), 1)


async def test_a_root_is_bound_to_its_account_once(b: Bench) -> None:
    await b.store.put_root(builders.stored_root(account="", version=2), 1)
    assert not await b.store.bind_account("aws", 1, "aws:1")
    assert await b.store.bind_account("aws", 2, "aws:1")
    assert await b.store.bind_account("aws", 2, "aws:1")
    assert not await b.store.bind_account("aws", 2, "aws:2")
    assert not await b.store.bind_account("none", 1, "aws:1")
    root = await b.store.get_root("aws")
    assert root is not None
    assert root.account == "aws:1"


async def test_a_role_is_read_as_it_was_stored(b: Bench) -> None:
    full = Role(
        mount="aws",
        name="full",
        credential_type=CredentialType.ASSUMED_ROLE,
        role_arns=("arn:aws:iam::1:role/a",),
        policy_arns=builders.MANAGED,
        policy_document=builders.DOCUMENT,
        iam_groups=("staff",),
        iam_tags=(("b", ""), ("ä", "1")),
        session_tags=(("c", "2"),),
        transitive_tag_keys=("c",),
        source_identity="alice",
        external_id="partner",
        user_path="/ci/",
        permissions_boundary_arn="arn:aws:iam::1:policy/edge",
        default_sts_ttl=HOUR,
        max_sts_ttl=2 * HOUR,
        default_ttl=HOUR,
        max_ttl=3 * HOUR,
        max_leases=7,
        mfa_serial_number="arn:aws:iam::1:mfa/alice",
        etag="1",
    )
    for role in (full, Role("aws", "bare", CredentialType.IAM_USER, etag="2")):
        assert await b.store.put_role(role, None)
        assert await b.store.get_role("aws", role.name) == role
    assert await b.store.get_role("second", "full") is None


async def test_a_role_is_replaced_only_if_it_is_unchanged(b: Bench) -> None:
    role = builders.role(etag="1")
    assert not await b.store.put_role(role, "0")
    assert await b.store.put_role(role, None)
    assert not await b.store.put_role(replace(role, etag="2"), None)
    assert not await b.store.put_role(replace(role, etag="2"), "0")
    assert await b.store.put_role(replace(role, etag="2", max_leases=3), "1")
    assert await b.store.get_role("aws", "app") == replace(role, etag="2", max_leases=3)


async def test_deleting_a_role_keeps_its_leases(b: Bench) -> None:
    await b.store.put_role(builders.role(), None)
    lease = await b.active()
    assert await b.store.delete_role("aws", "app")
    assert not await b.store.delete_role("aws", "app")
    assert await b.store.get_role("aws", "app") is None
    assert await b.row(lease.id) == lease


async def test_roles_are_listed_by_name_within_their_mount(b: Bench) -> None:
    for name, mount in (("b", "aws"), ("a", "aws"), ("c", "aws"), ("a", "second")):
        await b.store.put_role(builders.role(name, mount), None)
    assert [role.name for role in await b.store.list_roles("aws", "", 2)] == ["a", "b"]
    assert [role.name for role in await b.store.list_roles("aws", "b", 9)] == ["c"]


async def test_the_context_of_an_issue_is_read_together(b: Bench) -> None:
    role = builders.role()
    await b.store.put_role(role, None)
    found = await b.store.load_issue_context("aws", "app")
    assert found == StoredContext(builders.mount(), builders.stored_root(), role)
    assert await b.store.load_issue_context("none", "app") == StoredContext(None, None, None)


async def test_the_context_of_an_issue_shows_each_write_of_the_configuration(b: Bench) -> None:
    role, mount, root = builders.role(), builders.mount(), builders.stored_root()

    async def context() -> StoredContext:
        first = await b.store.load_issue_context("aws", "app")
        assert await b.store.load_issue_context("aws", "app") == first
        return first

    assert await context() == StoredContext(mount, root, None)
    await b.store.put_role(role, None)
    assert await context() == StoredContext(mount, root, role)
    following = builders.stored_root(version=2)
    await b.store.put_root(following, 1)
    assert await context() == StoredContext(mount, following, role)
    await b.store.delete_role("aws", "app")
    assert await context() == StoredContext(mount, following, None)
    disabled = await b.store.disable("aws")
    assert disabled is not None
    assert (await context()).mount == disabled[0]


async def test_the_context_of_an_issue_shows_a_write_that_ended_while_it_was_read(b: Bench) -> None:
    role = builders.role()
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(b.store.load_issue_context("aws", "app"))
        group.create_task(b.store.put_role(role, None))
        group.create_task(b.store.load_issue_context("aws", "app"))
    assert (await b.store.load_issue_context("aws", "app")).role == role


async def test_a_store_has_an_instance_id_and_a_schema_version(b: Bench) -> None:
    assert len((await b.store.status()).instance_id) == 16
    assert (await b.store.status()).schema_version >= 1
