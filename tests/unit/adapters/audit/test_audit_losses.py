"""Checks what a sink does about a file that vanishes, and about torn lines around a rotation or a kill."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.support.audit_lines import record
from tests.support.audit_reading import findings, last_of, records, requests, serious, until
from tests.support.audit_sinks import TICK, HandClock, MemoryFile, audit_log
from tests.support.recording import Recording

from lessor_server.adapters.audit import log as audit_logs
from lessor_server.adapters.audit.key import AuditKey
from lessor_server.adapters.audit.log import AuditLog
from lessor_server.adapters.audit.state import AuditState, Position
from lessor_server.adapters.audit.targets import SEND_BUFFER, FileTarget, SocketTarget
from lessor_server.adapters.audit.writer import MOVED_SECONDS
from lessor_server.domain.audit.chain import ChainEnd
from lessor_server.domain.audit.verifier import ChainFindingKind
from lessor_server.domain.errors.access import AuditUnavailable
from lessor_server.domain.events import AuditRecordsMissing, AuditSinkBack, AuditSinkFailed


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    os.truncate(path, 0)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def move(path: Path) -> None:
    path.rename(path.with_name("moved"))


def replace(path: Path) -> None:
    """Put an edited copy in its place."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes().replace(b"r1", b"rX"))
    copy.rename(path)


@pytest.mark.parametrize("lose", [remove, empty, halve, move, replace])
async def test_a_file_that_is_lost_while_it_is_written_to_is_reported(
    tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    """In the log, in GetInfo, and by a record in the file that follows; that never verifies alone."""
    path = tmp_path / "audit.log"
    async with audit_log(tmp_path, FileTarget(path)) as (log, notes):
        for number in range(5):
            await log.write(record(number))
        before = last_of(log)
        lose(path)
        await notes.until(AuditRecordsMissing)
        await log.write(record(6))
        assert any("not as the server left it" in one for one in log.warnings())
        end = last_of(log)
        assert end.seq > before.seq
    (event,) = records(path.read_bytes(), "event")
    assert (event["event"], event["detail"]["sink"]) == ("audit_records_missing", "file")
    assert requests(path.read_bytes())[-1] == "r6"
    assert serious(tmp_path, path.read_bytes(), last=end)


async def test_a_rename_that_a_sighup_follows_is_no_loss(tmp_path: Path) -> None:
    """As by logrotate, which may make the new file itself and compress the old one."""
    path, old, clock = tmp_path / "audit.log", tmp_path / "audit.log.1", HandClock()
    async with audit_log(tmp_path, FileTarget(path), clock=clock) as (log, notes):
        await log.write(record(0))
        path.rename(old)
        path.touch(0o600)
        for number in range(1, 5):
            clock.seconds += MOVED_SECONDS / 5
            await log.write(record(number))
        log.reopen()
        await log.write(record(5))
        content = old.read_bytes()
        old.unlink()
        clock.seconds += 2 * MOVED_SECONDS
        await log.write(record(6))
        await log.write(record(7))
        assert not notes.events
        assert not log.warnings()
    assert requests(path.read_bytes()) == ["r5", "r6", "r7"]
    assert serious(tmp_path, content, path.read_bytes()) == []


async def test_a_file_removed_just_before_a_sighup_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    async with audit_log(tmp_path, FileTarget(path), clock=HandClock()) as (log, notes):
        await log.write(record(0))
        path.unlink()
        log.reopen()
        await notes.until(AuditRecordsMissing)


async def test_a_file_emptied_while_the_server_is_stopped_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    async with audit_log(tmp_path, FileTarget(path), clock=HandClock()) as (log, _):
        await log.write(record(0))
        end = last_of(log)
    path.write_bytes(b"")
    async with audit_log(tmp_path, FileTarget(path), clock=HandClock()) as (_, notes):
        (event,) = notes.of(AuditRecordsMissing)
    assert event.problem == f"emptied by someone else: records 1 to {end.seq + 1} are missing"


async def test_a_file_that_is_gone_at_a_start_may_have_been_rotated_away(tmp_path: Path) -> None:
    """The new file may get its inode."""
    path = tmp_path / "audit.log"
    for _ in range(5):
        async with audit_log(tmp_path, FileTarget(path), clock=HandClock()) as (log, notes):
            await log.write(record(0))
            assert not notes.of(AuditRecordsMissing)
        path.unlink()


async def test_a_file_emptied_while_the_disk_is_full_is_reported(tmp_path: Path) -> None:
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, notes):
        await log.write(record(0))
        file.room = 0
        with suppress(AuditUnavailable):
            await log.write(record(1))
        file.rotate()
        file.room = 1 << 60
        await notes.until(AuditSinkBack)
        assert notes.of(AuditRecordsMissing)


class MortalFile(FileTarget):
    """A file on a disk with ``room``, of a process that dies once ``life`` bytes are written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.room = self.life = 1 << 60

    @property
    def is_dead(self) -> bool:
        return self.life <= 0

    def open(self) -> bytes:
        if self.is_dead:
            raise OSError(errno.EIO, "dead")
        return super().open()

    def write(self, data: memoryview) -> int:
        fits = max(min(len(data), self.room, self.life), 0)
        if not fits:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= fits
        self.life -= fits
        return super().write(data[:fits])

    def sync(self) -> None:
        if not self.is_dead:
            super().sync()


class MortalState(AuditState):
    """The positions of a process that dies with its file, some of which are not stored in time."""

    def __init__(self, folder: Path, file: MortalFile, rng: random.Random) -> None:
        super().__init__(folder, lambda: "boot")
        self._file, self._rng = file, rng

    def put(self, sink: str, position: Position) -> None:
        is_after_write = position.reach is None  # what is stored before a write is never late
        if not self._file.is_dead and not (is_after_write and self._rng.random() < 0.5):
            super().put(sink, position)


async def play(folder: Path, rng: random.Random, rotated: list[Path], *, last: bool) -> None:
    """Run a process that writes, meets full disks and rotations, and dies anywhere unless it is the last."""
    path = folder / "audit.log"
    file = MortalFile(path)
    state = AuditState(folder, lambda: "boot") if last else MortalState(folder, file, rng)
    log = AuditLog([file], state, AuditKey.load_or_make(folder), HandClock(), Recording(), tick=TICK)
    if not last:
        file.life = rng.randrange(1, 9_000)
        file.room = rng.choice((1 << 60, rng.randrange(1, 3_000)))
    await log.start()
    for number in range(1 if last else 12):
        if rng.random() < 0.2 and path.exists() and not last:
            rotated.append(folder / f"audit.log.{len(rotated) + 1}")
            path.rename(rotated[-1])
            if rng.random() < 0.7:
                log.reopen()
        with suppress(AuditUnavailable):
            await log.write(record(number))
        if rng.random() < 0.3 and not last:
            file.room = rng.choice((1 << 60, rng.randrange(1, 2_000)))
        log._sinks["file"].writer._retry_us = 0
    await log.close()
    if not last and rng.random() < 0.5 and path.exists():
        rotated.append(folder / f"audit.log.{len(rotated) + 1}")
        path.rename(rotated[-1])


@pytest.mark.parametrize("seed", range(30))
async def test_torn_lines_are_explained_whatever_the_order_of_full_disks_kills_and_renames(
    tmp_path: Path, seed: int
) -> None:
    """Three processes die one after the other; the files in order verify after the fourth has started."""
    rng = random.Random(seed)
    rotated: list[Path] = []
    for turn in range(4):
        await play(tmp_path, rng, rotated, last=turn == 3)
    files = [*rotated, tmp_path / "audit.log"]
    assert serious(tmp_path, *(one.read_bytes() for one in files)) == []


async def test_a_torn_line_in_a_file_that_was_renamed_after_a_kill_is_explained(tmp_path: Path) -> None:
    """The new file begins with the record that explains it."""
    path, file = tmp_path / "audit.log", MortalFile(tmp_path / "audit.log")
    state = MortalState(tmp_path, file, random.Random(1))
    key = AuditKey.load_or_make(tmp_path)
    log = AuditLog([file], state, key, HandClock(), Recording(), tick=TICK)
    await log.start()
    await log.write(record(0))
    file.life = 50
    with suppress(AuditUnavailable):
        await log.write(record(1))
    await log.close()
    old = path.rename(tmp_path / "audit.log.1")
    async with audit_log(tmp_path, FileTarget(path)) as (log, notes):
        await log.write(record(2))
        assert not notes.events
    kinds = [json.loads(line)["kind"] for line in path.read_bytes().splitlines()]
    assert kinds[:2] == ["checkpoint", "recovered"]
    found = findings(tmp_path, old.read_bytes(), path.read_bytes())
    assert [one.kind for one in found] == [ChainFindingKind.TORN]
    shutil.copy(old, tmp_path / "copy")
    with (tmp_path / "copy").open("ab") as copy:
        copy.write(b"x")
    assert serious(tmp_path, (tmp_path / "copy").read_bytes(), path.read_bytes())


async def test_records_cut_off_a_file_that_was_renamed_while_stopped_are_reported(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    async with audit_log(tmp_path, FileTarget(path)) as (log, _):
        await log.write(record(0))
    path.rename(old)
    old.write_bytes(b"".join(old.read_bytes().splitlines(keepends=True)[:-1]))
    async with audit_log(tmp_path, FileTarget(path)) as (log, notes):
        assert notes.of(AuditRecordsMissing)
    assert serious(tmp_path, old.read_bytes(), path.read_bytes())


async def test_a_collector_that_reads_nothing_never_counts_as_working(tmp_path: Path) -> None:
    """Although the system takes what is written for it."""
    path = tmp_path / "collector"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(5)
        async with audit_log(tmp_path, SocketTarget(path, seconds=0.01)) as (log, _):
            assert not log.works
            with pytest.raises(AuditUnavailable):
                await log.write(record(0))


async def test_a_collector_that_stops_to_read_is_noticed_before_the_buffer_is_full(tmp_path: Path) -> None:
    path, clock = tmp_path / "collector", HandClock()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(5)
        listener.setblocking(False)
        peers: list[socket.socket] = []

        def read() -> bool:
            with suppress(BlockingIOError):
                peer, _ = listener.accept()
                peer.setblocking(False)
                peers.append(peer)
            for peer in peers:
                with suppress(BlockingIOError):
                    peer.recv(1 << 16)
            return bool(peers) and log.works

        target = SocketTarget(path)
        state, notes = AuditState(tmp_path, lambda: "boot"), Recording()
        log = AuditLog([target], state, AuditKey.load_or_make(tmp_path), clock, notes, tick=TICK)
        log._sinks["socket"].error = "not open yet"
        log._sinks["socket"].writer.start()
        await until(read)
        for number in range(8):
            log.note(record(number), has_effect=True)
            clock.seconds += 1.0
            await until(lambda: log._sinks["socket"].waiting == 0 or bool(notes.of(AuditSinkFailed)))
        await notes.until(AuditSinkFailed)
        assert target._sent < SEND_BUFFER
        assert "nothing was read" in log._sinks["socket"].error
        for peer in peers:
            peer.close()
    await log.close()


async def test_records_of_reads_never_displace_those_of_effects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no sink works: both are bounded, the order is kept, and what is dropped is counted."""
    monkeypatch.setattr(audit_logs, "MAX_WAITING", 8)
    monkeypatch.setattr(audit_logs, "MAX_OTHERS_WAITING", 3)
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, notes):
        file.room = 0
        for number in range(100):
            log.note(record(number), has_effect=number % 10 == 9)
        await notes.until(AuditSinkFailed)
        log.note(record(100), has_effect=False)
        file.room = 1 << 60
        await notes.until(AuditSinkBack)
        await log.write(record(101))
        (sink,) = log._sinks.values()
        await until(lambda: sink.is_idle)
    kept = [int(one.removeprefix("r")) for one in requests(file.content)]
    assert kept == [0, 1, 2, *range(9, 80, 10), 101]
    assert sum(one["count"] for one in records(file.content, "gap")) + len(kept) == 102
    assert serious(tmp_path, file.content) == []


@pytest.mark.parametrize("failure", ["error", "part"])
def test_a_position_that_could_not_be_stored_is_warned_of_and_stored_later(
    tmp_path: Path, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the sink writes nothing more."""
    state, position = AuditState(tmp_path, lambda: "boot"), Position(ChainEnd(7, "ab" * 32))

    def fail(descriptor: int, content: bytes, offset: int) -> int:
        if failure == "error":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(descriptor, content[:10])

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        state.put("file", position)
    assert "audit-state can't be written" in state.problem
    state.put("file", position)
    assert state.problem == ""
    state.close()
    assert AuditState(tmp_path, lambda: "boot").get("file") == position
