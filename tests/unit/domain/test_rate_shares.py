"""Checks the shares of a rate, also while they change and while replicas come, stop and go."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lessor_server.domain.rate_shares import (
    MARGIN,
    RESERVED_SECONDS,
    SHARE_SECONDS,
    ShareRequest,
    StoredShare,
    grant_share,
    min_share,
    shares_by_demand,
    start_reserve,
)

SECOND = 1_000_000
NAMES = ("a", "b", "c", "d")
rates = st.one_of(st.integers(1, 2000).map(float), st.floats(0.5, 2000.0))


@dataclass
class Fleet:
    """Replicas that ask one store for shares; each keeps what it uses."""

    rate: float
    now: int = 1_000 * SECOND
    rows: dict[str, StoredShare] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)
    using: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Each replica's share and until when it may use it."""

    def ask(self, name: str, demand: float, *, heard: bool = True) -> None:
        """Ask for a share; if the answer is not ``heard``, the replica keeps the share that it has."""
        self.live.add(name)
        asked = ShareRequest("1", self.rate, demand, self.used(name))
        row, granted = grant_share(name, asked, list(self.rows.values()), self.live, self.now)
        self.rows[name] = row
        if heard:
            self.using[name] = (granted.share, self.now + int(SHARE_SECONDS * SECOND))

    def used(self, name: str) -> float:
        """Return the share that a replica may use now."""
        share, until = self.using.get(name, (0.0, 0))
        return share if until > self.now else 0.0


steps = st.lists(
    st.tuples(st.sampled_from(NAMES), st.floats(0.0, 5000.0), st.booleans(), st.floats(0.0, 15.0)),
    max_size=60,
)


def test_a_rate_of_less_than_a_call_for_each_replica_with_demand_is_still_shared() -> None:
    """A replica without demand keeps one call of the three for its start."""
    fleet = Fleet(3.0)
    for _ in range(4):
        for name, demand in zip("abcd", (0.0, 1.0, 1.0, 1.0), strict=True):
            fleet.ask(name, demand)
            fleet.now += SECOND
    assert [fleet.used(name) for name in "bcd"] == pytest.approx([2 / 3] * 3)


@given(rate=rates, steps=steps)
@settings(deadline=None)
def test_the_shares_in_use_never_add_up_to_more_than_the_rate(
    rate: float, steps: list[tuple[str, float, bool, float]]
) -> None:
    """Also if answers get lost, or replicas are stopped longer than their shares are valid."""
    fleet = Fleet(rate)
    for name, demand, heard, pause in steps:
        fleet.ask(name, demand, heard=heard)
        assert sum(fleet.used(one) for one in NAMES) <= rate + 1e-6
        reserved = [row.reserved for row in fleet.rows.values() if row.until_us > fleet.now]
        assert sum(reserved) <= rate + 1e-6
        fleet.now += int(pause * SECOND)


@given(rate=rates, demands=st.dictionaries(st.sampled_from(NAMES), st.floats(0.0, 5000.0), min_size=2))
def test_shares_add_up_to_the_rate_and_each_replica_with_demand_has_one(
    rate: float, demands: dict[str, float]
) -> None:
    """If a rate is scarce, what is left for replicas without demand is at most 2 % of it, or one call."""
    shares = shares_by_demand(rate, demands)
    busy = [name for name, demand in demands.items() if demand]
    is_scarce = rate - sum(demands.values()) < len(demands)
    left = start_reserve(rate) if is_scarce and len(busy) < len(demands) else 0.0
    whole = not is_scarce or rate - left >= len(busy)
    if busy or not is_scarce:
        assert sum(shares.values()) == pytest.approx(int(rate - left + 1e-9) if whole else rate - left)
        assert all(shares[name] >= min(1.0, (rate - left) / len(busy)) - 1e-9 for name in busy)
    assert not whole or all(share == int(share) for share in shares.values())
    assert start_reserve(rate) <= max(0.02 * rate, 1.0)


def test_what_nobody_needs_is_divided_into_equal_parts() -> None:
    """So that calls that are few do not wait, at whatever replica they begin."""
    assert shares_by_demand(300.0, {"a": 0.0, "b": 0.0, "c": 0.0}) == {"a": 100.0, "b": 100.0, "c": 100.0}
    assert shares_by_demand(300.0, {"a": 30.0, "b": 0.0, "c": 0.0}) == {"a": 120.0, "b": 90.0, "c": 90.0}
    assert shares_by_demand(300.0, {"a": 400.0, "b": 0.0, "c": 0.0}) == {"a": 294.0, "b": 0.0, "c": 0.0}


@given(
    rate=rates,
    demands=st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=4),
    order=st.permutations(range(4)),
)
@settings(deadline=None)
def test_with_a_steady_demand_each_replica_soon_has_the_share_of_its_demand(
    rate: float, demands: list[float], order: list[int]
) -> None:
    """After each has asked three times: to give up, to confirm that, and to take what the others gave up."""
    fleet = Fleet(rate)
    names = NAMES[: len(demands)]
    for _ in range(4):
        for index in [one for one in order if one < len(names)]:
            fleet.ask(names[index], demands[index])
            fleet.now += SECOND
    expected = shares_by_demand(rate, dict(zip(names, demands, strict=True)))
    assert {name: fleet.used(name) for name in names} == pytest.approx(expected)


def test_a_larger_share_is_free_only_after_the_other_replica_has_used_its_smaller_one() -> None:
    fleet = Fleet(100.0)
    for _ in range(3):
        fleet.ask("a", 100.0)
        fleet.ask("b", 0.0)
    assert (fleet.used("a"), fleet.used("b")) == (98.0, 0.0)
    fleet.ask("b", 100.0)
    assert fleet.used("b") == 2.0  # all else is reserved for a
    fleet.ask("a", 100.0)
    fleet.ask("b", 100.0)
    assert (fleet.used("a"), fleet.used("b")) == (50.0, 2.0)  # a may have sent 98 in this second
    fleet.ask("a", 100.0)
    fleet.ask("b", 100.0)
    assert (fleet.used("a"), fleet.used("b")) == (50.0, 50.0)


def test_the_share_of_a_silent_replica_is_free_after_it_has_ended() -> None:
    fleet = Fleet(100.0)
    fleet.ask("a", 100.0)
    fleet.now += int(RESERVED_SECONDS * SECOND) - 1
    fleet.ask("b", 100.0)
    assert fleet.used("b") == 2.0  # what a replica leaves to one that starts
    fleet.now += 1
    fleet.ask("b", 100.0)
    assert fleet.used("b") == 98.0


def test_replicas_whose_loads_begin_at_the_same_time_each_take_half_of_what_is_left() -> None:
    fleet = Fleet(300.0, live={"b", "c", "d"})
    fleet.ask("a", 1000.0)
    assert fleet.used("a") == 294.0
    for name in "bcd":
        fleet.ask(name, 1000.0)
    assert [fleet.used(name) for name in "bcd"] == [3.0, 1.0, 2.0]  # for the last one nothing has to be left
    for name in "abcdabcd":
        fleet.ask(name, 1000.0)
    assert [fleet.used(name) for name in "abcd"] == [75.0] * 4


def test_the_lowest_rate_of_all_settings_holds() -> None:
    row, _ = grant_share("a", ShareRequest("1", 100.0, 50.0, 0.0), (), {"a"}, SECOND)
    assert row.share == 98.0
    lower = replace(row, rate=40.0, replica="b", share=10.0, reserved=10.0)
    row, granted = grant_share("a", ShareRequest("1", 100.0, 50.0, 100.0), [lower], {"a", "b"}, SECOND)
    assert (row.share, granted.wanted) == (20.0, 20.0)


@pytest.mark.parametrize("rate", [25.0, 50.0, 100.0, 300.0, 2000.0])
@pytest.mark.parametrize("idle", [0, 1, 2, 7, 30])
def test_at_least_95_percent_of_the_rate_is_used_whatever_the_number_of_idle_replicas(
    rate: float, idle: int
) -> None:
    """What is left for idle replicas is a part of the margin that is not used."""
    live = {f"idle-{number}" for number in range(idle)}
    _, granted = grant_share("a", ShareRequest("1", rate, 5000.0, 0.0), (), live, SECOND)
    assert 0.955 <= granted.share * (1 - granted.margin) / rate <= 0.96
    assert granted.margin <= MARGIN


def test_replicas_with_few_calls_take_little_of_the_rate() -> None:
    """Seven send a call every five seconds each, and one all that it may."""
    fleet = Fleet(300.0)
    few = [f"few-{number}" for number in range(7)]
    for _ in range(3):
        fleet.ask("a", 1000.0)
        for name in few:
            fleet.ask(name, 0.2)
    asked = ShareRequest("1", 300.0, 1000.0, fleet.used("a"))
    _, granted = grant_share("a", asked, list(fleet.rows.values()), fleet.live, fleet.now)
    assert [fleet.used(name) for name in few] == [1.0] * 7
    assert granted.share * (1 - granted.margin) >= 0.95 * 300.0


def test_more_replicas_than_calls_a_second_have_equal_parts() -> None:
    assert min_share(300.0, 3) == 1.0
    assert min_share(2.0, 4) == 0.5
