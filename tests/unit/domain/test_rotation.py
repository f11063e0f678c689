"""Checks the machine of a rotation: which steps there are, and what each leaves in the row."""

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
    """No phase is a dead end, and IDLE is where all of them lead."""
    sources = {source for source, _ in STEPS.values()}
    targets = {target for _, all_targets in STEPS.values() for target in all_targets}
    assert sources == targets == set(Phase)


def test_a_subject_tells_root_from_static_role() -> None:
    """A static role may be called root; its subject is another."""
    assert (ROOT.mount, ROOT.name, ROOT.is_root) == ("aws", "", True)
    named = Rotation(static_subject("aws", "root"))
    assert (named.mount, named.name, named.is_root) == ("aws", "root", False)


def test_only_a_key_that_nobody_knows_is_lost() -> None:
    """Neither a key listed before the intent, nor one of ours, nor one rotated away is taken for lost."""
    row = replace(made(STATIC), previous="PREVIOUS", away=("GONE",))
    assert row.lost(("OLD", "FOREIGN", "NEW", "PREVIOUS", "GONE", "LOST")) == ("LOST",)
    assert row.lost(()) == ()


def test_the_root_s_old_key_is_kept_for_a_minute() -> None:
    """It stays active for what is on its way, then inactive, then it is deleted; its id is remembered."""
    row = steps.switch(made(ROOT), NOW + 5, NOW)
    assert (row.phase, row.current, row.previous, row.away) == (Phase.RETIRING, "NEW", "OLD", ("OLD",))
    assert (row.sealed, row.fresh, row.next_us) == (b"", "", NOW + 5)
    assert row.idle_due_us() == NOW + DEACTIVATE_US
    assert replace(row, inactive=True).idle_due_us() == row.retire_us == NOW + RETIRE_US
    idle = steps.retire(row)
    assert (idle.phase, idle.previous, idle.fresh_sealed) == (Phase.IDLE, "", b"")


def test_with_two_live_keys_the_old_one_stays() -> None:
    """It is deleted by the next rotation."""
    row = steps.switch(made(STATIC), NOW + 5, NOW)
    assert (row.phase, row.current, row.previous, row.sealed) == (Phase.IDLE, "NEW", "OLD", b"new")
    assert (row.away, row.fresh_sealed, row.idle_due_us()) == ((), b"", NOW + 5)
    assert steps.retire(row).previous == ""


def test_with_one_live_key_the_old_one_goes_at_once() -> None:
    """A first key has nothing to retire."""
    row = steps.switch(made(replace(STATIC, live_keys=1)), 0, NOW)
    assert (row.phase, row.idle_due_us()) == (Phase.RETIRING, NOW)
    first = steps.switch(made(replace(STATIC, live_keys=1, current="")), 0, NOW)
    assert (first.phase, first.previous) == (Phase.IDLE, "")


def test_a_dropped_key_leaves_the_old_one() -> None:
    """What was not proven is forgotten, secret and all."""
    row = steps.dropped(steps.drop(made(STATIC)))
    assert (row.phase, row.current, row.fresh, row.fresh_sealed) == (Phase.IDLE, "OLD", "", b"")


def test_twenty_keys_that_were_rotated_away_are_remembered() -> None:
    """The latest of them; no row grows without end."""
    row = ROOT
    for number in range(REMEMBERED + 5):
        row = steps.retire(steps.switch(steps.make(steps.intend(row, ()), f"K{number}", b""), 0, NOW))
    assert len(row.away) == REMEMBERED
    assert row.away[-1] == f"K{REMEMBERED + 3}"


@pytest.mark.parametrize("phase", list(Phase))
def test_a_step_from_another_phase_is_a_defect(phase: Phase) -> None:
    """What is not in the table cannot happen."""
    row = replace(ROOT, phase=phase)
    if phase is not Phase.IDLE:
        with pytest.raises(AssertionError, match="is not a step"):
            steps.intend(row, ())
    if phase is not Phase.MADE:
        with pytest.raises(AssertionError, match="is not a step"):
            steps.switch(row, 0, NOW)


def test_a_row_at_rest_is_due_at_its_next_rotation_or_last_look() -> None:
    """Whichever comes first; a row with neither is never due, one that is halfway is due at once."""
    assert ROOT.idle_due_us() == 0
    assert replace(ROOT, next_us=9, last_check_us=7).idle_due_us() == 7
    assert replace(ROOT, next_us=9).idle_due_us() == 9
    assert made(ROOT).idle_due_us() == 1
    assert not replace(ROOT, next_us=9).is_due(8)
    assert replace(ROOT, next_us=9).is_due(9)
    assert not ROOT.is_due(NOW)
