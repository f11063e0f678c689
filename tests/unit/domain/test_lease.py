"""Checks the table of steps, and that the stores' statements start from exactly its states."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from lessor_server.adapters.sqlite import statements
from lessor_server.domain.lease import LIVE, STEPS, STUCK_AFTER, Claim, Lease, State, Step, allowed, sources
from lessor_server.domain.role import CredentialType
from tests.support import builders

STATEMENTS = {
    Step.ACTIVATE: (statements.ACTIVATE,),
    Step.RENEW: (statements.RENEW,),
    Step.REKEY: (statements.REKEY, statements.UNTAKE),
    Step.EXPIRE: (statements.CLAIM,),
    Step.REVOKE: (statements.REVOKE,),
    Step.ABANDON: (statements.ABANDON,),
    Step.RELEASE: (statements.RELEASE,),
    Step.FAIL: (statements.FAIL,),
    Step.FINISH: (statements.FINISH,),
    Step.REOPEN: (statements.REOPEN,),
}
FORBIDDEN = [(state, step) for state in State for step in Step if (state, step) not in STEPS]


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
        created_us=1,
        issue_us=2,
        last_renewal_us=0,
        expires_us=1000,
        max_expires_us=2000,
        due_us=1000,
        attempts=0,
        looks=0,
        last_error="",
        last_create_us=5,
        request=None,
        undelivered=False,
    )


def named_states(statement: str) -> set[State]:
    """Return the states that a statement's WHERE starts from."""
    conditions = statement.partition("WHERE")[2]
    listed = re.findall(r"state IN \(([^)]*)\)", conditions)
    single = re.findall(r"state = '([A-Z]+)'", conditions)
    return {State(name) for text in listed for name in re.findall(r"'([A-Z]+)'", text)} | set(
        map(State, single)
    )


@pytest.mark.parametrize("step", Step)
def test_a_statement_starts_from_exactly_the_states_of_its_step(step: Step) -> None:
    """The WHERE of each step's statement names the states of the table, no more and no fewer."""
    for statement in STATEMENTS[step]:
        assert named_states(statement) == set(sources(step))


@pytest.mark.parametrize("step", Step)
def test_a_statement_ends_in_the_state_of_its_step(step: Step) -> None:
    """What a statement sets is the state that the table gives, and each raises the generation."""
    ends = {STEPS[state, step] for state in sources(step)}
    assert len(ends) == 1
    for statement in STATEMENTS[step]:
        change = statement.partition("WHERE")[0]
        written = re.findall(r"SET state = '([A-Z]+)'", change)
        assert {State(name) for name in written} in ({*ends}, set())
        assert written or ends <= set(sources(step))
        assert f"generation = {statements.NEXT_GENERATION}" in change


@pytest.mark.parametrize(("state", "step"), FORBIDDEN, ids=lambda one: one.value)
def test_what_is_not_in_the_table_cannot_happen(state: State, step: Step) -> None:
    """Every pair that the table leaves out is refused."""
    assert allowed(state, step) is None
    assert state not in sources(step)


@pytest.mark.parametrize(("state", "step"), STEPS, ids=lambda one: one.value)
def test_what_is_in_the_table_is_allowed(state: State, step: Step) -> None:
    """Every pair of the table leads to its state."""
    assert allowed(state, step) is STEPS[state, step]
    assert state in sources(step)


def test_every_lease_can_come_to_its_end() -> None:
    """From each state some steps lead to GONE, so that nothing is left for ever."""
    for start in State:
        reached = {start}
        while True:
            more = {after for (before, _), after in STEPS.items() if before in reached} - reached
            if not more:
                break
            reached |= more
        assert State.GONE in reached


def test_only_an_intent_becomes_active() -> None:
    """Nothing that was revoked, finished or abandoned ever gives access again."""
    leading = {before for (before, _), after in STEPS.items() if after is State.ACTIVE}
    assert leading == {State.INTENT, State.ACTIVE}


def test_only_a_person_s_step_leads_to_abandoned_and_back() -> None:
    """Giving a lease up is a decision, never a step that the engine takes; revoking it takes it up again."""
    assert {step for (_, step), after in STEPS.items() if after is State.ABANDONED} == {Step.ABANDON}
    assert set(sources(Step.ABANDON)) == LIVE
    assert {step for before, step in STEPS if before is State.ABANDONED} == {Step.REVOKE}


def test_what_may_have_a_user_counts_as_live() -> None:
    """Tombstones and abandoned leases take no room."""
    assert set(State) - {State.GONE, State.ABANDONED} == LIVE


def test_an_expired_lease_reads_as_revoking() -> None:
    """From its expiry on a caller sees REVOKING; other states are seen as they are."""
    active = lease()
    assert active.state_at(999) is State.ACTIVE
    assert active.state_at(1000) is State.REVOKING
    for state in set(State) - {State.ACTIVE}:
        assert lease(state).state_at(5000) is state


def test_a_lease_is_stuck_after_six_refusals_while_it_is_revoked() -> None:
    """STUCK is a label of REVOKING rows alone."""
    assert not replace(lease(State.REVOKING), attempts=STUCK_AFTER - 1).stuck
    assert replace(lease(State.REVOKING), attempts=STUCK_AFTER).stuck
    assert not replace(lease(State.GONE), attempts=STUCK_AFTER).stuck


def test_a_claim_names_its_lease_and_generation() -> None:
    """A claim is good for one lease and one generation of it."""
    assert (Claim(lease()).id, Claim(lease()).generation) == ("aws/creds/app/x", 3)
