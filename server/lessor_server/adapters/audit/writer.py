"""Writes the records of one sink on its own thread, in groups, as one hash chain.

A full disk, an error of the disk and a short write are one failure: the sink is opened again every second,
and goes on after its last whole record. A torn line is followed by a record that names its bytes.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

from lessor_server.adapters.audit.entries import AuditClock, Entry, WriteReport
from lessor_server.adapters.audit.key import AuditKey
from lessor_server.adapters.audit.state import AuditState, Position, TornRun
from lessor_server.adapters.audit.targets import Target
from lessor_server.adapters.audit.torn import Torn
from lessor_server.domain.audit.chain import CHECKPOINT_RECORDS, CHECKPOINT_SECONDS, ChainEnd, link
from lessor_server.domain.audit.record import AuditRecord, RecordKind
from lessor_server.domain.audit.resume import Known, Resumption, resume

GROUP: Final = 256
"""The maximum number of records in one write."""
TICK_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 0.05
"""After this time without records the position is stored; while more come, each write stores its own."""
DURABLE_SECONDS: Final = 5.0
"""Without ``audit.sync`` a file is made durable this often."""
LOOK_SECONDS: Final = 1.0
"""How often it is looked whether the file is still there."""
MOVED_SECONDS: Final = 10.0
"""How long after a rename a SIGHUP may come, as from logrotate, before the rename counts as foreign."""
MAX_TORN: Final = 4
"""How many torn lines of earlier files are remembered."""


class _Item(NamedTuple):
    """A part of one write: a line with the chain's end after it, or the newline that ends a torn line."""

    data: bytes
    end: ChainEnd | None = None
    entry: Entry | None = None
    kind: RecordKind | None = None
    time_us: int = 0


class SinkWriter:
    """The thread of one sink."""

    def __init__(
        self,
        target: Target,
        state: AuditState,
        key: AuditKey,
        clock: AuditClock,
        report: Callable[[WriteReport], None],
        *,
        sync: bool = False,
        tick: float = TICK_SECONDS,
    ) -> None:
        """Write to ``target`` and ``report`` what was written, from the thread; ``sync``: durably.

        It looks every ``tick`` seconds whether something else is due.
        """
        self._tick = tick
        self.name = target.name
        self._target = target
        self._state = state
        self._key = key
        self._clock = clock
        self._report = report
        self._sync = sync
        self._queue: SimpleQueue[Sequence[Entry] | None] = SimpleQueue()
        self._backlog: deque[Entry] = deque()
        self._batches = self._settled = self._settled_others = 0
        self._written: list[Entry] = []
        self._failed: list[Entry] = []
        self._error = self._problem = ""
        self._news = False
        """Whether there is something to report."""
        self._reported = 0
        """How many entries at the head of the backlog are reported as failed."""
        self._recall(state.get(self.name))
        self._durable_us = self._unsigned_us = self._retry_us = self._looked_us = 0
        self._moved_us = 0
        self._unsigned = self._signed_us = 0
        """The time of the last checkpoint, or of the first record after it if that is later."""
        self._added = 0
        """How many bytes someone else has added to the file that is closed."""
        self._torn = Torn()
        self._needs_newline = False
        self._is_open = self._was_open = self._begins = self._stopping = self._is_stopped = False
        self._may_be_new = True
        """Whether the file that is opened next may be a new one: at the start, and after SIGHUP."""
        self._reopen = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"audit {self.name}", daemon=True)

    def _recall(self, stored: Position | None) -> None:
        """Begin where the last start has ended."""
        self._known = stored.known if stored else None
        """What is known of the file's end; None before the first open if ``audit-state`` does not say."""
        known = self._known or Known(ChainEnd(), ChainEnd())
        # What a stream has got can't be read again; the last write that has begun has most likely reached it.
        self._end = known.reach if self._target.is_stream else known.end
        stored = stored or Position()
        self._durable, self._mark = stored.durable, stored.mark
        self._start, self._earlier = stored.start, list(stored.torn)
        """The last record before this file, and what has to be explained of files before it."""

    @property
    def known_end(self) -> ChainEnd:
        """Return the end of the chain as of the last start."""
        return self._end

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, entries: Sequence[Entry]) -> None:
        """Write records soon; one report answers."""
        self._queue.put(entries)

    def reopen(self) -> None:
        """Open the target again before the next write, as after a rotation of logs."""
        self._reopen.set()

    def stop(self) -> None:
        """Write what waits, with a checkpoint, and end the thread."""
        self._queue.put(None)

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stopping:
            self._collect()
            self._work()
            self._report_news()
        try:
            if self._is_open and self._unsigned:
                self._write([self._checkpoint(self._end)])
            self._make_durable()
            self._is_stopped = self._is_open
        except OSError:
            return
        finally:
            self._store()
            self._state.sync()
            self._target.close()

    def _collect(self) -> None:
        """Take the entries that wait, or wait for some, but not longer than a tick; store the position."""
        try:
            self._take(self._queue.get(timeout=min(self._tick, IDLE_SECONDS)))
        except Empty:
            self._store()
            try:
                self._take(self._queue.get(timeout=self._tick))
            except Empty:
                return

    def _take(self, entries: Sequence[Entry] | None) -> None:
        """Take some entries, and all others that wait."""
        while True:
            if entries is None:
                self._stopping = True
            else:
                self._backlog.extend(entries)
                self._batches += 1
            if self._queue.empty():  # no other thread takes from it
                return
            entries = self._queue.get_nowait()

    def _work(self) -> None:
        """Write the backlog; after a failure only once it is time for the next attempt."""
        now = self._clock.boot_us()
        if now < self._retry_us and not self._stopping:
            self._fail_backlog()
            return
        try:
            if self._is_open:
                self._added = self._target.count_added()
            if self._reopen.is_set():
                self._rotate()
            elif self._added:
                self._close()
            if not self._is_open:
                self._open()
            while self._backlog:
                self._write_group()
            self._maintain(now)
            self._news = self._news or bool(self._error)
            self._error = ""
        except Exception as error:  # noqa: BLE001 - the thread goes on: the sink is tried again
            self._retry_us = now + int(RETRY_SECONDS * 1e6)
            self._close()
            self._error = _text(error)
            self._news = True
            self._fail_backlog()

    def _fail_backlog(self) -> None:
        """Have the entries reported that are not reported yet."""
        self._failed += (self._backlog[at] for at in range(self._reported, len(self._backlog)))
        self._reported = len(self._backlog)

    def _report_news(self) -> None:
        """Report what has happened since the last report, if anything has."""
        if self._batches or self._written or self._failed or self._news:
            self._report(
                WriteReport(
                    self.name,
                    self._batches,
                    self._written,
                    self._failed,
                    self._settled,
                    self._settled_others,
                    self._end,
                    self._error,
                    self._problem,
                )
            )
            self._batches = self._settled = self._settled_others = 0
            self._written, self._failed, self._problem, self._news = [], [], "", False

    def _rotate(self) -> None:
        """Close the target, whose file may be replaced."""
        self._reopen.clear()
        if self._is_open:
            self._problem = self._target.find_loss(self._clock.boot_us()) or self._problem
        self._close()
        self._may_be_new = True

    def _open(self) -> None:
        """Open the target, find where the chain goes on, and write a checkpoint."""
        found = self._resume(self._target.open())
        before, self._end, self._begins = self._end, found.end, found.begins
        if self._target.is_stream:
            self._start = self._end
        else:
            self._set_torn(found)
            if found.begins and before not in (ChainEnd(), self._start) and not self._may_be_new:
                self._problem = self._problem or "it was removed or emptied while it could not be written to"
            self._start = self._end if found.begins else self._start
        self._is_open = self._was_open = True
        self._mark = self._target.mark
        self._problem = self._problem or found.problem or _added_text(self._added)
        self._added = 0
        items = self._first_items()
        self._intend(items)
        self._state.sync()  # otherwise a crash of the machine could leave the state of the last stop
        self._write(items)
        self._target.confirm()
        self._may_be_new = False
        self._retry_us = self._moved_us = 0
        self._news = True

    def _resume(self, tail: bytes) -> Resumption:
        """Return how to go on with a target that was opened.

        A new file goes on where the one before ends, which may have been renamed, also after a kill.
        """
        if not tail and self._mark not in ("", self._target.mark):
            before = self._target.read_renamed(self._mark)
            if before:
                renamed = resume(before, self._known, self._start)
                self._torn = Torn(renamed.torn)
                return Resumption(renamed.end, problem=renamed.problem, begins=True)
        if self._target.is_stream:
            return Resumption(self._end, begins=True)
        is_same = not self._was_open and not self._target.is_new and self._mark == self._target.mark
        return resume(tail, self._known, self._start, is_same=is_same)

    def _set_torn(self, found: Resumption) -> None:
        """Set what has to be explained: the torn line of this file, and of that before it."""
        is_fresh = found.begins and not (found.torn or found.needs_newline)
        if is_fresh and self._torn.size:
            self._earlier = [*self._earlier, self._torn.run][-MAX_TORN:]
        self._torn, self._needs_newline = Torn(found.torn), found.needs_newline

    def _close(self) -> None:
        self._is_open = False
        self._target.close()

    def _store(self) -> None:
        """Store the position, once it is known."""
        if self._known is None or not self._was_open:
            return
        position = Position(
            self._end,
            self._durable,
            self._mark,
            self._start,
            tuple(self._earlier),
            None if self._known.is_exact else self._known.reach,
            self._is_stopped,
        )
        self._state.put(self.name, position)

    def _intend(self, items: Sequence[_Item]) -> None:
        """Store what the next write may add, before it: nothing else can be in the file after a kill."""
        self._known = Known(self._end, items[-1].end or self._end)
        self._store()

    def _first_items(self) -> list[_Item]:
        """Return what comes first after an open: a checkpoint, and what explains torn lines."""
        items = [_Item(b"\n")] if self._needs_newline else []
        end = self._end

        def add(item: _Item) -> None:
            nonlocal end
            items.append(item)
            end = item.end or end

        if self._torn.size:  # before any other record, which may be torn too
            add(self._recovered(self._torn.run, end))
        if self._begins:
            add(self._checkpoint(end, opens=True))
        for run in self._earlier:
            add(self._recovered(run, end))
        if not self._begins:
            add(self._checkpoint(end))
        return items

    def _recovered(self, run: TornRun, end: ChainEnd) -> _Item:
        """Return the record that explains a torn line."""
        content: dict[str, Any] = {"torn_bytes": run.size, "torn_sha256": run.sha256}
        is_lost = {"stream": True} if self._target.is_stream else {}  # its reader may have lost them
        return self._own(RecordKind.RECOVERED, content | is_lost, end)

    def _write_group(self) -> None:
        """Write the next entries, with a checkpoint where one is due."""
        items, end, unsigned, signed_us = [], self._end, self._unsigned, self._signed_us
        for entry in islice(self._backlog, GROUP):
            record = entry.record
            time_us = record.time_us
            if unsigned >= CHECKPOINT_RECORDS - 1 or (
                unsigned and time_us - signed_us >= CHECKPOINT_SECONDS * 1e6
            ):
                items.append(self._checkpoint(end))
                end, unsigned, signed_us = items[-1].end or end, 0, items[-1].time_us
            line, end = record.link(end)
            items.append(_Item(line, end, entry, record.kind, time_us))
            signed_us = signed_us if unsigned else max(signed_us, time_us)
            unsigned += 1
        self._write(items)

    def _write(self, items: Sequence[_Item]) -> None:
        """Write lines as one, and have the entries reported; raise ``OSError`` if not all are written."""
        self._intend(items)
        sent, error = self._send(memoryview(b"".join([item.data for item in items])))
        written = self._account(items, sent)
        self._known = Known(self._end, self._end if error is None else items[-1].end or self._end)
        effects = sum([entry.has_effect for entry in written])
        self._settled += effects
        self._settled_others += len(written) - effects
        failed: list[Entry] = []
        if error is None and self._sync:
            try:
                self._target.sync()
                self._durable = self._end
            except OSError as raised:  # they are in the file, but may be lost: nobody may rely on them
                error, written, failed = raised, [], written
        self._written += written
        self._failed += failed
        if error is not None:
            raise error

    def _send(self, data: memoryview) -> tuple[int, OSError | None]:
        """Return how many bytes were written, and the error that prevented the rest."""
        sent = 0
        try:
            while sent < len(data):
                count = self._target.write(data[sent:])
                if count <= 0:
                    return sent, OSError(errno.EIO, "nothing was written")
                sent += count
        except OSError as error:
            return sent, error
        return sent, None

    def _account(self, items: Sequence[_Item], sent: int) -> list[Entry]:
        """Move the chain to the last whole line of the first ``sent`` bytes; return its entries."""
        written = [item.entry for item in items if item.entry is not None]
        if len(written) == len(items) and sent == sum([len(item.data) for item in items]):
            self._settle_all(items)  # nearly every write
            return written
        written = []
        for item in items:
            if sent <= 0:
                break
            size = len(item.data)
            if item.end is None:
                self._needs_newline = False
                self._torn.end_line()
            elif sent < size - 1:
                self._torn.add(item.data[:sent])
                self._needs_newline = True
            else:
                self._needs_newline = sent < size  # a record may lack its newline alone
                self._settle(item)
                if item.entry is not None:
                    written.append(item.entry)
            sent -= size
        return written

    def _settle_all(self, items: Sequence[_Item]) -> None:
        """Move the chain past lines that are all of entries."""
        if not self._unsigned:
            self._unsigned_us = self._clock.boot_us()
            self._signed_us = max(self._signed_us, items[0].time_us)
        self._unsigned += len(items)
        self._end = items[-1].end or self._end
        for _ in items:
            self._backlog.popleft()
        self._reported = max(0, self._reported - len(items))

    def _settle(self, item: _Item) -> None:
        """Move the chain past one line."""
        assert item.end is not None
        self._end = item.end
        if item.kind is RecordKind.RECOVERED and self._torn.size:
            self._torn = Torn()
        elif item.kind is RecordKind.RECOVERED:
            self._earlier.pop(0)
        if item.kind is RecordKind.CHECKPOINT:
            self._unsigned, self._signed_us = 0, item.time_us
        else:
            self._unsigned += 1
            if self._unsigned == 1:
                self._unsigned_us, self._signed_us = self._clock.boot_us(), max(self._signed_us, item.time_us)
        if item.entry is not None:
            self._backlog.popleft()
            self._reported = max(0, self._reported - 1)

    def _maintain(self, now: int) -> None:
        """Write a checkpoint if one is due, make the file durable, and look after it."""
        if self._unsigned and now - self._unsigned_us >= CHECKPOINT_SECONDS * 1e6:
            self._write([self._checkpoint(self._end)])
        if self._end != self._durable and now - self._durable_us >= DURABLE_SECONDS * 1e6:
            self._make_durable()
            self._durable_us = now
        if now - self._looked_us >= LOOK_SECONDS * 1e6:
            self._looked_us = now
            self._look(now)

    def _look(self, now: int) -> None:
        """Notice a file that was removed or cut, or renamed without a SIGHUP; go on with a new one."""
        loss = self._target.find_loss(now)
        if not loss and self._target.has_moved():
            self._moved_us = self._moved_us or now
            if now - self._moved_us >= MOVED_SECONDS * 1e6:
                loss = "it was renamed or replaced while it was written to, and no SIGHUP came"
        elif not loss:
            self._moved_us = 0
        if loss:
            self._problem = loss
            self._close()
            self._may_be_new = True
            self._open()

    def _make_durable(self) -> None:
        if self._is_open:
            self._target.sync()
            self._durable = self._end
            self._store()

    def _checkpoint(self, end: ChainEnd, *, opens: bool = False) -> _Item:
        """Return a checkpoint; with ``opens`` as the first record of a file."""
        content: dict[str, Any] = {"signature": self._key.sign_checkpoint(end.seq + 1, end.hash)}
        return self._own(RecordKind.CHECKPOINT, {**content, "opens": True} if opens else content, end)

    def _own(self, kind: RecordKind, content: dict[str, Any], end: ChainEnd) -> _Item:
        """Return a record about the chain itself."""
        record = AuditRecord(kind=kind, time_us=self._clock.wall_us())
        line, after = link({**record.content(), **content}, end)
        return _Item(line, after, None, kind, record.time_us)


def _added_text(count: int) -> str:
    return f"added by someone else while it was written to: {count} bytes" if count else ""


def _text(error: Exception) -> str:
    """Return the text of an error, which is never empty."""
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or str(error) or type(error).__name__
