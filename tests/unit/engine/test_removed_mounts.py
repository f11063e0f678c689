"""Checks that the memory that is kept for a mount is freed when the mount is removed."""

from __future__ import annotations

import asyncio
import random

import pytest

from lessor_server.domain.errors.base import NotFound
from lessor_server.domain.errors.preconditions import RootAccountChanged, RootNotSet
from lessor_server.domain.events import MountRemoved, OrphanAdopted
from lessor_server.engine.aws.rate_limiter import RateLimit, RateLimiters
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.supervisor import Supervisor
from tests.support import builders
from tests.support.engine_world import World, bound, world
from tests.support.plain_keyring import PlainKeyring
from tests.support.virtual_loop import virtual

OURS = "0123456789abcdef"


async def replica(w: World) -> tuple[Roots, RateLimiters]:
    """Return the roots of another process that has used the mount's, and its rate limiters."""
    limiters = RateLimiters(RateLimit())
    roots = Roots(w.store, PlainKeyring(), w.aws, limiters, random.Random(0), OURS, Supervisor(w.reports))
    await roots.identity(await roots.get("aws"))
    return roots, limiters


def kept(roots: Roots, limiters: RateLimiters) -> list[object]:
    """Return everything that is in memory for mounts."""
    by_mount = (roots._opened, roots._arns, roots._binding, dict.fromkeys(roots._known), limiters._limiters)
    return [one for held in by_mount for one in held]


async def removed(w: World) -> None:
    """Disable the mount and wait until it is removed."""
    await w.engine.mount_remover.disable("aws", force=False, by="bob")
    await w.events.until(MountRemoved, seconds=60)


@virtual
async def test_a_removed_mount_is_dropped_from_memory() -> None:
    async with world() as w:
        await w.engine.mounts.enable(builders.mount("aws2"), "test")
        await w.set_root("aws2", builders.OTHER_ROOT_KEY)
        await bound(w)
        await removed(w)
        assert w.aws.forgotten == ["aws"]


@virtual
async def test_a_mount_that_another_replica_removed_is_dropped_at_its_next_read() -> None:
    async with world() as w:
        for read in ("context", "of"):
            roots, limiters = await replica(w)
            stored = w.store.mounts.pop("aws"), w.store.roots.pop("aws")
            assert kept(roots, limiters) != []
            for _ in range(2):
                with pytest.raises(NotFound if read == "context" else RootNotSet):
                    await (roots.load_context("aws", "app") if read == "context" else roots.get("aws"))
            assert kept(roots, limiters) == []
            assert w.aws.forgotten == ["aws"]
            w.aws.forgotten.clear()
            w.store.mounts["aws"], w.store.roots["aws"] = stored


@virtual
async def test_a_mount_that_another_replica_removed_is_dropped_at_the_next_reconcile_run() -> None:
    async with world() as w:
        await bound(w)
        del w.store.mounts["aws"], w.store.roots["aws"]
        await asyncio.sleep(3601)
        assert w.aws.forgotten == ["aws"]


@virtual
async def test_a_mount_that_another_replica_created_again_has_nothing_of_the_old_one() -> None:
    async with world() as w:
        roots, limiters = await replica(w)
        root = w.store.roots["aws"]
        await w.set_root("aws")  # a newer version is no other mount
        await roots.get("aws")
        assert w.aws.forgotten == []
        w.store.roots["aws"] = root
        await roots.get("aws")
        assert w.aws.forgotten == ["aws"]
        assert roots._opened.keys() == roots._known == {"aws"}
        assert (roots._arns, limiters._limiters) == ({}, {})


@virtual
async def test_the_key_of_a_removed_mount_signs_no_call_for_a_new_mount_of_its_name() -> None:
    """This replica still has the old root, unbound and of a later version; another replica did the rest."""
    async with world() as w:
        await w.set_root("aws")
        await w.set_root("aws")
        assert (await w.engine.mounts.get_root("aws")).account == ""
        root = w.store.roots["aws"]
        await w.store.bind_account("aws", root.version, builders.ACCOUNT)
        await w.store.begin(builders.intent(root_version=root.version), builders.HOUR)
        del w.store.mounts["aws"], w.store.roots["aws"]
        await w.engine.mounts.enable(builders.mount(), "test")
        with pytest.raises(RootAccountChanged):
            await w.set_root("aws", builders.OTHER_ROOT_KEY)


@virtual
async def test_what_a_late_call_adds_is_dropped_at_the_next_reconcile_run() -> None:
    async with world() as w:
        roots, limiters = await replica(w)
        root = await roots.get("aws")
        roots.forget("aws")
        await roots.identity(root)
        w.aws.forgotten.clear()
        roots.forget_all_but({"another"})
        assert w.aws.forgotten == ["aws"]
        assert kept(roots, limiters) == []


@virtual
async def test_every_one_of_1201_mounts_is_reconciled() -> None:
    async with world() as w:
        for number in range(1199):
            name = f"m{number:04}"
            w.store.mounts[name] = builders.mount(name)
        await w.engine.mounts.enable(builders.mount("zz"), "test")
        await w.set_root("zz", builders.OTHER_ROOT_KEY)
        tags = (("lessor:instance", OURS), ("lessor:lease", "zz/creds/app/" + builders.intent(77).id[-20:]))
        w.other_iam.create_user("stray", f"/lessor/{OURS}/", tags)
        adopted = await w.events.until(OrphanAdopted, seconds=7200)
        assert adopted.user_name == "stray"
