"""Checks the table of the steps of a lease, and that the store's statements agree with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from lessor_server.adapters.sql import statements
from lessor_server.domain import lease as steps
from lessor_server.domain.lease import (
    LIVE,
    MAX_GENERATION,
    STEPS,
    STUCK_AFTER,
    Lease,
    LeaseStep,
    State,
    sources,
)
from lessor_server.domain.role import CredentialType
from tests.support import builders

STATEMENTS = {
    LeaseStep.EXPIRE: statements.CLAIM,
    LeaseStep.REVOKE: statements.REVOKE,
    LeaseStep.ABANDON: statements.ABANDON,
    LeaseStep.REOPEN: statements.REOPEN,
}
"""The steps that the store takes by itself; all others are pure functions."""
NOW = 10_000_000_000
PURE: dict[LeaseStep, Callable[[Lease], Lease]] = {
    LeaseStep.ACTIVATE: lambda before: steps.activate(before, "AKIA", NOW),
    LeaseStep.REPLACE_KEY: lambda before: steps.replace_key(before, "AKIA2"),
    LeaseStep.MARK_UNDELIVERED: lambda before: steps.mark_undelivered(before, NOW),
    LeaseStep.RENEW: lambda before: steps.renew(before, NOW, NOW),
    LeaseStep.ABORT: lambda before: steps.abort(before, "why", 7, NOW),
    LeaseStep.RESCHEDULE: lambda before: steps.reschedule(
        before, "why", timedelta(seconds=1), NOW, attempts=1, not_found_count=2
    ),
    LeaseStep.FINISH: steps.finish,
}


def lease(state: State = State.ACTIVE) -> Lease:
    """Return a lease in a state, that expires at 1000."""
    return Lease(
        id="aws/creds/app/x",
        mount="aws",
        role="app",
        credential_type=CredentialType.IAM_USER,
        owner="root",
        state=state,
        generation=3,
        footprint=builders.intent().footprint,
        access_key_id="AKIA",
        ttl=builders.HOUR,
        max_ttl=2 * builders.HOUR,
        created_us=1,
        issue_us=2,
        expires_us=1000,
        max_expires_us=2000,
        due_us=1000,
        last_create_us=5,
    )


def named_states(statement: str) -> set[State]:
    """Return the states that a statement's WHERE starts from."""
    conditions = statement.partition("WHERE")[2]
    listed = re.findall(r"state IN \(([^)]*)\)", conditions)
    single = re.findall(r"state = '([A-Z]+)'", conditions)
    return {State(name) for text in listed for name in re.findall(r"'([A-Z]+)'", text)} | set(
        map(State, single)
    )


def test_each_step_is_a_statement_or_a_pure_function() -> None:
    assert {*STATEMENTS} ^ {*PURE} == {*LeaseStep}


@pytest.mark.parametrize("step", STATEMENTS)
def test_a_statement_starts_from_exactly_the_states_of_its_step(step: LeaseStep) -> None:
    assert named_states(STATEMENTS[step]) == set(sources(step))


@pytest.mark.parametrize("step", STATEMENTS)
def test_a_statement_ends_in_the_state_of_its_step(step: LeaseStep) -> None:
    (end,) = {STEPS[state, step] for state in sources(step)}
    change = STATEMENTS[step].partition("WHERE")[0]
    assert re.findall(r"SET state = '([A-Z]+)'", change) == [end.value]
    assert f"generation = {statements.NEXT_GENERATION}" in change


@pytest.mark.parametrize("step", PURE)
@pytest.mark.parametrize("state", State)
def test_a_pure_step_raises_in_any_other_state(state: State, step: LeaseStep) -> None:
    if (state, step) not in STEPS:
        with pytest.raises(AssertionError):
            PURE[step](lease(state))
        return
    after = PURE[step](lease(state))
    assert (after.state, after.generation) == (STEPS[state, step], 4)
    assert after.id == "aws/creds/app/x"


def test_generations_wrap_around() -> None:
    assert steps.finish(replace(lease(State.REVOKING), generation=MAX_GENERATION)).generation == 1


def test_every_state_leads_to_gone() -> None:
    for start in State:
        reached = {start}
        while True:
            more = {after for (before, _), after in STEPS.items() if before in reached} - reached
            if not more:
                break
            reached |= more
        assert State.GONE in reached


def test_only_an_intent_becomes_active() -> None:
    leading = {before for (before, _), after in STEPS.items() if after is State.ACTIVE}
    assert leading == {State.INTENT, State.ACTIVE}


def test_only_an_operator_s_step_leads_to_abandoned_and_back() -> None:
    assert {step for (_, step), after in STEPS.items() if after is State.ABANDONED} == {LeaseStep.ABANDON}
    assert set(sources(LeaseStep.ABANDON)) == LIVE
    assert {step for before, step in STEPS if before is State.ABANDONED} == {LeaseStep.REVOKE}


def test_states_that_may_have_a_user_count_as_live() -> None:
    assert set(State) - {State.GONE, State.ABANDONED} == LIVE


def test_an_expired_lease_reads_as_revoking() -> None:
    active = lease()
    assert active.state_at(999) is State.ACTIVE
    assert active.state_at(1000) is State.REVOKING
    for state in set(State) - {State.ACTIVE}:
        assert lease(state).state_at(5000) is state


def test_a_lease_is_stuck_after_six_refusals_while_it_is_revoked() -> None:
    """STUCK is a label of REVOKING rows."""
    assert not replace(lease(State.REVOKING), attempts=STUCK_AFTER - 1).stuck
    assert replace(lease(State.REVOKING), attempts=STUCK_AFTER).stuck
    assert not replace(lease(State.GONE), attempts=STUCK_AFTER).stuck
