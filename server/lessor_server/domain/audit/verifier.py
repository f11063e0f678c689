"""Verifies audit files in constant memory: is each record there, unchanged and in its place?

A forger who can write the file can write a consistent chain after the last checkpoint, but none that contains
it: only the server can sign one. A tail that is cut off is found by the last number and hash, which the
server keeps apart from the file. Records that are added at the end are found once the server goes on: by a
checkpoint that follows an earlier record than the last one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

from lessor_server.domain.audit.chain import (
    CHECKPOINT_RECORDS,
    CHECKPOINT_SECONDS,
    MAX_LINE,
    NO_HASH,
    ChainEnd,
    checkpoint_text,
    end_of,
    number_range,
    read_line,
)
from lessor_server.domain.audit.record import RecordKind, printable_text

MAX_MISSING: Final = 1_000
"""How many ranges of missing records are remembered, to find those that were only moved."""
MAX_EXPLAINED: Final = 16
"""How many torn lines are remembered that were explained: after a kill the server may explain one again."""
MAX_UNSIGNED_SECONDS: Final = 2 * CHECKPOINT_SECONDS
"""So far the times of records without a checkpoint in between may be apart. Source: ``SinkWriter`` writes one
before a record that is ``CHECKPOINT_SECONDS`` later than the first, whatever the clock does."""
REPORTED_EVENT: Final = "audit_records_missing"

_OPENING_KINDS: Final = frozenset({RecordKind.CHECKPOINT.value, RecordKind.RECOVERED.value})

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
    REPORTED = "reported"


@dataclass(frozen=True, slots=True)
class ChainFinding:
    """One finding; ``place`` is a file and the number of a line in it."""

    kind: ChainFindingKind
    problem: str
    place: str

    @property
    def is_explained(self) -> bool:
        """Return whether a record of the server explains it, so that it is not the sign of a forger."""
        return self.kind in {ChainFindingKind.GAP, ChainFindingKind.TORN, ChainFindingKind.REPORTED}

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
        is_lost = self.size == 0 and recovered.get("stream") is True
        return is_lost or _torn_of(recovered) == (self.size, self._digest.hexdigest())

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
        self._signed_at: float | None = None
        """The time of the last valid checkpoint, or of the first record after it if that is later."""
        self._recent = {self._first.seq: self._first.hash}
        """The hashes since the last valid checkpoint: the server can only go on after one of these."""
        self._explained: deque[tuple[object, object]] = deque(maxlen=MAX_EXPLAINED)
        self._needs_opening = first is None
        self._has_only_openings = True
        """Whether so far there are only records about the chain, as at the beginning of a file."""

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
        elif not self.checkpoint_seq and not self._needs_opening:
            yield self._finding(ChainFindingKind.UNSIGNED, "there is no checkpoint: no record is signed")
        if self._last is not None and not self._found_last:
            if self.end.seq < self._last.seq:
                missing = number_range(self.end.seq + 1, self._last.seq)
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
        elif is_signed and self._recent.get(seq - 1) == prev and not self._is_missing(seq):
            yield from self._leave_added(seq)
        else:
            yield from self._go_back(record)
            return
        self.end = end_of(record)
        yield from self._check_opening(record, is_signed=is_signed)
        yield from self._count(record, is_signed=is_signed)

    def _check_opening(self, record: Mapping[str, Any], *, is_signed: bool) -> Iterator[ChainFinding]:
        """Yield whether the first record is not the checkpoint that opens the first file.

        A torn line may be explained before it, and a kill between the two leaves one without ``opens``.
        """
        if not self._needs_opening or record["kind"] == RecordKind.RECOVERED.value:
            return
        self._needs_opening = False
        if not (is_signed and (record.get("opens") is True or self.records > 1)):
            problem = f"record {record['seq']} is not the signed checkpoint by which a file begins"
            yield self._finding(ChainFindingKind.UNSIGNED, problem)

    def _begin(self, record: Mapping[str, Any]) -> Iterator[ChainFinding]:
        """Check the first record: the first ever, or the one after ``first``."""
        seq, prev, expected = record["seq"], record["prev"], self._first.seq + 1
        self.first_seq = seq
        if self._bad_count and seq > expected:
            self._needs_opening, self._recent = False, {}
            yield from self._jump(seq)
            return
        yield from self._explain_bad_lines(record)
        if seq > expected:
            self._needs_opening, self._recent = False, {}  # the beginning is missing
            missing = number_range(expected, seq - 1)
            problem = (
                f"the first record here is {seq}, and {missing} are not in these files:"
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
        if kind == RecordKind.EVENT.value and record.get("event") == REPORTED_EVENT:
            yield self._reported(record)
        if kind == RecordKind.RECOVERED.value:
            yield from self._explain_torn(record)
        elif kind != RecordKind.CHECKPOINT.value and self._bad_count:
            yield self._added()  # after a torn line in an earlier file, a file begins with a checkpoint

    def _explain_torn(self, record: Mapping[str, Any]) -> Iterator[ChainFinding]:
        """Yield the torn line that a record of kind ``recovered`` explains, or that it is not there."""
        torn = next((run for run in self._bad if run.count and run.are_torn(record)), None)
        if torn is not None:
            problem = f"a torn line, which record {record['seq']} explains"
            yield self._finding(ChainFindingKind.TORN, problem, torn.place)
            self._bad = [*(run for run in self._bad if run.count and run is not torn), _BadLines()]
            self._explained.append(_torn_of(record))
            return
        is_of_older_file = self._has_only_openings and self._first.seq > 0
        if not (record.get("stream") is True or is_of_older_file or _torn_of(record) in self._explained):
            problem = f"the torn line that record {record['seq']} explains is not there"
            yield self._finding(ChainFindingKind.REMOVED, problem)

    def _reported(self, record: Mapping[str, Any]) -> ChainFinding:
        detail = record.get("detail")
        problem = printable_text(str(detail.get("problem"))) if isinstance(detail, dict) else "?"
        return self._finding(
            ChainFindingKind.REPORTED, f"the server has found, says record {record['seq']}: {problem}"
        )

    def _leave_added(self, seq: int) -> Iterator[ChainFinding]:
        """Yield the records that were added after the last one of the server, which goes on at ``seq``."""
        problem = (
            f"{number_range(seq, self.end.seq)} before this checkpoint, by which the server goes on after"
            f" record {seq - 1}"
        )
        yield self._finding(ChainFindingKind.ADDED, problem)
        if self._bad_count:
            yield self._added()

    def _gap(self, record: Mapping[str, Any]) -> ChainFinding:
        """Return how many records a gap stands for; the server writes no gap without a number."""
        count, seq = record.get("count"), record["seq"]
        if type(count) is not int or count < 1:
            return self._finding(ChainFindingKind.ADDED, f"record {seq}, a gap without a number of records")
        return self._finding(ChainFindingKind.GAP, f"{count} records were dropped before record {seq}")

    def _jump(self, seq: int) -> Iterator[ChainFinding]:
        """Yield what is wrong before a record that does not follow the last one."""
        self._recent = {}
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
                ChainFindingKind.CHANGED, number_range(expected, expected + changed - 1), self._bad[0].place
            )
        if expected + changed < seq:
            yield self._finding(ChainFindingKind.REMOVED, number_range(expected + changed, seq - 1))
            if len(self._missing) < MAX_MISSING:
                self._missing.append((expected + changed, seq - 1))
        self._bad = [_BadLines()]

    def _go_back(self, record: Mapping[str, Any]) -> Iterator[ChainFinding]:
        """Yield what a record is whose number is not greater than the last one's."""
        seq = record["seq"]
        if self._is_missing(seq):
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
        self._has_only_openings &= record["kind"] in _OPENING_KINDS
        time = _time_of(record)
        if is_signed:
            self._unsigned, self.checkpoint_seq = 0, record["seq"]
            self._recent, self._signed_at = {record["seq"]: record["hash"]}, time
            return
        self._unsigned += 1
        if len(self._recent) <= CHECKPOINT_RECORDS:
            self._recent[record["seq"]] = record["hash"]
        yield from self._count_seconds(time)
        if self._unsigned == CHECKPOINT_RECORDS + 1:
            problem = (
                f"more than {CHECKPOINT_RECORDS} records up to record {record['seq']} have no checkpoint"
            )
            yield self._finding(ChainFindingKind.UNSIGNED, problem)

    def _count_seconds(self, time: float | None) -> Iterator[ChainFinding]:
        """Yield whether a record comes too late after the first one without a checkpoint."""
        if time is None:
            return
        if self._signed_at is None or (self._unsigned == 1 and time > self._signed_at):
            self._signed_at = time
        elif time - self._signed_at > MAX_UNSIGNED_SECONDS:
            problem = f"more than {MAX_UNSIGNED_SECONDS:g} s up to record {self.end.seq} have no checkpoint"
            yield self._finding(ChainFindingKind.UNSIGNED, problem)
            self._signed_at = time

    def _is_signed(self, record: Mapping[str, Any]) -> bool:
        try:
            signature = base64.b64decode(record.get("signature", ""), validate=True)
        except (binascii.Error, TypeError, ValueError):
            return False
        return self._check_signature(signature, checkpoint_text(record["seq"], record["prev"]))

    def _is_missing(self, seq: int) -> bool:
        return any(first <= seq <= last for first, last in self._missing)

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


def _torn_of(recovered: Mapping[str, Any]) -> tuple[object, object]:
    return recovered.get("torn_bytes"), recovered.get("torn_sha256")


def _time_of(record: Mapping[str, Any]) -> float | None:
    """Return the time of a record in seconds; None if it can't be read."""
    try:
        return datetime.fromisoformat(record["time"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None
