"""Checks that a request id is of one caller: of its name and of its labels."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lessor.v1 import creds_pb2
from lessor_server.domain.access.caller import Principal
from lessor_server.domain.errors.base import RequestIdReused
from tests.support.access import principal
from tests.support.engine_world import world
from tests.support.served import Served
from tests.support.virtual_loop import virtual

REQUEST = creds_pb2.GenerateCredentialsRequest(role="app", request_id="3f2504e0-4f89-41d3-9a0c-0305e82c3301")
RED = replace(principal("gh/app"), labels={"team": "red", "stage": "test"})
OTHERS: dict[str, Principal] = {
    "another label": replace(RED, labels={"team": "blue", "stage": "test"}),
    "a label less": replace(RED, labels={"team": "red"}),
    "no label": replace(RED, labels={}),
    "the values of two labels exchanged": replace(RED, labels={"team": "test", "stage": "red"}),
}
METHOD = "CredsService.GenerateCredentials"


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("first_ends", [True, False])
@virtual
async def test_a_caller_of_the_same_name_with_other_labels_gets_no_lease_of_an_earlier_request(
    other: str, first_ends: bool
) -> None:
    """Labels are in policies, so the lease may allow what the other may not."""
    async with world() as w, asyncio.TaskGroup() as group:
        first = group.create_task(Served(w, RED)(METHOD, REQUEST))
        await (first if first_ends else asyncio.sleep(0.01))
        with pytest.raises(RequestIdReused):
            await Served(w, OTHERS[other])(METHOD, REQUEST)


@virtual
async def test_a_repeat_with_the_same_labels_in_another_order_gets_the_same_lease() -> None:
    async with world() as w:
        (first,) = await Served(w, RED)(METHOD, REQUEST)
        again = replace(RED, labels=dict(reversed(RED.labels.items())))
        (second,) = await Served(w, again)(METHOD, REQUEST)
        assert first.lease_id == second.lease_id  # type: ignore[attr-defined]


@virtual
async def test_callers_of_other_names_have_request_ids_of_their_own() -> None:
    async with world() as w:
        (first,) = await Served(w, RED)(METHOD, REQUEST)
        (second,) = await Served(w, replace(RED, name="gh/web"))(METHOD, REQUEST)
        assert first.lease_id != second.lease_id  # type: ignore[attr-defined]
