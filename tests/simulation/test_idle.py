"""Checks how the simulator passes stretches of time in which nothing is due."""

from __future__ import annotations

import asyncio
import re
from asyncio import events

import pytest

from tests.simulation.options import Options
from tests.simulation.run import AWAKE_SECONDS, IDLE_EACH, run
from tests.simulation.stopping import LIFE, StoppingLoop
from tests.simulation.world import BASE_US

QUIET = Options(seed=1, replicas=2, span=900.0, callers=3, renewals=0.0, revocations=0.0)
STOP = re.compile(r"process \d+ is stopped for (.+) s")
DUE = re.compile(r"store activate: ACTIVE due (\d+)")


def test_all_processes_are_stopped_while_nothing_is_due_and_run_again_before_anything_happens() -> None:
    result = run(QUIET)
    lines = result.journal.lines
    stops = [(at, at + float(found[1])) for at, _, text in lines if (found := STOP.fullmatch(text))]
    ends = [(int(found[1]) - BASE_US) / 1e6 for _, _, text in lines if (found := DUE.fullmatch(text))]
    begins = [at for at, _, text in lines if text.startswith("store begin: INTENT")]
    assert result.breaches == ()
    assert ends
    assert begins
    assert len(stops) >= 4
    times = ends + begins
    assert not [at for at in times for begun, until in stops if begun < at < until + AWAKE_SECONDS - 0.1]


def test_one_of_five_seeds_waits_with_idle_processes() -> None:
    result = run(Options(seed=IDLE_EACH, replicas=2, span=900.0, callers=3))
    assert not [text for _, _, text in result.journal.lines if STOP.fullmatch(text)]


def test_the_next_timer_of_a_process_is_found_and_a_cancelled_one_is_none() -> None:
    loop = StoppingLoop()
    loop.call_at(3.0, int)
    loop.call_at(1.0, int).cancel()
    LIFE.set(loop)
    try:
        loop.call_at(2.0, int)
    finally:
        LIFE.set(None)
    assert (loop.next_of(None), loop.next_of(loop)) == (3.0, 2.0)
    assert loop.next_of("another") == float("inf")
    loop.close()


def test_the_running_loop_is_known_inside_and_no_loop_after_it() -> None:
    before = asyncio.get_running_loop, events.get_running_loop, events._get_running_loop
    loop = StoppingLoop()

    async def ask() -> list[object]:
        await asyncio.sleep(0)
        return [asyncio.get_running_loop(), events.get_running_loop(), events._get_running_loop()]

    assert loop.run_until_complete(ask()) == [loop] * 3
    loop.close()
    assert before == (asyncio.get_running_loop, events.get_running_loop, events._get_running_loop)
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
