"""How a sink goes on with a file that it finds: after a stop, a crash, or a change by someone else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lessor_server.domain.audit.chain import ChainEnd, end_of, number_range, read_line

UNKNOWN_FILE = "audit-state knows nothing of it: whether records were cut off or added before is unknown"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the end of a file, or of the one before it.

    ``end`` is the last record that is certainly there, and ``reach`` the last one of the write that may have
    been cut short: the same if there was none. ``lost`` is None, or after a crash of the machine the last
    record that was written, perhaps not durably; then the file may also be newer than this.
    """

    end: ChainEnd
    reach: ChainEnd
    lost: ChainEnd | None = None

    @property
    def is_exact(self) -> bool:
        """Return whether nothing can follow ``end``."""
        return self.reach == self.end and self.lost is None


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where a chain goes on, and what comes first.

    ``torn`` are bytes after the last record that are not a record: a ``recovered`` record explains them.
    ``begins``: there is no record in the file yet. ``problem`` is empty, or says what of the file is missing,
    changed, added or not certain.
    """

    end: ChainEnd
    torn: bytes = b""
    needs_newline: bool = False
    problem: str = ""
    begins: bool = False


def resume(
    tail: bytes, known: Known | None, start: ChainEnd | None = None, *, is_same: bool = False
) -> Resumption:
    """Return how to go on after ``tail``, the end of a file from the start of a line.

    ``known`` is None if nothing is. If a record that it names is not there, or others follow that the server
    has not written, the chain goes on from the server's own end nevertheless, so that the file never verifies
    again. ``start`` is the last record before this file, if known. ``is_same`` says that the server has
    written to this very file before it stopped.
    """
    if not tail:
        return _begin(known, start, is_same=is_same)
    lines = tail.split(b"\n")
    needs_newline = lines[-1] != b""
    last = _find_last_record(lines)
    if last is None:
        found, rest = ChainEnd(), tail
    else:
        at, record = last
        found, rest = end_of(record), b"\n".join(lines[at + 1 :])
    torn = rest.removesuffix(b"\n")
    if known is None:
        return Resumption(found, torn, needs_newline, UNKNOWN_FILE if last else "", begins=last is None)
    if last is None and known.end in (start, ChainEnd()):  # the first record of this file was torn
        return Resumption(known.end, torn, needs_newline, begins=True)
    if last is None:
        problem = f"added at its end by someone else, or replaced: {len(tail)} bytes without a record"
        return Resumption(known.end, b"", needs_newline, problem)
    problem = _find_missing(lines, found, known.end)
    if problem:
        if needs_newline and torn and found.seq == known.end.seq - 1:
            # As after a crash, but the record was whole: the new one in its place has another hash.
            return Resumption(found, torn, needs_newline, problem)
        return Resumption(known.end, b"", needs_newline, problem)
    if tail.count(f'"hash":"{found.hash}"'.encode()) > 1:
        problem = f"added at its end by someone else: record {found.seq} a second time"
        return Resumption(known.end, b"", needs_newline, problem)
    end, problem = _find_end(lines, found, known)
    if end == found and not (rest and (known.is_exact or end == known.reach != known.end)):
        return Resumption(end, torn, needs_newline, problem)
    problem = problem or f"added at its end by someone else: {len(rest)} bytes after record {end.seq}"
    return Resumption(end, b"", needs_newline, problem)


def _begin(known: Known | None, start: ChainEnd | None, *, is_same: bool) -> Resumption:
    """Return how to go on with an empty file."""
    if known is None:
        return Resumption(ChainEnd(), begins=True)
    problem = ""
    if is_same and start is not None and start.seq < known.end.seq:
        problem = f"emptied by someone else: {number_range(start.seq + 1, known.end.seq)} are missing"
    return Resumption(known.end, problem=problem, begins=True)


def _find_last_record(lines: Sequence[bytes]) -> tuple[int, dict[str, Any]] | None:
    """Return the last line that is a record, with its index."""
    for at in range(len(lines) - 1, -1, -1):
        if lines[at] and (record := read_line(lines[at])) is not None:
            return at, record
    return None


def _find_missing(lines: Sequence[bytes], found: ChainEnd, known: ChainEnd) -> str:
    """Return what is wrong if a file with these lines, whose last record is ``found``, lacks ``known``."""
    if found == known:
        return ""
    if found.seq < known.seq:
        return f"missing at its end: {number_range(found.seq + 1, known.seq)}"
    if found.seq > known.seq and _have(lines, known):
        return ""
    return f"it does not have record {known.seq} with the hash {known.hash}"


def _find_end(lines: Sequence[bytes], found: ChainEnd, known: Known) -> tuple[ChainEnd, str]:
    """Return the last record of the server in a file that has ``known.end``, and what is wrong after it."""
    if known.lost is not None:
        return found, _find_uncertain(lines, found, known, known.lost)
    if found.seq >= known.reach.seq and _have(lines, known.reach):
        own = known.reach
    elif known.end.seq < found.seq < known.reach.seq:
        cut = number_range(known.end.seq + 1, found.seq)
        return found, f"left by a write that was cut short, and so not certain: {cut}"
    else:
        own = known.end
    if found == own:
        return own, ""
    return own, f"added at its end by someone else: {number_range(own.seq + 1, found.seq)}"


def _find_uncertain(lines: Sequence[bytes], found: ChainEnd, known: Known, lost: ChainEnd) -> str:
    """Return which records a crash of the machine has lost, or leaves uncertain."""
    if found.seq < lost.seq:
        return f"lost when the machine stopped: {number_range(found.seq + 1, lost.seq)}"
    certain = max(
        (one for one in (known.end, lost, known.reach) if _have(lines, one)), key=lambda one: one.seq
    )
    if found == certain:
        return ""
    uncertain = number_range(certain.seq + 1, found.seq)
    return f"not certain since the machine stopped, perhaps added by someone else: {uncertain}"


def _have(lines: Sequence[bytes], end: ChainEnd) -> bool:
    """Return whether lines have a record, or begin after it."""
    for line in reversed(lines):
        record = read_line(line)
        if record is not None and end in (end_of(record), (record["seq"] - 1, record["prev"])):
            return True
    return False
