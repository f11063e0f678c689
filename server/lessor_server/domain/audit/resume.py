"""How a sink goes on with a file that it finds: after a stop, a crash, or a change by someone else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lessor_server.domain.audit.chain import ChainEnd, end_of, read_line


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where a chain goes on, and what comes first.

    ``torn`` are bytes after the last record that are not a record: a ``recovered`` record explains them.
    ``begins``: there is no record in the file yet. ``problem`` is empty, or says what of the file is missing
    or changed.
    """

    end: ChainEnd
    torn: bytes = b""
    needs_newline: bool = False
    problem: str = ""
    begins: bool = False


def resume(tail: bytes, known: ChainEnd, start: ChainEnd | None = None) -> Resumption:
    """Return how to go on after ``tail``, the end of a file from the start of a line.

    ``known`` is the last record that is known to have been in the file, or in the one before it. If it is not
    there, the chain goes on from it nevertheless, so that the file never verifies again. ``start`` is the
    last record before this file, if known.
    """
    if not tail:
        return Resumption(known, begins=True)
    lines = tail.split(b"\n")
    needs_newline = lines[-1] != b""
    last = _find_last_record(lines)
    if last is None:
        found, torn = ChainEnd(), tail if needs_newline else tail[:-1]
    else:
        at, record = last
        found, torn = end_of(record), b"\n".join(lines[at + 1 :]).removesuffix(b"\n")
    if last is None and known == start:  # the first record of this file was torn
        return Resumption(known, torn, needs_newline, begins=True)
    problem = _problem(lines, found, known)
    if not problem:
        return Resumption(found if last is not None else known, torn, needs_newline, begins=last is None)
    if needs_newline and torn and last is not None and found.seq == known.seq - 1:
        # As after a crash, but the record was whole: the new one in its place has another hash.
        return Resumption(found, torn, needs_newline, problem)
    return Resumption(known, b"", needs_newline, problem)


def _find_last_record(lines: Sequence[bytes]) -> tuple[int, dict[str, Any]] | None:
    """Return the last line that is a record, with its index."""
    for at in range(len(lines) - 1, -1, -1):
        if lines[at] and (record := read_line(lines[at])) is not None:
            return at, record
    return None


def _problem(lines: Sequence[bytes], found: ChainEnd, known: ChainEnd) -> str:
    """Return what is wrong if a file with these lines, whose last record is ``found``, lacks ``known``."""
    if not known.seq or found == known:
        return ""
    if found.seq < known.seq:
        return f"the records {found.seq + 1} to {known.seq} are missing at its end"
    if found.seq > known.seq:
        for line in reversed(lines):
            record = read_line(line)
            if record is not None and end_of(record) == known:
                return ""
            if record is not None and (record["seq"] - 1, record["prev"]) == known:
                return ""
    return f"it does not have record {known.seq} with the hash {known.hash}"
