"""Compares the timing wheel with a dict of deadlines."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lessor_server.engine.revocation.wheel import SLOT_US, Wheel

KEYS = st.sampled_from([f"lease-{number}" for number in range(8)])
TIMES = st.integers(min_value=0, max_value=30 * SLOT_US)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), KEYS, TIMES),
        st.tuples(st.just("cancel"), KEYS, st.just(0)),
        st.tuples(st.just("pop"), st.just(""), TIMES),
    ),
    max_size=60,
)


def slot_end(due_us: int) -> int:
    """Return the end of the slot of a deadline: the first whole second at or after it."""
    return -(-due_us // SLOT_US) * SLOT_US


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_it_has_exactly_the_keys_of_a_dict(steps: list[tuple[str, str, int]]) -> None:
    """After any inserts, moves and cancels."""
    wheel, model = Wheel(), dict[str, int]()
    for step, key, time in steps:
        if step == "insert":
            wheel.insert(key, time)
            model[key] = time
        elif step == "cancel":
            wheel.cancel(key)
            model.pop(key, None)
        else:
            due = [name for name, due_us in model.items() if slot_end(due_us) <= time]
            assert sorted(wheel.pop(time)) == sorted(due)
            for name in due:
                del model[name]
        assert len(wheel) == len(model)
        assert wheel.next_us() == min(map(slot_end, model.values()), default=None)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(KEYS, TIMES), TIMES)
def test_no_key_is_early_or_more_than_a_second_late(due: dict[str, int], now: int) -> None:
    wheel = Wheel()
    for key, due_us in due.items():
        wheel.insert(key, due_us)
    taken = wheel.pop(now)
    assert all(due[key] <= now for key in taken)
    assert all(due[key] > now - SLOT_US for key in due.keys() - set(taken))


def test_earlier_deadlines_come_first() -> None:
    wheel = Wheel()
    for key, second in (("c", 30), ("a", 1), ("b", 20)):
        wheel.insert(key, second * SLOT_US)
    assert wheel.pop(60 * SLOT_US) == ["a", "b", "c"]


def test_a_cancelled_key_leaves_no_memory_behind() -> None:
    wheel = Wheel()
    for second in range(10_000):
        wheel.insert("a", second * SLOT_US)
        wheel.next_us()
    assert len(wheel) == 1
    assert len(wheel._slots) == 1
    assert len(wheel._plan) == 1
