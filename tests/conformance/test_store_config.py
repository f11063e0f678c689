"""The rules of a store's configuration, held by every kind of it: mounts, roots and roles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support import builders, lease_steps
from tests.support.stores import OPENERS, Bench, bench

from lessor_server.domain.mount import Mount, MountState
from lessor_server.domain.role import CredentialType, Role
from lessor_server.engine.store_types import StoredContext

HOUR = timedelta(hours=1)


@pytest.fixture(name="b", params=list(OPENERS))
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Open each kind of store in turn."""
    async with bench(request.param, tmp_path) as made:
        yield made


async def test_a_mount_is_read_as_it_was_stored(b: Bench) -> None:
    """Every field of a mount comes back, set or not."""
    full = Mount("full", "ours", HOUR, 2 * HOUR, 7, HOUR, 2 * HOUR, MountState.DISABLING, 123)
    for mount in (full, Mount("bare")):
        await b.store.put_mount(None, mount)
        assert await b.store.get_mount(mount.name) == mount
    assert await b.store.get_mount("none") is None


async def test_a_mount_s_name_is_taken_once(b: Bench) -> None:
    """A second mount of a name is refused, and the first stays."""
    assert not await b.store.put_mount(None, Mount("aws", "again"))
    assert await b.store.get_mount("aws") == builders.mount()


async def test_a_mount_is_replaced_only_as_it_was_read(b: Bench) -> None:
    """Who read an older mount changes nothing."""
    before = builders.mount()
    first, second = replace(before, max_users=1), replace(before, max_users=2)
    assert await b.store.put_mount(before, first)
    assert not await b.store.put_mount(before, second)
    assert not await b.store.put_mount(Mount("none"), Mount("none"))
    assert await b.store.get_mount("aws") == first


async def test_mounts_are_listed_by_name(b: Bench) -> None:
    """A list begins after a name and ends at its size."""
    for name in ("c", "b"):
        await b.store.put_mount(None, Mount(name))
    assert [mount.name for mount in await b.store.list_mounts("", 2)] == ["aws", "b"]
    assert [mount.name for mount in await b.store.list_mounts("b", 9)] == ["c"]


async def test_a_root_is_replaced_only_by_its_next_version(b: Bench) -> None:
    """Who expects another version changes nothing; a root's bytes come back as they were."""
    blob = bytes(range(256))
    assert not await b.store.put_root(builders.stored_root(version=2), 0)
    assert not await b.store.put_root(builders.stored_root(version=3), 2)
    following = replace(builders.stored_root(version=2), sealed=blob)
    assert await b.store.put_root(following, 1)
    assert await b.store.get_root("aws") == following
    assert await b.store.get_root("none") is None
    assert not await b.store.put_root(builders.stored_root("second"), 1)


async def test_a_root_without_an_account_replaces_none_that_has_rows(b: Bench) -> None:
    """As long as the mount remembers a lease its root stays bound to an account."""
    unbound = builders.stored_root(account="", version=2)
    await lease_steps.finish(b.store, await b.taken())
    assert not await b.store.put_root(unbound, 1)
    assert await b.store.put_root(builders.stored_root(version=2), 1)


async def test_a_root_is_bound_to_its_account_once(b: Bench) -> None:
    """The account of an unbound root is kept; another one later, or for another version, is not."""
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
    """Every field of a role comes back, set or not."""
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


async def test_a_role_is_replaced_only_as_it_was_read(b: Bench) -> None:
    """Who expects another etag, or none where there is one, changes nothing."""
    role = builders.role(etag="1")
    assert not await b.store.put_role(role, "0")
    assert await b.store.put_role(role, None)
    assert not await b.store.put_role(replace(role, etag="2"), None)
    assert not await b.store.put_role(replace(role, etag="2"), "0")
    assert await b.store.put_role(replace(role, etag="2", max_leases=3), "1")
    assert await b.store.get_role("aws", "app") == replace(role, etag="2", max_leases=3)


async def test_a_deleted_role_is_gone_and_its_leases_are_not(b: Bench) -> None:
    """Deleting a role tells whether there was one, and leaves the rows of its leases."""
    await b.store.put_role(builders.role(), None)
    lease = await b.active()
    assert await b.store.delete_role("aws", "app")
    assert not await b.store.delete_role("aws", "app")
    assert await b.store.get_role("aws", "app") is None
    assert await b.row(lease.id) == lease


async def test_roles_are_listed_by_name_within_their_mount(b: Bench) -> None:
    """A list begins after a name, ends at its size, and shows no other mount's roles."""
    for name, mount in (("b", "aws"), ("a", "aws"), ("c", "aws"), ("a", "second")):
        await b.store.put_role(builders.role(name, mount), None)
    assert [role.name for role in await b.store.list_roles("aws", "", 2)] == ["a", "b"]
    assert [role.name for role in await b.store.list_roles("aws", "b", 9)] == ["c"]


async def test_an_issue_s_grounds_are_read_together(b: Bench) -> None:
    """Mount, root and role come as they are, and what is missing is None."""
    role = builders.role()
    await b.store.put_role(role, None)
    found = await b.store.load_issue_context("aws", "app")
    assert found == StoredContext(builders.mount(), builders.stored_root(), role)
    assert await b.store.load_issue_context("none", "app") == StoredContext(None, None, None)


async def test_a_store_names_its_installation_and_schema(b: Bench) -> None:
    """An installation has 16 characters of its own, and a schema of at least the first version."""
    assert len((await b.store.status()).instance_id) == 16
    assert (await b.store.status()).schema_version >= 1
