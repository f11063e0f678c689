"""Checks that the event of a change names its caller, and that of an automatic change no caller."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lessor.v1 import config_pb2, lease_pb2, role_pb2, system_pb2
from lessor_server.domain import events
from lessor_server.domain.access.caller import AuthMethod, Principal
from lessor_server.domain.events import Event
from tests.support.engine_world import World, world
from tests.support.served import Served
from tests.support.virtual_loop import virtual
from tests.unit.engine.test_reconciler import GRACE, appear

CAROL = Principal("carol", AuthMethod.TOKEN)
LEASE = "a lease of somebody else"
CHANGES: dict[str, tuple[type[Event], Any]] = {
    "ConfigService.EnableMount": (events.Created, config_pb2.EnableMountRequest(mount="another")),
    "ConfigService.TuneMount": (events.Changed, config_pb2.TuneMountRequest(max_users=9)),
    "ConfigService.SetLeaseDefaults": (events.Changed, config_pb2.SetLeaseDefaultsRequest()),
    "ConfigService.DisableMount": (events.MountDisabled, config_pb2.DisableMountRequest()),
    "RoleService.DeleteRole": (events.Deleted, role_pb2.DeleteRoleRequest(name="app")),
    "LeaseService.RenewLease": (events.Renewed, lease_pb2.RenewLeaseRequest(lease_id=LEASE)),
    "LeaseService.RevokeLease": (events.RevocationAsked, lease_pb2.RevokeLeaseRequest(lease_id=LEASE)),
    "LeaseService.RevokePrefix": (events.PrefixAccepted, lease_pb2.RevokePrefixRequest(prefix="aws/")),
    "LeaseService.AbandonLeases": (events.Abandoned, lease_pb2.AbandonLeasesRequest(lease_id=LEASE)),
    "SystemService.HoldExpiry": (events.ExpiryHeld, system_pb2.HoldExpiryRequest()),
    "SystemService.ResumeExpiry": (events.ExpiryResumed, system_pb2.ResumeExpiryRequest()),
}


@pytest.mark.parametrize("method", CHANGES)
@virtual
async def test_the_event_of_each_change_names_its_caller(method: str) -> None:
    event, request = CHANGES[method]
    async with world() as w:
        lease_id = (await w.issue()).lease.id
        if getattr(request, "lease_id", "") == LEASE:
            request = type(request)(lease_id=lease_id)
        await Served(w, CAROL)(method, request)
        assert w.events.of(event)[-1].by == "carol"


@virtual
async def test_the_event_of_a_lowered_clock_names_its_caller() -> None:
    async with world() as w:
        request = system_pb2.ResumeExpiryRequest(lower_clock=True)
        await Served(w, CAROL)("SystemService.ResumeExpiry", request)
        assert w.events.of(events.ClockLowered) == [events.ClockLowered("carol")]


@virtual
async def test_a_second_hold_is_an_event_too() -> None:
    async with world() as w:
        await w.engine.expiry.hold("STORE_ROLLED_BACK")
        await Served(w, CAROL)("SystemService.HoldExpiry", system_pb2.HoldExpiryRequest(reason="why"))
        answer = w.events.of(events.ExpiryHeld)
        assert answer == [events.ExpiryHeld("STORE_ROLLED_BACK"), events.ExpiryHeld("why", "carol")]


async def out_of_step(w: World) -> None:
    """Let the account have a user that no row knows, and a lease without its user."""
    made = await w.issue(ttl=7200)
    w.iam.forget(made.lease.footprint.user_name)
    appear(w)


@virtual
async def test_the_events_of_a_reconcile_call_name_its_caller() -> None:
    async with world() as w:
        await out_of_step(w)
        await asyncio.sleep(GRACE + 1)
        await Served(w, CAROL)("LeaseService.Reconcile", lease_pb2.ReconcileRequest(apply=True))
        assert [one.by for one in w.events.of(events.OrphanAdopted)] == ["carol"]
        assert [one.by for one in w.events.of(events.UserMissing)] == ["carol"]


@virtual
async def test_the_events_of_the_hourly_run_name_no_caller() -> None:
    async with world() as w:
        await out_of_step(w)
        adopted = await w.events.until(events.OrphanAdopted, seconds=7200)
        missed = await w.events.until(events.UserMissing, seconds=60)
        assert (adopted.by, missed.by) == ("", "")
