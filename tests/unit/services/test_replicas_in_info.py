"""Checks what GetInfo shows of the replicas, and to whom."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lessor.v1 import system_pb2
from lessor_server.domain.access.caller import ROOT, Principal
from lessor_server.domain.rate_shares import StoredShare
from lessor_server.engine.replica_ports import Fleet, ReplicaStatus
from lessor_server.engine.store_types import StoreStatus
from lessor_server.services.call import Caller
from lessor_server.services.system import About, SystemService
from tests.support.access import principal
from tests.support.virtual_loop import virtual

NOW_US = 1_900_000_000_000_000
SHARE = StoredShare("a", "aws:123456789012", 300.0, 5.0, 288.0, 288.0, NOW_US + 1)
ENDED = StoredShare("a", "aws:210987654321", 300.0, 5.0, 6.0, 6.0, NOW_US)
FLEET = Fleet(
    NOW_US,
    (
        ReplicaStatus("a", "1.0.0", NOW_US, 1_500_000, (("aws.rate", "x"),), (SHARE, ENDED)),
        ReplicaStatus("b", "1.0.0", NOW_US - 7_000_000, -3_600_000_000, (("aws.rate", "x"),)),
        ReplicaStatus("c", "1.1.0", NOW_US, 0, (("aws.rate", "y"),)),
    ),
)


async def ask(caller: Principal) -> system_pb2.GetInfoResponse:
    """Return what a caller gets of a server with three replicas."""

    async def status() -> StoreStatus:
        return StoreStatus("i", 9, first_start=False)

    async def mounts() -> tuple[str, ...]:
        return ()

    about = About("1", "postgresql", dev_mode=False, linter="", warnings=(), fleet=lambda: FLEET)
    expiry: Any = SimpleNamespace(held=False, why="")
    nothing: Any = None
    service = SystemService(about, expiry, nothing, mounts, status)
    return await service.GetInfo(system_pb2.GetInfoRequest(), Caller(caller))


@virtual
async def test_replicas_are_listed_with_their_shares_and_differences() -> None:
    one, two, three = (await ask(ROOT)).replicas
    assert (one.name, one.version, one.last_seen.ToMicroseconds()) == ("a", "1.0.0", NOW_US)
    assert [(share.account, share.calls_per_second) for share in one.rate_shares] == [
        ("aws:123456789012", 288.0)
    ]
    assert one.clock_difference.ToMilliseconds() == 1500
    assert (two.clock_difference.ToSeconds(), list(two.rate_shares)) == (-3600, [])
    assert [list(each.different_settings) for each in (one, two, three)] == [[], [], ["aws.rate"]]


@virtual
async def test_a_replica_with_other_settings_or_a_wrong_clock_is_warned_of() -> None:
    assert list((await ask(ROOT)).warnings) == [
        "the clock of replica b differs from the database's by -3600 s: synchronise it",
        "replica c has other settings than most: aws.rate",
    ]


@pytest.mark.parametrize("rights", ["update sys/access/reload", "read aws/creds/app"])
@virtual
async def test_replicas_are_not_shown_to_other_callers(rights: str) -> None:
    answer = await ask(principal("ci", rights))
    assert (list(answer.replicas), list(answer.warnings)) == ([], [])
