"""Checks that the event of a change says whether something was created, changed or deleted."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from lessor.v1 import config_pb2, role_pb2
from lessor_server.domain import events
from lessor_server.domain.events import Event
from tests.support.engine_world import world
from tests.support.served import Served
from tests.support.virtual_loop import virtual

CONFIG_EVENTS = (events.Created, events.Changed, events.Deleted, events.MountDisabled)
USER = role_pb2.Role(name="new", credential_type=role_pb2.Role.IAM_USER, iam_groups=["staff"])
ROLE = role_pb2.PutRoleRequest(role=USER)
KEYS = config_pb2.SetRootRequest(
    config=config_pb2.RootConfig(access_key="AKIAIOSFODNN7EXAMPLE", secret_key="x" * 40)
)


@pytest.mark.parametrize(
    ("method", "request_", "expected"),
    [
        ("ConfigService.EnableMount", config_pb2.EnableMountRequest(mount="b"), ["created"]),
        ("ConfigService.TuneMount", config_pb2.TuneMountRequest(max_users=9), ["changed"]),
        ("ConfigService.DisableMount", config_pb2.DisableMountRequest(force=True), ["disabled"]),
        ("ConfigService.SetRoot", KEYS, ["changed"]),
        ("RoleService.PutRole", ROLE, ["created"]),
        ("RoleService.DeleteRole", role_pb2.DeleteRoleRequest(name="app"), ["deleted"]),
    ],
)
@virtual
async def test_an_event_says_created_changed_or_deleted(
    method: str, request_: Message, expected: list[str]
) -> None:
    async with world() as w:
        before = len(recorded(w.events.events))
        await Served(w)(method, request_)
        assert recorded(w.events.events)[before:] == expected


@virtual
async def test_a_role_that_is_put_again_is_changed() -> None:
    async with world() as w:
        await Served(w)("RoleService.PutRole", ROLE)
        await Served(w)("RoleService.PutRole", ROLE)
        assert recorded(w.events.events)[-2:] == ["created", "changed"]


@virtual
async def test_endpoints_of_a_root_are_stored_with_schemes_and_hosts_in_lower_case() -> None:
    """RFC 3986, 3.1 and 3.2.2: ``HTTPS://IAM.amazonaws.com`` is AWS's own."""
    config = config_pb2.RootConfig(
        access_key="AKIAIOSFODNN7EXAMPLE",
        secret_key="x" * 40,
        iam_endpoint="HTTPS://IAM.amazonaws.com",
        sts_endpoint="Https://sts.us-east-1.amazonaws.com",
        sts_region="us-east-1",
        sts_fallback_endpoints=["HTTPS://sts.eu-west-1.amazonaws.com/"],
        sts_fallback_regions=["eu-west-1"],
    )
    async with world() as w:
        await Served(w)("ConfigService.SetRoot", config_pb2.SetRootRequest(config=config))
        stored = (await w.engine.mounts.get_root("aws")).config
    assert stored.iam_endpoint == "https://iam.amazonaws.com"
    assert stored.sts_endpoint == "https://sts.us-east-1.amazonaws.com"
    assert stored.sts_fallback_endpoints == ("https://sts.eu-west-1.amazonaws.com/",)


def recorded(happened: list[Event]) -> list[str]:
    """Return what was done, in order."""
    return [
        type(event).__name__.removeprefix("Mount").lower()
        for event in happened
        if isinstance(event, CONFIG_EVENTS)
    ]
