"""Checks to whom GetInfo shows the audit sinks, and the warnings that name something."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lessor.v1 import system_pb2
from lessor_server.domain.access.caller import ROOT, Principal
from lessor_server.domain.audit.record import SinkStatus
from lessor_server.engine.store_types import StoreStatus
from lessor_server.services.call import Caller
from lessor_server.services.system import About, SystemService
from tests.support.access import principal
from tests.support.virtual_loop import virtual


async def status() -> StoreStatus:
    return StoreStatus("i", 1, first_start=False)


async def no_mounts() -> tuple[str, ...]:
    return ()


CALLERS = pytest.mark.parametrize(
    ("caller", "shown"),
    [
        (ROOT, True),
        (principal("ops", "update,sudo sys/access/reload"), True),
        (principal("half", "update sys/access/reload"), False),
        (principal("ci", "read aws/creds/app"), False),
    ],
)


@CALLERS
@virtual
async def test_what_names_files_issuers_mounts_or_rows_is_shown_to_the_same(
    caller: Principal, shown: bool
) -> None:
    """What names nothing is shown to all."""
    names = ("file-1", "issuer-1", "reason-1", "mount-1", "row-1", "row-2")

    async def named() -> StoreStatus:
        return StoreStatus("i", 1, first_start=False, unreadable_rows=(names[4],), tampered_rows=(names[5],))

    async def mounts() -> tuple[str, ...]:
        return (names[3],)

    about = About("1", "memory", dev_mode=False, linter="", warnings=("no audit",))
    expiry: Any = SimpleNamespace(held=True, why=names[2])
    nothing: Any = None
    service = SystemService(about, expiry, nothing, mounts, named, lambda: names[:2])
    answer = await service.GetInfo(system_pb2.GetInfoRequest(), Caller(caller))
    assert answer.warnings[0] == "no audit"
    assert [name for name in names if name in str(answer)] == (list(names) if shown else [])
    counted = {"files": 2, "replicas": 0, "unreadable_rows": 1, "tampered_rows": 1}
    assert await service.count_warnings() == counted


@CALLERS
@virtual
async def test_the_audit_sinks_are_shown_to_those_who_may_reload_the_access_file(
    caller: Principal, shown: bool
) -> None:
    """The number of the last record tells every other identity how busy all are."""
    sink = SinkStatus("file", works=True, last_seq=7, last_hash="ab")
    about = About(
        "1",
        "memory",
        dev_mode=False,
        linter="",
        warnings=(),
        audit_sinks=lambda: [sink],
    )
    stub: Any = SimpleNamespace(held=False)
    service = SystemService(about, stub, stub, no_mounts, status)
    answer = await service.GetInfo(system_pb2.GetInfoRequest(), Caller(caller))
    assert [(one.name, one.last_seq) for one in answer.audit_sinks] == ([("file", 7)] if shown else [])
