"""Checks changes of roles."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from lessor_server.domain.errors.base import AlreadyExists, Invalid, NotFound
from lessor_server.domain.errors.preconditions import EtagMismatch
from lessor_server.domain.role import Role
from tests.support import builders
from tests.support.engine_world import world
from tests.support.virtual_loop import virtual


@virtual
async def test_a_role_is_read_as_it_was_written() -> None:
    async with world() as w:
        wanted = builders.role("full", policy_arns=builders.MANAGED, iam_tags=(("team", "a"),), max_leases=3)
        await w.put_role(wanted)
        read = await w.engine.roles.get("aws", "full")
        assert read.etag != wanted.etag
        assert replace(read, etag="") == replace(wanted, etag="")


@virtual
async def test_an_invalid_role_changes_nothing() -> None:
    async with world() as w:
        before = await w.engine.roles.get("aws", "app")
        faulty = builders.role(user_path="nope", policy_arns=("not-an-arn",))
        with pytest.raises(Invalid) as raised:
            await w.put_role(faulty)
        assert {violation.field for violation in raised.value.violations} == {
            "role.user_path",
            "role.policy_arns[0]",
        }
        assert await w.engine.roles.get("aws", "app") == before


@virtual
async def test_who_may_only_create_learns_which_capability_is_missing() -> None:
    async with world() as w:
        with pytest.raises(AlreadyExists) as refused:
            await w.engine.roles.put("aws", "app", "", lambda _: builders.role(), "test", create_only=True)
        assert "update" in refused.value.fix


@virtual
async def test_a_check_writes_nothing() -> None:
    async with world() as w:
        await w.engine.roles.check("aws", builders.role("new"))
        with pytest.raises(NotFound):
            await w.engine.roles.get("aws", "new")


@virtual
async def test_arns_of_another_partition_are_warned_of_by_the_root_s_region() -> None:
    """Before AWS was ever called."""
    async with world() as w:
        wanted = builders.role("new", policy_arns=("arn:aws:iam::aws:policy/ReadOnlyAccess",))
        before = await w.engine.roles.check("aws", wanted)
        await w.engine.mounts.set_root(
            "aws", "", lambda _: builders.root_config(region="us-gov-east-1"), "test"
        )
        after = await w.engine.roles.check("aws", wanted)
        added = [warning for warning in after.warnings if warning not in before.warnings]
        assert any("policy_arns[0]" in warning and "arn:aws-us-gov:" in warning for warning in added)


@virtual
async def test_an_old_etag_changes_no_role() -> None:
    async with world() as w:
        roles = w.engine.roles
        for name, etag in (("app", "old"), ("none", "any")):
            with pytest.raises(EtagMismatch):
                await roles.put("aws", name, etag, lambda _: builders.role(), "test")
        current = (await roles.get("aws", "app")).etag
        await roles.put("aws", "app", current, lambda _: builders.role(max_leases=9), "test")
        assert (await roles.get("aws", "app")).max_leases == 9


@virtual
async def test_concurrent_changes_lose_nothing() -> None:
    async with world() as w:
        roles = w.engine.roles

        def capped(before: Role | None) -> Role:
            assert before is not None
            return replace(before, max_leases=5)

        def shorter(before: Role | None) -> Role:
            assert before is not None
            return replace(before, max_ttl=timedelta(minutes=5))

        async with asyncio.TaskGroup() as group:
            for change in (capped, shorter):
                group.create_task(roles.put("aws", "app", "", change, "test"))
        role = await roles.get("aws", "app")
        assert (role.max_leases, role.max_ttl) == (5, timedelta(minutes=5))


@virtual
async def test_leases_of_a_deleted_role_end_at_their_expiry() -> None:
    async with world() as w:
        await w.issue(ttl=60)
        await w.engine.roles.delete("aws", "app", "test")
        with pytest.raises(NotFound):
            await w.engine.roles.get("aws", "app")
        with pytest.raises(NotFound):
            await w.engine.roles.delete("aws", "app", "test")
        await asyncio.sleep(59)
        assert len(w.users()) == 1
        await w.until_gone(seconds=5)


@virtual
async def test_roles_are_listed_by_name_in_pages() -> None:
    async with world() as w:
        for name in ("c", "a", "b"):
            await w.put_role(builders.role(name))
        first = await w.engine.roles.list("aws", "", 2)
        rest = await w.engine.roles.list("aws", first[-1].name, 9)
        assert [role.name for role in (*first, *rest)] == ["a", "app", "b", "c"]
        with pytest.raises(NotFound):
            await w.engine.roles.list("none", "", 9)
