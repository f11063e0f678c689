"""Checks that a root is used with the account of its own key."""

from __future__ import annotations

from dataclasses import replace

from lessor_server.domain.root import RootConfig
from tests.support import builders
from tests.support.engine_world import World, world
from tests.support.virtual_loop import virtual


def other_key(before: RootConfig | None) -> RootConfig:
    """Return the root with the key of another account."""
    assert before is not None
    return replace(before, access_key=builders.OTHER_ROOT_KEY)


async def change_root_once_bound(w: World) -> None:
    """Set another root as soon as the account of the present one was stored."""
    bind = w.store.bind_account

    async def bind_and_change(mount: str, version: int, account: str) -> bool:
        w.store.bind_account = bind  # type: ignore[method-assign]
        kept = await bind(mount, version, account)
        await w.engine.mounts.set_root("aws", "", other_key, "test")
        return kept

    w.store.bind_account = bind_and_change  # type: ignore[method-assign]


@virtual
async def test_a_root_replaced_while_its_account_is_stored_is_not_used_without_one() -> None:
    """The issue begins again with the new root."""
    async with world() as w:
        await change_root_once_bound(w)
        made = await w.issue()
        assert made.lease.footprint.account == f"aws:{w.other_iam.account}"
        assert [user.name for user in w.other_iam.users.values()] == [made.lease.footprint.user_name]
        assert w.iam.users == {}
