"""Checks that a JSON text that no answer can contain makes only its own row unreadable."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import builders
from tests.support.malformed import BODIES, Case, damage, loosen
from tests.support.stores import HandClock, bench

from lessor.v1 import role_pb2
from lessor_server.adapters.sql.columns import MAX_JSON_DEPTH
from lessor_server.adapters.sqlite.store import open_store
from lessor_server.domain.errors.base import RowUnreadable
from lessor_server.domain.events import Event, UnreadableRow
from lessor_server.domain.rotation import Rotation, static_subject
from lessor_server.services.role import role_message

OF_ROLES, OF_ROTATIONS = ("a policy", "half"), ("a schedule that is", "a chain with", "a list of keys")


@pytest.mark.parametrize("what", [what for what in BODIES if what.startswith((*OF_ROLES, *OF_ROTATIONS))])
async def test_a_json_text_that_no_answer_can_contain_is_reported_and_lists_go_on(
    tmp_path: Path, what: str
) -> None:
    async with bench("sqlite", tmp_path) as b:
        for name in ("bad", "good"):
            await b.store.put_role(builders.role(name), None)
            made = await b.store.add_rotation(Rotation(static_subject("aws", name)))
            assert made is not None
    loosen(tmp_path)
    for table, where in (("roles", "name = 'bad'"), ("rotations", "subject LIKE '%/bad'")):
        assert damage(tmp_path, Case(table, "body", BODIES[what], what), where)
    events: list[Event] = []
    async with open_store(tmp_path, HandClock(), events.append) as store:
        if what.startswith(OF_ROLES):
            with pytest.raises(RowUnreadable):
                await store.get_role("aws", "bad")
            assert [one.name for one in await store.list_roles("aws", "", 10)] == ["good"]
        else:
            with pytest.raises(RowUnreadable):
                await store.get_rotation(static_subject("aws", "bad"))
            assert [one.name for one in await store.list_static("aws", "", 10)] == ["good"]
    table = "roles" if what.startswith(OF_ROLES) else "rotations"
    assert [one.table for one in events if isinstance(one, UnreadableRow)] == [table]


async def test_a_policy_of_the_maximum_depth_can_be_returned(tmp_path: Path) -> None:
    deep = '{"a":' * MAX_JSON_DEPTH + "1" + "}" * MAX_JSON_DEPTH
    async with bench("sqlite", tmp_path) as b:
        await b.store.put_role(builders.role(policy_document=deep), None)
        (found,) = await b.store.list_roles("aws", "", 10)
        sent = role_pb2.ListRolesResponse(roles=[role_message(found)]).SerializeToString()
        assert role_pb2.ListRolesResponse.FromString(sent).roles[0].name == found.name
