"""Verifies audit files in constant memory: is each record there, unchanged and in its place?

A forger who can write the file can write a consistent chain after the last checkpoint, but none that contains
it: only the server can sign one. A tail that is cut off is found by the last number and hash, which the
server keeps apart from the file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from lessor_server.domain.audit.chain import (
    CHECKPOINT_RECORDS,
    MAX_LINE,
    NO_HASH,
    ChainEnd,
    checkpoint_text,
    end_of,
    read_line,
)
from lessor_server.domain.audit.record import RecordKind

MAX_MISSING: Final = 1_000
"""How many ranges of missing records are remembered, to find those that were only moved."""

CheckSignature = Callable[[bytes, bytes], bool]
"""Returns whether the first argument is the server's signature of the second."""


class ChainFindingKind(Enum):
    """What was found."""

    CHANGED = "changed"
    REMOVED = "removed"
    ADDED = "added"
    REORDERED = "reordered"
    CUT = "cut off"
    UNSIGNED = "unsigned"
    GAP = "gap"
    TORN = "torn"


@dataclass(frozen=True, slots=True)
class ChainFinding:
    """One finding; ``place`` is a file and the number of a line in it."""

    kind: ChainFindingKind
    problem: str
    place: str

    @property
    def is_explained(self) -> bool:
        """Return whether a record of the server explains it, so that it is not the sign of a forger."""
        return self.kind in {ChainFindingKind.GAP, ChainFindingKind.TORN}

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.kind.value}: {self.problem} ({self.place})"


class _BadLines:
    """The lines of one file since the last record that are not records, as one run of bytes."""

    def __init__(self) -> None:
        self.count = self.size = 0
        self.place = ""
        self._digest = hashlib.sha256()
        self._begun = False

    def add(self, piece: bytes, place: str) -> None:
        """Add a piece of a line; ``end_line`` ends the line."""
        if not self._begun:
            self._begun = True
            if self.count:
                self._update(b"\n")
            self.place = self.place or place
            self.count += 1
        self._update(piece)

    def end_line(self) -> None:
        """End the current line."""
        self._begun = False

    def are_torn(self, recovered: Mapping[str, Any]) -> bool:
        """Return whether a record of kind ``recovered`` names exactly these bytes, or a reader lost them."""
        expected = recovered.get("torn_bytes"), recovered.get("torn_sha256")
        return self.size == 0 or expected == (self.size, self._digest.hexdigest())

    def _update(self, piece: bytes) -> None:
        self._digest.update(piece)
        self.size += len(piece)


class Verifier:
    """Takes the bytes of files in order, oldest first, and yields what it finds."""

    def __init__(
        self, check_signature: CheckSignature, last: ChainEnd | None = None, first: ChainEnd | None = None
    ) -> None:
        """Check signatures by ``check_signature``; the record ``last`` must be there.

        ``first`` is the record before the first one here, if the files with all earlier ones are gone.
        """
        self._check_signature = check_signature
        self._first = first or ChainEnd()
        self._last = last
        self._found_last = last is None or last == first
        self._buffer = bytearray()
        self._too_long = False
        self._bad = [_BadLines()]
        """A run for each file since the last record, the last one for the current file."""
        self._missing: list[tuple[int, int]] = []
        self._file, self._line = "", 0
        self.records = 0
        self.first_seq = 0
        self.end = self._first
        self.checkpoint_seq = 0
        """The number of the last valid checkpoint; 0 before the first."""
        self._unsigned = 0

    def begin_file(self, name: str) -> None:
        """Begin the next file."""
        self._file, self._line = name, 0
        if self._bad[-1].count:
            self._bad.append(_BadLines())

    def feed(self, chunk: bytes) -> Iterator[ChainFinding]:
        """Yield what is found in the next bytes of the file."""
        start = 0
        while (newline := chunk.find(b"\n", start)) >= 0:
            yield from self._end_line(chunk[start:newline])
            start = newline + 1
        self._grow(chunk[start:])

    def end_file(self) -> Iterator[ChainFinding]:
        """Yield what is found in a last line without a newline."""
        if self._buffer or self._too_long:
            yield from self._end_line(b"")

    def finish(self) -> Iterator[ChainFinding]:
        """Yield what is found at the end of the last file."""
        if self._bad_count:
            problem = f"record {self.end.seq + 1}, or it is torn, which no later record explains"
            yield self._finding(ChainFindingKind.CHANGED, problem, self._bad[0].place)
        if not self.records:
            yield self._finding(ChainFindingKind.REMOVED, "there is no record")
        if self._last is not None and not self._found_last:
            if self.end.seq < self._last.seq:
                missing = _range(self.end.seq + 1, self._last.seq)
                yield self._finding(ChainFindingKind.CUT, f"{missing} at the end")
            else:
                problem = f"record {self._last.seq} is not the one with the hash of --last"
                yield self._finding(ChainFindingKind.CHANGED, problem)

    def _grow(self, piece: bytes) -> None:
        """Take a piece of a line; a line that is too long is not kept."""
        self._buffer += piece
        if len(self._buffer) > MAX_LINE:
            self._too_long = True
            self._bad[-1].add(bytes(self._buffer), self._place(1))
            self._buffer.clear()

    def _end_line(self, rest: bytes) -> Iterator[ChainFinding]:
        self._line += 1
        line = bytes(self._buffer) + rest if self._buffer else rest
        self._buffer.clear()
        record = None if self._too_long or len(line) > MAX_LINE else read_line(line)
        self._too_long = False
        if record is None:
            self._bad[-1].add(line, self._place())
            self._bad[-1].end_line()
            return
        self.records += 1
        yield from self._follow(record)

    def _follow(self, record: Mapping[str, Any]) -> Iterator[ChainFinding]:
        """Yield what is wrong with a record after those before it."""
        kind, seq, prev = record["kind"], record["seq"], record["prev"]
        is_signed = kind == RecordKind.CHECKPOINT.value and self._is_signed(record)
        if kind == RecordKind.CHECKPOINT.value and not is_signed:
            yield self._finding(
                ChainFindingKind.CHANGED, f"the signature of checkpoint {seq} is not of this key"
            )
        if self.records == 1:
            yield from self._begin(record)
        elif seq == self.end.seq + 1 and prev == self.end.hash:
            yield from self._explain_bad_lines(record)
        elif seq > self.end.seq:
            yield from self._jump(seq)
        else:
            yield from self._go_back(record)
            return
        self.end = end_of(record)
        yield from self._count(record, is_signed=is_signed)

    def _begin(self, record: Mapping[str, Any]) -> Iterator[ChainFinding]:
        """Check the first record: the first ever, or the one after ``first``."""
        seq, prev, expected = record["seq"], record["prev"], self._first.seq + 1
        self.first_seq = seq
        if self._bad_count and seq > expected:
            yield from self._jump(seq)
            return
        yield from self._explain_bad_lines(record)
        if seq > expected:
            problem = (
                f"the first record here is {seq}, and {_range(expected, seq - 1)} are not in these files:"
                f" name the older ones too, or give --first {seq - 1}:{prev} if they were deleted on purpose"
            )
            yield self._finding(ChainFindingKind.REMOVED, problem)
        elif seq < expected:
            yield self._finding(ChainFindingKind.ADDED, f"record {seq} is not after that of --first")
        elif prev != self._first.hash:
            before = f"record {self._first.seq}" if self._first.seq else "no record"
            yield self._finding(ChainFindingKind.CHANGED, f"record {seq} does not name {before} before it")

    def _explain_bad_lines(self, record: Mapping[str, Any]) -> Iterator[ChainFinding]:
        """Yield the bad lines between two records of one chain, and what ``record`` explains."""
        kind = record["kind"]
        if kind == RecordKind.GAP.value:
            yield self._gap(record)
        if not self._bad_count or kind == RecordKind.CHECKPOINT.value:
            return  # after a torn line in an earlier file, a file begins with a checkpoint
        if kind != RecordKind.RECOVERED.value:
            yield self._added()
            return
        torn = next((run for run in self._bad if run.count and run.are_torn(record)), None)
        if torn is not None:  # otherwise it may be about what an earlier one has explained
            problem = f"a torn line, which record {record['seq']} explains"
            yield self._finding(ChainFindingKind.TORN, problem, torn.place)
            self._bad = [*(run for run in self._bad if run.count and run is not torn), _BadLines()]

    def _gap(self, record: Mapping[str, Any]) -> ChainFinding:
        """Return how many records a gap stands for; the server writes no gap without a number."""
        count, seq = record.get("count"), record["seq"]
        if type(count) is not int or count < 1:
            return self._finding(ChainFindingKind.ADDED, f"record {seq}, a gap without a number of records")
        return self._finding(ChainFindingKind.GAP, f"{count} records were dropped before record {seq}")

    def _jump(self, seq: int) -> Iterator[ChainFinding]:
        """Yield what is wrong before a record that does not follow the last one."""
        expected = self.end.seq + 1
        if seq == expected:
            problem = f"record {self.end.seq} is not the one that record {seq} names"
            yield self._finding(ChainFindingKind.CHANGED, problem)
            if self._bad_count:
                yield self._added()
            return
        changed = min(self._bad_count, seq - expected)
        if changed:
            yield self._finding(
                ChainFindingKind.CHANGED, _range(expected, expected + changed - 1), self._bad[0].place
            )
        if expected + changed < seq:
            yield self._finding(ChainFindingKind.REMOVED, _range(expected + changed, seq - 1))
            if len(self._missing) < MAX_MISSING:
                self._missing.append((expected + changed, seq - 1))
        self._bad = [_BadLines()]

    def _go_back(self, record: Mapping[str, Any]) -> Iterator[ChainFinding]:
        """Yield what a record is whose number is not greater than the last one's."""
        seq = record["seq"]
        if any(first <= seq <= last for first, last in self._missing):
            yield self._finding(ChainFindingKind.REORDERED, f"record {seq} comes after record {self.end.seq}")
        else:
            problem = f"another record with the number {seq} comes after record {self.end.seq}"
            yield self._finding(ChainFindingKind.ADDED, problem)
        if self._bad_count:
            yield self._added()
        if seq == 1 and record["prev"] == NO_HASH:
            self.end = end_of(record)  # a second chain begins

    def _count(self, record: Mapping[str, Any], *, is_signed: bool) -> Iterator[ChainFinding]:
        """Look for ``last``, and yield whether too many records come without a checkpoint."""
        if self._last is not None and self.end.seq == self._last.seq:
            self._found_last = self.end == self._last
        if is_signed:
            self._unsigned, self.checkpoint_seq = 0, record["seq"]
            return
        self._unsigned += 1
        if self._unsigned == CHECKPOINT_RECORDS + 1:
            problem = (
                f"more than {CHECKPOINT_RECORDS} records up to record {record['seq']} have no checkpoint"
            )
            yield self._finding(ChainFindingKind.UNSIGNED, problem)

    def _is_signed(self, record: Mapping[str, Any]) -> bool:
        try:
            signature = base64.b64decode(record.get("signature", ""), validate=True)
        except (binascii.Error, TypeError, ValueError):
            return False
        return self._check_signature(signature, checkpoint_text(record["seq"], record["prev"]))

    @property
    def _bad_count(self) -> int:
        return sum(run.count for run in self._bad)

    def _added(self) -> ChainFinding:
        """Return the bad lines as lines that nobody knows."""
        count = self._bad_count
        lines = "a line that is not a record" if count == 1 else f"{count} lines that are not records"
        finding = self._finding(
            ChainFindingKind.ADDED, f"{lines}, after record {self.end.seq}", self._bad[0].place
        )
        self._bad = [_BadLines()]
        return finding

    def _finding(self, kind: ChainFindingKind, problem: str, place: str = "") -> ChainFinding:
        return ChainFinding(kind, problem, place or self._place())

    def _place(self, ahead: int = 0) -> str:
        return f"{self._file}:{self._line + ahead}"


def _range(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"
