"""Checks that a root is used with the account of its own key."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TypeVar

import pytest

from lessor_server.domain.aws.errors import AwsUnknown
from lessor_server.domain.aws.iam_calls import Call, GetUser
from lessor_server.domain.errors.base import AwsAnswer
from lessor_server.domain.root import Root, RootConfig
from lessor_server.engine.aws.rate_limiter import RateLimit, RateLimiters
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.supervisor import Supervisor
from tests.support import builders
from tests.support.engine_world import World, bound, world
from tests.support.plain_keyring import PlainKeyring
from tests.support.virtual_loop import virtual

T = TypeVar("T")


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


class KeysSeen:
    """Notes with which key and policy each call is sent."""

    def __init__(self) -> None:
        self.sent: list[RootConfig] = []

    async def send(self, root: Root, call: Call[T]) -> T:
        """Refuse every call."""
        self.sent.append(root.config)
        raise AwsUnknown(AwsAnswer(call.action, "NotSent"), sent=False)

    def forget(self, mount: str) -> None:
        """Keep nothing."""


@virtual
@pytest.mark.parametrize(("changes", "is_used"), [({}, True), ({"sts_region": "eu-west-1"}, False)])
async def test_a_call_is_signed_with_a_newer_key_only_if_nothing_else_of_the_root_changed(
    changes: dict[str, str], is_used: bool
) -> None:
    async with world() as w:
        aws = KeysSeen()
        roots = Roots(
            w.store,
            PlainKeyring(),
            aws,
            RateLimiters(RateLimit()),
            Random(0),
            "0" * 16,
            Supervisor(w.reports),
        )
        await bound(w)
        old = await roots.get("aws")
        new = replace(old.config, access_key="AKIANEWER", **changes)
        w.store.roots["aws"] = roots.seal(Root("aws", old.version + 1, old.account, new))
        await roots.get("aws")
        await roots.caller(old).call(GetUser("u"))
        assert aws.sent[0].access_key == ("AKIANEWER" if is_used else builders.ROOT_KEY)
