"""Checks that a proof goes on where it was stopped, and what it prints meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.progress import CHUNK, LINE_SECONDS, Lines, Progress, Range, follow, tree_version
from tests.simulation.tally import Tally
from tests.simulation.workers import MAX_DEATHS, Died, Done

RANGES = ((1000, 2 * CHUNK + 10), (7000, CHUNK))
CHUNKS = [(1000, CHUNK), (1000 + CHUNK, CHUNK), (1000 + 2 * CHUNK, 10), (7000, CHUNK)]
TALLY = Tally(CHUNK, 3, 2, 400, 1.5, ("seed 1001: a leak\n  its journal",))


class Paper:
    """What was printed, and a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.printed: list[str] = []
        self.lines = Lines(lambda: self.now, self.printed.append)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "build" / "seeds.jsonl"


def start(path: Path, version: str = "a", ranges: tuple[Range, ...] = RANGES) -> Progress:
    return Progress(path, version, ranges)


def test_a_new_proof_has_all_chunks_before_it(path: Path) -> None:
    progress = start(path)
    assert progress.remaining() == CHUNKS
    assert (progress.total, progress.resumed) == (3 * CHUNK + 10, 0)


def test_a_stopped_proof_goes_on_with_its_results(path: Path) -> None:
    start(path).add(CHUNKS[1], TALLY)
    progress = start(path)
    assert progress.remaining() == [CHUNKS[0], *CHUNKS[2:]]
    assert progress.tally == TALLY
    assert progress.resumed == CHUNK


def test_a_stopped_proof_keeps_its_fresh_range(path: Path) -> None:
    start(path).add(CHUNKS[3], TALLY)
    progress = start(path, ranges=(RANGES[0], (9000, CHUNK)))
    assert progress.ranges == RANGES
    assert progress.remaining() == CHUNKS[:3]


@pytest.mark.parametrize(
    ("version", "ranges"),
    [("b", RANGES), ("a", ((2000, RANGES[0][1]), RANGES[1])), ("a", (RANGES[0], (7000, 1)))],
    ids=["another tree", "another first seed", "another number of fresh seeds"],
)
def test_another_proof_starts_afresh(path: Path, version: str, ranges: tuple[Range, ...]) -> None:
    start(path).add(CHUNKS[0], TALLY)
    progress = start(path, version, ranges)
    assert (progress.tally, progress.ranges) == (Tally(), ranges)
    assert start(path, version, ranges).tally == Tally()


def test_a_proof_that_ended_starts_afresh(path: Path) -> None:
    progress = start(path)
    progress.add(CHUNKS[0], TALLY)
    progress.finish()
    assert start(path).remaining() == CHUNKS


def test_a_line_that_was_cut_off_is_run_again(path: Path) -> None:
    progress = start(path)
    progress.add(CHUNKS[0], TALLY)
    progress.add(CHUNKS[1], TALLY)
    path.write_text(path.read_text()[:-5])
    assert start(path).remaining() == CHUNKS[1:]
    start(path).add(CHUNKS[1], TALLY)
    assert start(path).remaining() == CHUNKS[2:]


def test_the_version_changes_with_each_file_that_a_run_depends_on(tmp_path: Path) -> None:
    file = tmp_path / "server" / "part.py"
    file.parent.mkdir()
    file.write_text("one")
    before = tree_version(tmp_path)
    assert tree_version(tmp_path) == before
    file.write_text("two")
    assert tree_version(tmp_path) != before
    file.write_text("one")
    (file.parent / "other.sql").touch()
    assert tree_version(tmp_path) != before


def test_a_breach_is_printed_when_it_is_found(path: Path) -> None:
    paper = Paper()
    tally = follow([Done(0, Tally(CHUNK)), Done(1, TALLY)], start(path), paper.lines)
    assert tally == Tally(CHUNK) + TALLY
    assert paper.printed == [f"\nFOUND {TALLY.faults[0]}"]


def test_a_death_is_reported_and_a_chunk_given_up_is_a_fault(path: Path) -> None:
    paper = Paper()
    tally = follow([Died(0, 1, -9), Died(0, MAX_DEATHS, -9)], start(path), paper.lines)
    first, last = paper.printed
    assert "seeds 1000 to 1049: the process that ran them died with -9; they run again" in first
    assert "--first 1000 --seeds 50 --fresh 0" in last
    assert len(tally.faults) == 1


def test_one_line_a_minute_says_how_far_it_is(path: Path) -> None:
    paper = Paper()
    start(path).add(CHUNKS[3], TALLY)

    def events() -> Iterator[Done[Tally] | None]:
        yield Done(0, Tally(CHUNK))
        paper.now += LINE_SECONDS / 2
        yield None
        paper.now += LINE_SECONDS / 2
        yield Done(1, Tally(CHUNK))
        yield None

    follow(events(), start(path), paper.lines)
    assert paper.printed == ["150 of 160 seeds, 1.7 a second, 0.0 h left, 1 leaks and breaches"]
