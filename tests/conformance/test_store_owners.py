"""Checks the rules of owners, and of the limits of access rules, that every kind of store has."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.support import builders, lease_steps
from tests.support.stores import SPAN, START_US, TERMS, Bench

from lessor_server.domain.errors.access import RuleFull
from lessor_server.domain.errors.base import LessorError, RoleFull
from lessor_server.domain.lease import Lease, State
from lessor_server.domain.lease_id import EVERYTHING, IdRange
from lessor_server.engine.store_types import BulkRevocation, LeaseCount, Progress

SECOND = 1_000_000
HOUR_US = 3600 * SECOND
APP = IdRange("aws/creds/app/", "aws/creds/app0")
OTHER = IdRange("aws/creds/other/", "aws/creds/other0")
RULE = "aws/creds/deploy-*"
TWO = {"owner": "ci", "policy_rule": RULE, "rule_max_leases": 2}


async def session(b: Bench, number: int, seconds: float = 3600, **changes: object) -> Lease:
    """Store an ACTIVE session that AWS ends in ``seconds``."""
    begun = await b.store.begin(builders.session_intent(number, **changes), SPAN)
    ends_us = b.store.now() + int(seconds * SECOND)
    active = await lease_steps.activate(b.store, begun, f"ASIA{number}", ends_us=ends_us)
    assert active is not None
    return active


async def end(b: Bench, lease: Lease) -> None:
    """Revoke a lease until it is GONE."""
    await b.store.revoke(lease.id)
    (claim,) = await b.store.claim([lease.id], TERMS)
    assert await lease_steps.finish(b.store, claim)


async def refusal(b: Bench, number: int, **changes: object) -> LessorError | None:
    """Begin a lease; return the error if the store refuses it."""
    try:
        await b.begun(number, **changes)
    except LessorError as error:
        return error
    return None


# --- what a caller sees --------------------------------------------------------------------------------


async def test_the_owner_and_the_rule_of_a_lease_are_kept_to_its_end(b: Bench) -> None:
    lease = await b.active(0, **TWO)
    assert (lease.owner, lease.policy_rule) == ("ci", RULE)
    await end(b, lease)
    ended = await b.row(lease.id)
    assert (ended.state, ended.owner, ended.policy_rule) == (State.GONE, "ci", RULE)
    assert (await b.active(1)).policy_rule == ""


async def test_a_page_of_an_owner_has_only_its_leases(b: Bench) -> None:
    mine = [await b.active(number, owner="ci") for number in (0, 2, 4)]
    for number, owner in ((1, "ci2"), (3, "c"), (5, "CI"), (6, "")):
        await b.active(number, owner=owner)
    elsewhere = await b.active(7, owner="ci", role_name="other")
    assert await b.store.page(EVERYTHING, None, "", 9, "ci") == [*mine, elsewhere]
    assert await b.store.page(APP, None, "", 9, "ci") == mine
    assert await b.store.page(APP, None, mine[0].id, 1, "ci") == [mine[1]]
    assert await b.store.page(OTHER, None, "", 9, "ci") == [elsewhere]
    assert await b.store.page(EVERYTHING, None, "", 9, "nobody") == []
    assert len(await b.store.page(EVERYTHING, None, "", 9)) == 8


async def test_a_page_of_an_owner_has_the_states_that_callers_see(b: Bench) -> None:
    short = await b.active(0, owner="ci", ttl=timedelta(seconds=1))
    await b.active(1, owner="other", ttl=timedelta(seconds=1))
    living = await b.active(2, owner="ci")
    b.clock.advance(1)
    assert await b.store.page(EVERYTHING, State.REVOKING, "", 9, "ci") == [short]
    assert await b.store.page(EVERYTHING, State.ACTIVE, "", 9, "ci") == [living]


async def test_counts_of_an_owner_are_of_its_leases(b: Bench) -> None:
    await b.active(0, owner="ci")
    await b.active(1, owner="ci", ttl=timedelta(seconds=1))
    await b.active(2, owner="ci", ttl=timedelta(seconds=1), role_name="other")
    await b.active(3, owner="other")
    await end(b, await b.active(4, owner="ci"))
    b.clock.advance(1)
    counted = [
        LeaseCount("aws", "app", State.ACTIVE, 1),
        LeaseCount("aws", "app", State.GONE, 1),
        LeaseCount("aws", "app", State.REVOKING, 1),
        LeaseCount("aws", "other", State.REVOKING, 1),
    ]
    assert await b.store.count(EVERYTHING, None, "ci") == counted
    assert await b.store.count(APP, None, "ci") == counted[:3]
    assert await b.store.count(EVERYTHING, State.REVOKING, "ci") == counted[2:]
    assert await b.store.count(EVERYTHING, None, "nobody") == []


async def test_the_count_of_one_lease_is_nothing_for_another_owner(b: Bench) -> None:
    lease = await b.active(0, owner="ci")
    one = IdRange.of_prefix(lease.id)
    assert [counted.count for counted in await b.store.count(one, None, "ci")] == [1]
    assert await b.store.count(one, None, "other") == []


async def test_the_owner_of_a_lease_is_found_by_its_id(b: Bench) -> None:
    lease = await b.active(0, owner="ci")
    await end(b, lease)
    assert await b.store.get_owner(lease.id) == "ci"
    assert await b.store.get_owner(builders.intent(9).id) is None


async def test_a_lease_is_current_until_its_row_changes(b: Bench) -> None:
    begun = await b.begun(0)
    assert await b.store.is_current(begun)
    active = await lease_steps.activate(b.store, begun, "AKIA0")
    assert active is not None
    assert await b.store.is_current(active)
    assert not await b.store.is_current(begun)
    assert not await b.store.is_current(replace(active, id=builders.intent(9).id))


async def test_owners_of_live_leases_are_listed_in_order(b: Bench) -> None:
    for number, owner in enumerate(("b", "a", "b", "k8s/x", "gone", "")):
        await b.active(number, owner=owner)
    await end(b, await b.row(builders.intent(4).id))
    await b.begun(7, owner="a")
    await b.taken(8, owner="é")
    found = [("a", 2), ("b", 2), ("k8s/x", 1), ("é", 1)]
    assert await b.store.list_owners("", 9) == found
    assert await b.store.list_owners("", 2) == found[:2]
    assert await b.store.list_owners("a", 2) == found[1:3]
    assert await b.store.list_owners("é", 9) == []


# --- the limit of a rule ---------------------------------------------------------------------------------


async def test_a_rule_admits_as_many_live_leases_of_an_owner_as_its_limit(b: Bench) -> None:
    await b.begun(0, **TWO)
    await b.active(1, **TWO)
    full = await refusal(b, 2, **TWO)
    assert isinstance(full, RuleFull)
    assert RULE in full.message
    assert "2" in full.message
    assert RULE in full.subject
    assert await b.store.get(builders.intent(2).id) is None


async def test_the_limit_of_a_rule_counts_leases_of_all_roles_and_mounts(b: Bench) -> None:
    await b.store.put_mount(None, builders.mount("second"))
    await b.store.put_root(builders.stored_root("second"), 0)
    await b.active(0, role_name="deploy-a", **TWO)
    await b.active(1, mount_name="second", **TWO)
    assert isinstance(await refusal(b, 2, role_name="deploy-b", **TWO), RuleFull)


async def test_a_lease_counts_while_it_is_being_revoked(b: Bench) -> None:
    lease = await b.active(0, **TWO)
    await b.taken(1, **TWO)
    assert isinstance(await refusal(b, 2, **TWO), RuleFull)
    await end(b, lease)
    assert await refusal(b, 3, **TWO) is None


async def test_an_abandoned_lease_does_not_count(b: Bench) -> None:
    for number in range(2):
        await b.active(number, **TWO)
    await b.store.abandon(APP, 1, live=True)
    assert await refusal(b, 2, **TWO) is None


async def test_other_owners_and_other_rules_do_not_count(b: Bench) -> None:
    for number in range(2):
        await b.active(number, **TWO)
    assert await refusal(b, 2, **TWO | {"owner": "ci2"}) is None
    assert await refusal(b, 3, **TWO | {"policy_rule": "aws/creds/*"}) is None
    assert await refusal(b, 4, **TWO | {"rule_max_leases": None}) is None
    assert await refusal(b, 5, owner="ci") is None


async def test_a_session_counts_until_aws_ends_it(b: Bench) -> None:
    """Its lease may be gone long before: nobody can take the session away."""
    first, second = await session(b, 0, 900, **TWO), await session(b, 1, 1800, **TWO)
    await end(b, first)
    await end(b, second)
    assert isinstance(await refusal(b, 2, **TWO), RuleFull)
    b.clock.advance(899)
    assert isinstance(await refusal(b, 2, **TWO), RuleFull)
    b.clock.advance(1)
    assert await refusal(b, 2, **TWO) is None
    assert isinstance(await refusal(b, 3, **TWO), RuleFull)
    b.clock.advance(900)
    assert await refusal(b, 3, **TWO) is None


async def test_a_session_that_was_never_made_does_not_count(b: Bench) -> None:
    begun = await b.store.begin(builders.session_intent(0, **TWO), SPAN)
    assert await lease_steps.abort(b.store, begun, "no", 0)
    (claim,) = await b.store.claim([begun.id], TERMS)
    assert await lease_steps.finish(b.store, claim)
    await b.active(1, **TWO)
    assert await refusal(b, 2, **TWO) is None


async def test_the_tombstone_of_a_user_does_not_count(b: Bench) -> None:
    """Although its lease had hours left."""
    await end(b, await b.active(0, **TWO))
    await end(b, await b.active(1, **TWO))
    assert await refusal(b, 2, **TWO) is None


@pytest.mark.parametrize("most", [0, 1, 7])
async def test_concurrent_intents_do_not_pass_the_limit(b: Bench, most: int) -> None:
    own = TWO | {"rule_max_leases": most}
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(refusal(b, number, **own)) for number in range(20)]
    refused = [task.result() for task in tasks if task.result()]
    assert len(refused) == 20 - most
    assert {type(error) for error in refused} == {RuleFull}
    assert sum(one.count for one in await b.store.count(EVERYTHING, None, "ci")) == most


async def test_a_lowered_limit_refuses_more_leases_and_ends_none(b: Bench) -> None:
    leases = [await b.active(number, **TWO | {"rule_max_leases": 5}) for number in range(3)]
    assert isinstance(await refusal(b, 3, **TWO), RuleFull)
    assert await b.store.page(EVERYTHING, None, "", 9) == leases


async def test_the_limit_of_the_role_holds_too(b: Bench) -> None:
    await b.active(0, **TWO, max_leases=1)
    assert isinstance(await refusal(b, 1, **TWO, max_leases=1), RoleFull)


# --- bulk revocations of one owner ------------------------------------------------------------------------


async def test_a_prefix_of_an_owner_includes_only_its_leases(b: Bench) -> None:
    mine = [await b.active(number, owner="ci") for number in (0, 2, 4)]
    theirs = [await b.active(number, owner=owner) for number, owner in ((1, "ci2"), (3, ""), (5, "CI"))]
    elsewhere = await b.active(6, owner="ci", role_name="other")
    prefix, taken = await b.store.open_prefix(APP, "ci")
    assert (prefix, taken) == (BulkRevocation(APP, START_US, "ci"), 3)
    assert await b.store.prefixes() == [prefix]
    assert await b.store.mark_range_revoking(prefix, "", 2) == [lease.id for lease in mine[:2]]
    assert await b.store.mark_range_revoking(prefix, mine[1].id, 2) == [mine[2].id]
    assert await b.store.mark_range_revoking(prefix, mine[2].id, 2) == []
    assert {(await b.row(lease.id)).state for lease in mine} == {State.REVOKING}
    for lease in (*theirs, elsewhere):
        assert await b.row(lease.id) == lease


async def test_an_open_prefix_of_an_owner_holds_back_only_its_leases(b: Bench) -> None:
    mine, begun = await b.active(0, owner="ci"), await b.begun(1, owner="ci")
    theirs, other = await b.active(2, owner="ci2"), await b.begun(3, owner="ci2")
    await b.store.open_prefix(APP, "ci")
    assert await lease_steps.renew(b.store, mine, mine.expires_us + SECOND) is None
    assert await lease_steps.replace_key(b.store, mine, "AKIB") is None
    assert await lease_steps.activate(b.store, begun, "AKIA") is None
    assert await lease_steps.renew(b.store, theirs, theirs.expires_us + SECOND) is not None
    assert await lease_steps.activate(b.store, other, "AKIA") is not None


async def test_the_progress_of_a_prefix_counts_only_its_owners_leases(b: Bench) -> None:
    gone, failed = await b.taken(0, owner="ci"), await b.taken(1, owner="ci")
    await b.active(2, owner="ci2")
    prefix, taken = await b.store.open_prefix(APP, "ci")
    assert taken == 2
    b.clock.advance(1)
    await b.store.mark_range_revoking(prefix, "", 9)
    await lease_steps.reschedule(b.store, failed, "no", timedelta(seconds=9), 1, 0)
    assert await b.store.progress(prefix) == Progress(2, 0, 0)
    await b.store.close_prefix(prefix)
    await lease_steps.finish(b.store, gone)
    assert await b.store.progress(prefix) == Progress(1, 1, 1)


async def test_prefixes_of_several_owners_at_one_instant_are_each_kept_and_closed(b: Bench) -> None:
    """Also beside one for every owner."""
    leases = {owner: await b.active(number, owner=owner) for number, owner in enumerate(("a", "b", "c"))}
    opened = [(await b.store.open_prefix(APP, owner))[0] for owner in ("b", "a", "")]
    assert await b.store.prefixes() == [opened[2], opened[1], opened[0]]
    for prefix in opened[:0:-1]:
        await b.store.close_prefix(prefix)
    assert await b.store.prefixes() == [opened[0]]
    assert await b.store.progress(opened[0]) == Progress(1, 0, 0)
    assert await lease_steps.renew(b.store, leases["b"], leases["b"].expires_us + SECOND) is None
    for owner in ("a", "c"):
        lease = leases[owner]
        assert await lease_steps.renew(b.store, lease, lease.expires_us + SECOND) is not None


async def test_a_failure_counts_while_a_prefix_of_another_owner_is_open(b: Bench) -> None:
    failed = await b.taken(0, owner="a")
    mine, _ = await b.store.open_prefix(APP, "a")
    other, _ = await b.store.open_prefix(APP, "b")
    await b.store.mark_range_revoking(mine, "", 9)
    await lease_steps.reschedule(b.store, failed, "no", timedelta(seconds=9), 1, 0)
    await b.store.close_prefix(mine)
    assert await b.store.progress(mine) == Progress(1, 1, 0)
    assert await b.store.progress(other) == Progress(0, 0, 0)
