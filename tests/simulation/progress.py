"""Which seeds of a proof are done, in a file: a proof that was stopped goes on where it was.

The first line of the file has the version of the tree and the ranges of seeds, and each other line a chunk of
seeds that was run. A changed tree starts afresh, and so does a proof that ended.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.simulation.tally import Tally
from tests.simulation.workers import Died, Done

Range = tuple[int, int]
"""The first seed and how many there are."""

CHUNK = 50
"""Seeds a task."""

LINE_SECONDS = 60.0
ROOT = Path(__file__).resolve().parents[2]
TREE = ("server", "client", "protos", "requirements", "tests/support", "tests/simulation")


def tree_version(root: Path = ROOT) -> str:
    """Return a digest of Python's version and of each file on which a run may depend."""
    digest = hashlib.sha256(sys.version.encode())
    files = (path for part in TREE for path in (root / part).rglob("*.*"))
    for path in sorted(path for path in files if path.suffix in (".py", ".proto", ".sql", ".txt")):
        digest.update(f"\n{path.relative_to(root)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Progress:
    """The chunks that are done, and their results."""

    def __init__(self, path: Path, version: str, ranges: Iterable[Range]) -> None:
        """Go on with the file at ``path`` if it is of this version and has ranges of the same sizes.

        The first range must be the same. Where the others begin is then the file's to say.
        """
        self._path = path
        self.ranges = tuple(ranges)
        self.tally = Tally()
        self._done: set[Range] = set()
        head, *chunks = _read(path) or [{}]
        kept = tuple((first, count) for first, count in head.get("ranges", ()))
        if head.get("version") == version and _same(kept, self.ranges):
            self.ranges = kept
            for chunk in chunks:
                self._count((chunk["first"], chunk["count"]), _tally(chunk["tally"]))
        else:
            chunks = []
        _write(path, [{"version": version, "ranges": self.ranges}, *chunks])
        self.resumed = self.tally.runs
        """How many seeds an earlier run of the proof has done."""

    @property
    def total(self) -> int:
        """Return the number of all seeds."""
        return sum(count for _, count in self.ranges)

    def remaining(self) -> list[Range]:
        """Return the chunks that are not done."""
        return [chunk for each in self.ranges for chunk in _chunks(*each) if chunk not in self._done]

    def add(self, chunk: Range, tally: Tally) -> None:
        """Record a chunk that is done."""
        self._count(chunk, tally)
        line = {"first": chunk[0], "count": chunk[1], "tally": asdict(tally)}
        with self._path.open("a") as file:
            file.write(f"{json.dumps(line)}\n")

    def _count(self, chunk: Range, tally: Tally) -> None:
        self._done.add(chunk)
        self.tally += tally

    def finish(self) -> None:
        """Remove the file: the next proof begins anew."""
        self._path.unlink(missing_ok=True)


def _same(kept: tuple[Range, ...], wanted: tuple[Range, ...]) -> bool:
    """Return whether two proofs have the same first range, and others of the same sizes."""
    return kept[:1] == wanted[:1] and [count for _, count in kept] == [count for _, count in wanted]


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file; the last one may have been cut off."""
    try:
        lines = path.read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def _write(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    new.replace(path)


def _tally(fields: dict[str, Any]) -> Tally:
    return Tally(**{**fields, "faults": tuple(fields["faults"])})


def _chunks(first: int, count: int) -> Iterator[Range]:
    for start in range(first, first + count, CHUNK):
        yield start, min(CHUNK, first + count - start)


class Lines:
    """Prints a line a minute."""

    def __init__(self, clock: Callable[[], float], say: Callable[[str], None]) -> None:
        """Take the time from ``clock``, in seconds, and print by ``say``."""
        self._clock = clock
        self.say = say
        self._began = self._last = clock()

    @property
    def seconds(self) -> float:
        """Return how long there have been lines."""
        return self._clock() - self._began

    def offer(self, line: Callable[[], str]) -> None:
        """Print a line if the last one was a minute ago."""
        if self._clock() - self._last >= LINE_SECONDS:
            self._last = self._clock()
            self.say(line())


def follow(events: Iterable[Done[Tally] | Died | None], progress: Progress, lines: Lines) -> Tally:
    """Record what workers do with the chunks that remain; print breaches and deaths, and a line a minute."""
    chunks = progress.remaining()
    for event in events:
        match event:
            case Done(index, tally):
                progress.add(chunks[index], tally)
                for fault in tally.faults:
                    lines.say(f"\nFOUND {fault}")
            case Died(index):
                _report_death(event, chunks[index], progress, lines)
        lines.offer(lambda: _state(progress, lines.seconds))
    return progress.tally


def _report_death(died: Died, chunk: Range, progress: Progress, lines: Lines) -> None:
    first, count = chunk
    text = f"seeds {first} to {first + count - 1}: the process that ran them died with {died.exit_code}"
    if not died.given_up:
        lines.say(f"{text}; they run again")
        return
    again = f"--first {first} --seeds {count} --fresh 0 --seeds-only --processes 1"
    fault = f"{text}, {died.times} times; to repeat it: {again}"
    progress.add(chunk, Tally(faults=(fault,)))
    lines.say(f"\nFOUND {fault}")


def _state(progress: Progress, seconds: float) -> str:
    """Return how far the proof is."""
    done, total = progress.tally.runs, progress.total
    rate = (done - progress.resumed) / seconds
    left = f"{(total - done) / rate / 3600:.1f} h left" if rate else "none yet"
    found = len(progress.tally.faults)
    return f"{done:,} of {total:,} seeds, {rate:.1f} a second, {left}, {found} leaks and breaches"
