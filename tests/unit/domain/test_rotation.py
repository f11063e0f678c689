"""Checks the state machine of a rotation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lessor_server.domain import rotation as steps
from lessor_server.domain.rotation import (
    DEACTIVATE_US,
    REMEMBERED,
    RETIRE_US,
    STEPS,
    Phase,
    Rotation,
    root_subject,
    static_subject,
)

ROOT = Rotation(root_subject("aws"), current="OLD")
STATIC = Rotation(static_subject("aws", "app"), live_keys=2, current="OLD", sealed=b"old")
NOW = 1_000_000_000_000


def made(row: Rotation) -> Rotation:
    """Return a row whose new key is made."""
    return steps.make(steps.intend(row, ("OLD", "FOREIGN")), "NEW", b"new")


def test_every_phase_is_left_by_some_step_and_reached_by_another() -> None:
    sources = {source for source, _ in STEPS.values()}
    targets = {target for _, all_targets in STEPS.values() for target in all_targets}
    assert sources == targets == set(Phase)


def test_a_static_role_named_root_is_not_the_root() -> None:
    assert (ROOT.mount, ROOT.name, ROOT.is_root) == ("aws", "", True)
    named = Rotation(static_subject("aws", "root"))
    assert (named.mount, named.name, named.is_root) == ("aws", "root", False)


def test_only_an_unknown_key_is_a_lost_one() -> None:
    """Not one that was listed before the intent, one of ours, or one that was rotated away."""
    row = replace(made(STATIC), previous="PREVIOUS", away=("GONE",))
    assert row.lost(("OLD", "FOREIGN", "NEW", "PREVIOUS", "GONE", "LOST")) == ("LOST",)
    assert row.lost(()) == ()


def test_the_root_s_old_key_is_kept_for_a_minute() -> None:
    """For calls in flight. It is then set inactive, and then deleted."""
    row = steps.switch(made(ROOT), NOW + 5, NOW)
    assert (row.phase, row.current, row.previous, row.away) == (Phase.RETIRING, "NEW", "OLD", ("OLD",))
    assert (row.sealed, row.fresh, row.next_us) == (b"", "", NOW + 5)
    assert row.idle_due_us() == NOW + DEACTIVATE_US
    assert replace(row, inactive=True).idle_due_us() == row.retire_us == NOW + RETIRE_US
    idle = steps.retire(row)
    assert (idle.phase, idle.previous, idle.fresh_sealed) == (Phase.IDLE, "", b"")


def test_with_two_live_keys_the_old_one_stays() -> None:
    row = steps.switch(made(STATIC), NOW + 5, NOW)
    assert (row.phase, row.current, row.previous, row.sealed) == (Phase.IDLE, "NEW", "OLD", b"new")
    assert (row.away, row.fresh_sealed, row.idle_due_us()) == ((), b"", NOW + 5)
    assert steps.retire(row).previous == ""


def test_with_one_live_key_the_old_one_is_deleted_immediately() -> None:
    row = steps.switch(made(replace(STATIC, live_keys=1)), 0, NOW)
    assert (row.phase, row.idle_due_us()) == (Phase.RETIRING, NOW)
    first = steps.switch(made(replace(STATIC, live_keys=1, current="")), 0, NOW)
    assert (first.phase, first.previous) == (Phase.IDLE, "")


def test_a_key_that_was_not_verified_is_dropped_and_the_old_one_kept() -> None:
    row = steps.dropped(steps.drop(made(STATIC)))
    assert (row.phase, row.current, row.fresh, row.fresh_sealed) == (Phase.IDLE, "OLD", "", b"")


def test_twenty_keys_that_were_rotated_away_are_remembered() -> None:
    row = ROOT
    for number in range(REMEMBERED + 5):
        row = steps.retire(steps.switch(steps.make(steps.intend(row, ()), f"K{number}", b""), 0, NOW))
    assert len(row.away) == REMEMBERED
    assert row.away[-1] == f"K{REMEMBERED + 3}"


@pytest.mark.parametrize("phase", list(Phase))
def test_a_step_from_another_phase_raises(phase: Phase) -> None:
    row = replace(ROOT, phase=phase)
    if phase is not Phase.IDLE:
        with pytest.raises(AssertionError, match="is not a step"):
            steps.intend(row, ())
    if phase is not Phase.MADE:
        with pytest.raises(AssertionError, match="is not a step"):
            steps.switch(row, 0, NOW)


def test_an_idle_row_is_due_at_its_next_rotation_or_last_key_listing() -> None:
    assert ROOT.idle_due_us() == 0
    assert replace(ROOT, next_us=9, last_check_us=7).idle_due_us() == 7
    assert replace(ROOT, next_us=9).idle_due_us() == 9
    assert made(ROOT).idle_due_us() == 1
    assert not replace(ROOT, next_us=9).is_due(8)
    assert replace(ROOT, next_us=9).is_due(9)
    assert not ROOT.is_due(NOW)
