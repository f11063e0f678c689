"""Gives audit records to the threads of the sinks, and knows which sinks work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NoReturn

from lessor_server.adapters.audit.entries import AuditClock, Entry, WriteReport
from lessor_server.adapters.audit.key import AuditKey
from lessor_server.adapters.audit.state import AuditState
from lessor_server.adapters.audit.targets import Target
from lessor_server.adapters.audit.writer import TICK_SECONDS, SinkWriter
from lessor_server.adapters.idle import IdleCall
from lessor_server.domain.audit.event_record import event_record
from lessor_server.domain.audit.record import AuditRecord, EncodedRecord, RecordKind, SinkStatus
from lessor_server.domain.errors.access import AuditUnavailable
from lessor_server.domain.events import AuditRecordsMissing, AuditSinkBack, AuditSinkFailed, Event

MAX_WAITING: Final = 10_000
"""Records about effects that wait for one sink; a ``gap`` record says how many more there were."""
MAX_OTHERS_WAITING: Final = 5_000
"""Records of reads and refusals that wait for one sink. Callers can cause any number of them while no sink
works, so they have places of their own."""
WRITE_SECONDS: Final = 2.0
"""A sink that has not written a record for so long counts as failed."""
STOP_SECONDS: Final = 2.0
GATHER_SECONDS_PER_RECORD: Final = 0.000_5
MAX_GATHER_SECONDS: Final = 0.005
"""How long records gather if the loop is busy, by the number of records in the last batch: a batch costs two
changes of threads."""


class _Sink:
    """The loop's side of one sink."""

    def __init__(self, writer: SinkWriter) -> None:
        self.writer = writer
        self.name = writer.name
        self.end = writer.known_end
        self.error = ""
        self.problem = ""
        self.waiting = self.others_waiting = 0
        """How many records about effects wait, and how many others."""
        self.dropped = 0
        self.progress_at = 0.0
        """When it last wrote something, or got something after it had nothing to write."""
        self.is_new = True
        self._pending: list[Entry] = []
        self._batches = 0
        """How many batches the thread has not answered: at most one, so that records gather meanwhile."""
        self._gathering = IdleCall(self._send)
        self._last_size = 1
        """How many records the last batch had."""

    @property
    def is_idle(self) -> bool:
        """Return whether nothing waits."""
        return not (self.waiting or self.others_waiting)

    def put(self, entry: Entry, now: float) -> bool:
        """Hand over an entry; False if too many wait, and it was only counted."""
        if not self._has_room(has_effect=entry.has_effect):
            self.dropped += 1
            return False
        if self.dropped and not self.error:
            self.put_gap(entry.record.time_us)
        self._put(entry, now)
        return True

    def put_gap(self, time_us: int) -> None:
        """Hand over the number of dropped records, if there are any and there is room for it."""
        if self.dropped and self._has_room(has_effect=False):
            gap = AuditRecord(kind=RecordKind.GAP, time_us=time_us, count=self.dropped)
            self.dropped = 0
            self._put(Entry(gap.encode(), has_effect=False), self.progress_at)

    def _has_room(self, *, has_effect: bool) -> bool:
        return self.waiting < MAX_WAITING if has_effect else self.others_waiting < MAX_OTHERS_WAITING

    def _put(self, entry: Entry, now: float) -> None:
        if self.is_idle:
            self.progress_at = now
        if entry.has_effect:
            self.waiting += 1
        else:
            self.others_waiting += 1
        self._pending.append(entry)
        if len(self._pending) == 1 and not self._batches:
            self._gather()

    def _gather(self) -> None:
        """Hand over what gathers, soon."""
        self._gathering.begin(min(GATHER_SECONDS_PER_RECORD * self._last_size, MAX_GATHER_SECONDS))

    def _send(self) -> None:
        if not self._batches:
            self.flush()

    def flush(self) -> None:
        """Hand the records that have gathered to the thread."""
        if self._pending:
            self._batches += 1
            self._last_size = len(self._pending)
            self.writer.put(self._pending)
            self._pending = []

    def answered(self, batches: int) -> None:
        """Hand over what has gathered, once the thread has answered."""
        self._batches -= batches
        if self._pending:
            self._gather()


class AuditLog:
    """All sinks of a server; every method but the threads' reports is called on the loop."""

    def __init__(
        self,
        targets: Sequence[Target],
        state: AuditState,
        key: AuditKey,
        clock: AuditClock,
        notify: Callable[[Event], None],
        *,
        sync: bool = False,
        tick: float = TICK_SECONDS,
    ) -> None:
        """Write to ``targets``, at least one; events of sinks go to ``notify``.

        With ``sync`` a record counts as written once it is durable. See ``SinkWriter`` for ``tick``.
        """
        self._loop = asyncio.get_running_loop()
        self._state = state
        self._clock = clock
        self._notify = notify
        self.hash_value = key.hash_value
        self._sinks = {
            target.name: _Sink(SinkWriter(target, state, key, clock, self._post, sync=sync, tick=tick))
            for target in targets
        }
        self._opened = asyncio.Event()
        self._awaited: set[Entry] = set()

    @property
    def works(self) -> bool:
        """Return whether at least one sink can be written to."""
        return any(not sink.error for sink in self._sinks.values())

    def statuses(self) -> list[SinkStatus]:
        """Return the status of each sink, for GetInfo."""
        return [
            SinkStatus(one.name, not one.error, one.end.seq, one.end.hash) for one in self._sinks.values()
        ]

    def warnings(self) -> list[str]:
        """Return the current problems, for GetInfo."""
        found = [self._state.problem] if self._state.problem else []
        for sink in self._sinks.values():
            if sink.error:
                found.append(f"the audit sink {sink.name} can't be written to: {sink.error}")
            if sink.problem:
                found.append(f"the audit file is not as the server left it: {sink.problem}")
        return found

    async def start(self) -> None:
        """Start the threads, and wait until each sink has answered, or for 2 s."""
        for sink in self._sinks.values():
            sink.writer.start()
        with suppress(TimeoutError):
            async with asyncio.timeout(WRITE_SECONDS):
                await self._opened.wait()

    async def write(self, record: AuditRecord) -> None:
        """Write a record, and wait until one sink has it; raise ``AuditUnavailable`` if none works."""
        future: asyncio.Future[None] = self._loop.create_future()
        entry, now = Entry(_encode(record), has_effect=True), self._loop.time()
        for sink in self._sinks.values():
            if sink.put(entry, now) and not sink.error:
                entry.waiting.add(sink.name)
        if not entry.waiting:
            raise AuditUnavailable
        entry.future = future
        self._awaited.add(entry)
        try:
            await future
        finally:
            self._awaited.discard(entry)

    def note(self, record: AuditRecord, *, has_effect: bool) -> None:
        """Write a record soon; it waits in memory while a sink does not work.

        Without an effect, as of a read or a refusal, it never takes the place of one with an effect.
        """
        entry, now = Entry(_encode(record), has_effect=has_effect), self._loop.time()
        for sink in self._sinks.values():
            sink.put(entry, now)

    def reopen(self) -> None:
        """Open the sinks again, as after a rotation of logs."""
        for sink in self._sinks.values():
            sink.writer.reopen()

    async def run(self) -> NoReturn:
        """Notice sinks that do not answer, until cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS / 2)
            now = self._loop.time()
            for sink in self._sinks.values():
                if not sink.is_idle and now - sink.progress_at > WRITE_SECONDS and not sink.error:
                    self._set_error(sink, f"it has not answered for {WRITE_SECONDS:g} s")
                    self._fail(sink, list(self._awaited))

    async def close(self) -> None:
        """Write what waits, with a checkpoint; give up after 2 s."""
        for sink in self._sinks.values():
            sink.flush()
            sink.writer.stop()
        async with asyncio.TaskGroup() as group:
            for sink in self._sinks.values():
                group.create_task(asyncio.to_thread(sink.writer.join, STOP_SECONDS))
        self._state.close()

    def _post(self, report: WriteReport) -> None:
        """Take a report to the loop; called by the threads."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._take, report)

    def _take(self, report: WriteReport) -> None:
        """Settle the entries of a report."""
        sink = self._sinks[report.sink]
        sink.end, sink.progress_at = report.end, self._loop.time()
        sink.waiting -= report.settled
        sink.others_waiting -= report.settled_others
        sink.answered(report.batches)
        if report.problem:
            sink.problem = report.problem
            self._report_missing(AuditRecordsMissing(sink.name, report.problem))
        for entry in report.written:
            if entry.future is not None and not entry.future.done():
                entry.future.set_result(None)
        self._fail(sink, report.failed)
        self._set_error(sink, report.error)
        if not report.error:
            sink.put_gap(self._clock.wall_us())
        sink.is_new = False
        if not any(one.is_new for one in self._sinks.values()):
            self._opened.set()

    def _report_missing(self, event: AuditRecordsMissing) -> None:
        """Report records that are missing, also in the audit itself."""
        self._notify(event)
        record = event_record(event, self._clock.wall_us(), self.hash_value)
        assert record is not None
        self.note(record, has_effect=True)

    def _fail(self, sink: _Sink, entries: Sequence[Entry]) -> None:
        """Raise ``AuditUnavailable`` where no other sink may still write a record."""
        for entry in entries:
            entry.waiting.discard(sink.name)
            if entry.future is not None and not entry.waiting and not entry.future.done():
                entry.future.set_exception(AuditUnavailable())

    def _set_error(self, sink: _Sink, error: str) -> None:
        """Remember why a sink does not work, and report a change."""
        before, sink.error = sink.error, error
        if error and not before:
            self._notify(AuditSinkFailed(sink.name, error, is_last=not self.works))
        elif before and not error:
            self._notify(AuditSinkBack(sink.name))


def _encode(record: AuditRecord) -> EncodedRecord:
    """Return a record as JSON, once for all sinks; one that can't be written is counted as a gap."""
    try:
        return record.encode()
    except (ValueError, TypeError, AttributeError):
        return AuditRecord(kind=RecordKind.GAP, time_us=record.time_us, count=1).encode()
