"""Plays a small fleet; the figures of the whole one are in ``docs/scaling.md``."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from bench.fleet import Plan, Window, deadlines, percentile, run

SMALL = Plan(accounts=40, leases=2_000, ttl=120, wave=20, limit=100)


def test_a_small_fleet_keeps_all_bounds_of_the_whole_one() -> None:
    figures = list(run(SMALL))
    assert len(figures) == 15
    assert [figure.name for figure in figures if figure.verdict == "MISSED"] == []


def test_a_wave_of_one_account_is_late_at_the_speed_of_its_rate() -> None:
    """600 users at 25 calls a second, of which issues take a part and each revocation takes four."""
    wave = replace(SMALL, wave=600)
    late = next(figure.score for figure in run(wave) if figure.name == "longest lag, of the wave's account")
    assert late > 600 * wave.calls_to_revoke / wave.rate


def test_the_window_pops_every_deadline_once_and_none_early() -> None:
    window = Window(deadlines(SMALL, random.Random(2)), SMALL.limit)
    again_us = 0
    for now_us in range(0, SMALL.ttl * 1_000_000 + 1, 1_000_000):
        window.pop(now_us)
        if now_us >= again_us:
            again_us = window.fill(now_us)
    assert window.popped == SMALL.leases
    assert window.latest_us <= 2_000_000


@pytest.mark.parametrize(("part", "value"), [(0.5, 1), (0.9, 1), (0.95, 7)])
def test_a_percentile_is_the_least_value_that_reaches_its_part(part: float, value: int) -> None:
    assert percentile(Counter({1: 90, 7: 10}), part) == value
