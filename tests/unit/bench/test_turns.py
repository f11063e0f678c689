"""Variants take turns, and ratios are taken within a round."""

from __future__ import annotations

from itertools import count

from bench.turns import Turn, by_rate, take_turns


def test_ratios_are_of_one_round() -> None:
    """A machine that becomes ten times faster weighs on both."""
    speeds = {"fast": iter([0.0, 20, 200, 2000]), "slow": iter([0.0, 10, 100, 1000])}

    def take(name: str) -> Turn:
        return Turn(next(speeds[name]), 0, 0, 0)

    turns = take_turns(3, {"fast": lambda: take("fast"), "slow": lambda: take("slow")})
    assert turns.ratio("fast", "slow", by_rate) == 2
    assert turns.middle("fast", by_rate) == 200
    assert turns.gap("fast", "slow", by_rate) == 100


def test_every_second_round_is_reversed() -> None:
    numbers = count()
    takes = {name: lambda: Turn(next(numbers), 0, 0, 0) for name in "ab"}
    turns = take_turns(2, takes, warm_up=False)
    assert [turn.rate for turn in turns.by_name["a"]] == [0, 3]
