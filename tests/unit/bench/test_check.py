"""A run is compared with the last release by its ratios alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.check import compare, pair
from bench.figures import Figure, load, save

RATE = Figure("rate beside the peer", 2.0)
COST = Figure("cost beside the peer", 1.0, more_is_better=False)


@pytest.mark.parametrize(
    ("released", "score", "worse"),
    [
        (RATE, 1.71, False),
        (RATE, 1.69, True),
        (RATE, 9.0, False),
        (COST, 1.14, False),
        (COST, 1.16, True),
        (COST, 0.1, False),
    ],
)
def test_a_ratio_may_be_15_percent_worse(released: Figure, score: float, worse: bool) -> None:
    run = Figure(released.name, score, more_is_better=released.more_is_better)
    assert bool(compare([(released, run)])) is worse


def test_a_problem_names_the_figure_and_both_scores() -> None:
    assert compare([(RATE, Figure(RATE.name, 1.0))]) == [
        "rate beside the peer: 1.00 ×, released with 2.00: 50% worse"
    ]


def test_milliseconds_are_not_compared() -> None:
    """They are the machine's."""
    released, run = (Figure("a wait", score, "ms", more_is_better=False) for score in (1.0, 9.0))
    assert pair([released], [run]) == []


def test_a_row_that_was_not_run_is_not_compared() -> None:
    assert pair([RATE, COST], [COST, RATE]) == [(RATE, RATE), (COST, COST)]
    assert pair([RATE], [COST]) == []


def test_saved_figures_are_read_back(tmp_path: Path) -> None:
    figures = [RATE, Figure("a wait", 3.5, "ms", must=5, aim=4, more_is_better=False, seen="3.5 beside 7")]
    save(figures, "a machine", tmp_path / "run.json")
    assert load(tmp_path / "run.json") == figures


@pytest.mark.parametrize(
    ("score", "more_is_better", "verdict"),
    [
        (1.6, True, "aim"),
        (1.3, True, "must"),
        (1.1, True, "MISSED"),
        (1.1, False, "aim"),
        (1.4, False, "MISSED"),
    ],
)
def test_a_figure_is_judged_by_its_bounds(score: float, more_is_better: bool, verdict: str) -> None:
    bounds = (1.2, 1.5) if more_is_better else (1.3, 1.2)
    figure = Figure("rate", score, must=bounds[0], aim=bounds[1], more_is_better=more_is_better)
    assert figure.verdict == verdict
    assert figure.line().endswith(verdict)


def test_a_figure_without_bounds_is_not_judged() -> None:
    assert not Figure("share", 2.0, "ms").verdict
