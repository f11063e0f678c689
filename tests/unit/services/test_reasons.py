"""Checks that the reason of a request is stored with its lease, shown and logged."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from lessor.v1 import creds_pb2, lease_pb2
from lessor_server.domain.events import Issued
from lessor_server.services.creds import CredsService
from tests.support import builders
from tests.support.engine_world import World, world
from tests.support.served import Served
from tests.support.virtual_loop import virtual

REASON = "ticket 4711: look into the slow reports"
REQUEST_ID = "11111111-2222-4333-8444-555555555555"


async def shown(w: World) -> list[str]:
    """Return the reasons that ListLeases shows, after checking that LookupLease shows the same."""
    served = Served(w)
    (listed,) = await served("LeaseService.ListLeases", lease_pb2.ListLeasesRequest(prefix="aws/"))
    assert isinstance(listed, lease_pb2.ListLeasesResponse)
    for lease in listed.leases:
        request = lease_pb2.LookupLeaseRequest(lease_id=lease.lease_id)
        (found,) = await served("LeaseService.LookupLease", request)
        assert isinstance(found, lease_pb2.LookupLeaseResponse)
        assert found.lease.reason == lease.reason
        assert found.lease.policy_rule == ""
    return [lease.reason for lease in listed.leases]


@virtual
async def test_the_reason_of_a_request_is_shown_with_its_lease_and_logged() -> None:
    async with world() as w:
        request = creds_pb2.GenerateCredentialsRequest(role="app", reason=REASON)
        await Served(w)("CredsService.GenerateCredentials", request)
        assert await shown(w) == [REASON]
        assert [event.reason for event in w.events.of(Issued)] == [REASON]


@virtual
async def test_the_reason_of_a_session_is_kept_too() -> None:
    async with world() as w:
        await w.put_role(builders.assumed(w.iam.add_role("target").arn))
        request = creds_pb2.GenerateCredentialsRequest(role="assumed", reason=REASON)
        await Served(w)("CredsService.GenerateCredentials", request)
        assert await shown(w) == [REASON]
        assert [event.reason for event in w.events.of(Issued)] == [REASON]


@virtual
async def test_a_repeat_leaves_the_reason_as_it_was() -> None:
    async with world() as w:
        for reason in (REASON, "another"):
            request = creds_pb2.GenerateCredentialsRequest(role="app", reason=reason, request_id=REQUEST_ID)
            await Served(w)("CredsService.GenerateCredentials", request)
        assert await shown(w) == [REASON]


@virtual
async def test_each_lease_of_a_stream_has_the_reason_of_its_request() -> None:
    async with world() as w:
        served = Served(w)
        creds = served._services["CredsService"]
        assert isinstance(creds, CredsService)
        request = creds_pb2.WatchCredentialsRequest(role="app", reason=REASON)
        request.ttl.FromSeconds(600)
        async with aclosing(creds.WatchCredentials(request, served._caller)) as answers:  # type: ignore[type-var]
            issued = 0
            async for answer in answers:
                issued += answer is not None
                if issued == 2:
                    break
        assert await shown(w) == [REASON, REASON]


@pytest.mark.parametrize("reason", ["x" * 257, "two\nlines"])
@virtual
async def test_a_reason_that_is_refused_issues_nothing(reason: str) -> None:
    async with world() as w:
        request = creds_pb2.GenerateCredentialsRequest(role="app", reason=reason)
        with pytest.raises(Exception, match="reason"):
            await Served(w)("CredsService.GenerateCredentials", request)
        assert await shown(w) == []
