"""Checks the sinks: what they hold after failures of every kind, and what a caller waits for."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import resource
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from tests.support.audit_lines import read_independently, record
from tests.support.audit_reading import findings, last_of, records, requests, serious, until
from tests.support.audit_sinks import HandClock, MemoryFile, audit_log, public_key

from lessor_server.adapters.audit import log as audit_logs
from lessor_server.adapters.audit.targets import FileTarget, StdoutTarget
from lessor_server.domain.audit.chain import ChainEnd
from lessor_server.domain.audit.verifier import ChainFindingKind
from lessor_server.domain.errors.access import AuditUnavailable
from lessor_server.domain.events import AuditRecordsMissing, AuditSinkBack, AuditSinkFailed


async def test_a_record_is_in_the_file_when_write_returns(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    async with audit_log(tmp_path, FileTarget(path)) as (log, _):
        for number in range(5):
            await log.write(record(number))
            assert requests(path.read_bytes())[-1] == f"r{number}"
    assert path.stat().st_mode & 0o777 == 0o600
    assert serious(tmp_path, path.read_bytes()) == []
    read_independently(path.read_bytes(), public_key(tmp_path))


def test_the_name_of_a_new_file_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
    )
    for _ in range(2):
        target = FileTarget(tmp_path / "audit.log")
        target.open()
        target.close()
    assert synced == [str(tmp_path)]  # once: the second time it is not new


async def test_the_first_record_ever_names_zeros(tmp_path: Path) -> None:
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, _):
        await log.write(record(1))
    first = json.loads(file.content.splitlines()[0])
    assert (first["seq"], first["prev"], first["kind"]) == (1, "0" * 64, "checkpoint")


async def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    file = MemoryFile()
    last = ChainEnd()
    for number in range(3):
        async with audit_log(tmp_path, file) as (log, notes):
            await log.write(record(number))
            assert not notes.events
            last = last_of(log)
            assert last.hash == json.loads(file.content.splitlines()[-1])["hash"]
    assert requests(file.content) == ["r0", "r1", "r2"]
    assert serious(tmp_path, file.content, last=last) == []


async def test_the_last_record_of_a_clean_stop_is_a_checkpoint(tmp_path: Path) -> None:
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, _):
        log.note(record(1), has_effect=True)
    assert json.loads(file.content.splitlines()[-1])["kind"] == "checkpoint"


async def test_a_checkpoint_comes_after_at_most_1000_records(tmp_path: Path) -> None:
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, _):
        for number in range(2_500):
            log.note(record(number), has_effect=True)
        await log.write(record(2_500))
    lines = [json.loads(line) for line in file.content.splitlines()]
    at = [one["seq"] for one in lines if one["kind"] == "checkpoint"]
    assert max(after - before for before, after in pairwise(at)) <= 1_000
    assert requests(file.content) == [f"r{number}" for number in range(2_501)]
    assert serious(tmp_path, file.content) == []


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EFBIG, errno.EIO])
async def test_a_failed_sink_refuses_and_comes_back(tmp_path: Path, error: int) -> None:
    """Every error of the disk is one failure; what failed is written later, after a torn line."""
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, notes):
        await log.write(record(0))
        file.error, file.room = error, 30
        with pytest.raises(AuditUnavailable):
            await log.write(record(1))
        assert [one.is_last for one in notes.of(AuditSinkFailed)] == [True]
        with pytest.raises(AuditUnavailable):
            await log.write(record(2))
        assert any("file" in one for one in log.warnings())
        file.room = 1 << 60
        await notes.until(AuditSinkBack)
        assert log.works
        assert log.warnings() == []
        await log.write(record(3))
    assert requests(file.content) == ["r0", "r1", "r2", "r3"]
    assert [one.kind for one in findings(tmp_path, file.content)] == [ChainFindingKind.TORN]
    read_independently(bytes(file.content), public_key(tmp_path))


async def test_a_sink_whose_records_could_not_be_made_durable_comes_back(tmp_path: Path) -> None:
    """Also without a read in between, and as often as it happens."""
    file = MemoryFile()
    async with audit_log(tmp_path, file, sync=True) as (log, notes):
        for number in range(3):
            file.fails_to_sync = True
            with pytest.raises(AuditUnavailable):
                await log.write(record(2 * number))
            file.fails_to_sync = False
            await until(lambda: log.works)
            await log.write(record(2 * number + 1))
        assert len(notes.of(AuditSinkBack)) == 3
        (sink,) = log._sinks.values()
        assert sink.waiting == 0
    assert serious(tmp_path, file.content) == []


async def test_short_writes_are_completed(tmp_path: Path) -> None:
    file = MemoryFile()
    file.short = 17
    async with audit_log(tmp_path, file) as (log, _):
        await log.write(record(0))
    assert findings(tmp_path, file.content) == []


@pytest.mark.parametrize("seed", range(60))
async def test_no_record_is_lost_or_twice_whatever_byte_fails(tmp_path: Path, seed: int) -> None:
    """The disk fills up at any byte, several times; the chain holds and each record is there once."""
    rng = random.Random(seed)
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, notes):
        for number in range(30):
            if rng.random() < 0.3:
                file.room = rng.randrange(0, 900)
            log.note(record(number), has_effect=True)
            if rng.random() < 0.5:
                await asyncio.sleep(0)
            if not log.works:
                file.room = rng.randrange(0, 1_500)
        file.room = 1 << 60
        while not log.works or notes.of(AuditSinkFailed)[len(notes.of(AuditSinkBack)) :]:
            await notes.until(AuditSinkBack, count=len(notes.of(AuditSinkBack)) + 1)
        await log.write(record(30))
    assert requests(file.content) == [f"r{number}" for number in range(31)]
    assert serious(tmp_path, file.content) == []
    read_independently(bytes(file.content), public_key(tmp_path))


@pytest.mark.parametrize("torn", [0, 1, 2, 20, 150])
async def test_a_torn_last_line_is_followed_by_a_recovered_record(tmp_path: Path, torn: int) -> None:
    """A machine that crashed may have lost a part of what was not durable."""
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, _):
        await log.write(record(0))
    after_stop = len(file.content)
    async with audit_log(tmp_path, file) as (log, _):
        await log.write(record(1))
        crashed = bytes(file.content)
        stored = (tmp_path / "audit-state").read_bytes()
    lines = crashed[after_stop:].splitlines(keepends=True)
    file.content = bytearray(crashed[:after_stop] + lines[0] + lines[1][: len(lines[1]) - torn])
    (tmp_path / "audit-state").write_bytes(stored)
    async with audit_log(tmp_path, file, boot="after the crash") as (log, notes):
        await log.write(record(2))
        assert all("when the machine stopped" in one.problem for one in notes.of(AuditRecordsMissing))
    assert bool(records(file.content, "recovered")) is (torn > 1)
    assert serious(tmp_path, file.content) == []
    read_independently(bytes(file.content), public_key(tmp_path))


@pytest.mark.parametrize("cut", [1, 2, 3])
async def test_a_tail_cut_off_between_two_starts_is_found(tmp_path: Path, cut: int) -> None:
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, _):
        for number in range(4):
            await log.write(record(number))
    lines = file.content.splitlines(keepends=True)
    file.content = bytearray(b"".join(lines[:-cut]))
    async with audit_log(tmp_path, file) as (log, notes):
        assert notes.of(AuditRecordsMissing)
        assert any("missing" in one for one in log.warnings())
        await log.write(record(9))
        end = last_of(log)
    found = serious(tmp_path, file.content, last=end)
    assert [one.kind for one in found] == [ChainFindingKind.REMOVED]
    assert f"{len(lines)}" in found[0].problem


async def test_a_last_line_cut_in_part_between_two_starts_is_reported(tmp_path: Path) -> None:
    """It looks like a crash, so the file verifies, but the server knows that the record was whole."""
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, _):
        await log.write(record(0))
        end = last_of(log)
    file.content = file.content[:-30]
    async with audit_log(tmp_path, file) as (log, notes):
        assert notes.of(AuditRecordsMissing)
    assert serious(tmp_path, file.content) == []
    assert serious(tmp_path, file.content, last=ChainEnd(end.seq + 1, "00" * 32))


async def test_a_changed_last_record_is_found_at_the_next_start(tmp_path: Path) -> None:
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, _):
        await log.write(record(0))
    file.content = bytearray(bytes(file.content).replace(b"checkpoint", b"checkpoinT"))
    async with audit_log(tmp_path, file) as (log, notes):
        assert notes.of(AuditRecordsMissing)
        await log.write(record(1))
    assert serious(tmp_path, file.content)


async def test_a_rotated_file_is_opened_again_and_goes_on(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    async with audit_log(tmp_path, FileTarget(path), clock=HandClock()) as (log, _):
        await log.write(record(0))
        path.rename(old)
        await log.write(record(1))
        log.reopen()
        await log.write(record(2))
        end = last_of(log)
    assert requests(old.read_bytes()) == ["r0", "r1"]
    assert requests(path.read_bytes()) == ["r2"]
    first = json.loads(path.read_bytes().splitlines()[0])
    assert first["prev"] == json.loads(old.read_bytes().splitlines()[-1])["hash"]
    assert serious(tmp_path, old.read_bytes(), path.read_bytes(), last=end) == []


async def test_a_file_rotated_while_the_server_is_stopped_goes_on(tmp_path: Path) -> None:
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, _):
        await log.write(record(0))
    file.rotate()
    async with audit_log(tmp_path, file) as (log, notes):
        await log.write(record(1))
        assert not notes.events
    assert serious(tmp_path, *file.old, bytes(file.content)) == []


async def test_each_sink_has_its_own_chain_and_one_that_works_suffices(tmp_path: Path) -> None:
    good, bad = MemoryFile(), MemoryFile(room=700, name="stdout")
    async with audit_log(tmp_path, good, bad) as (log, notes):
        for number in range(8):
            await log.write(record(number))
        await notes.until(AuditSinkFailed)
        assert log.works
        assert [one.is_last for one in notes.of(AuditSinkFailed)] == [False]
        assert [one.works for one in log.statuses()] == [True, False]
        bad.room = 1 << 60
        await notes.until(AuditSinkBack)
    assert requests(good.content) == requests(bad.content) == [f"r{number}" for number in range(8)]
    assert serious(tmp_path, good.content) == serious(tmp_path, bad.content) == []


async def test_a_stuck_sink_does_not_delay_another(tmp_path: Path) -> None:
    good, stuck = MemoryFile(), MemoryFile(name="socket")
    async with audit_log(tmp_path, good, stuck) as (log, _):
        stuck.stuck.clear()
        for number in range(100):
            await log.write(record(number))
        assert len(requests(good.content)) == 100
        stuck.stuck.set()
    assert len(requests(stuck.content)) == 100


async def test_what_waits_is_bounded_and_a_gap_says_how_much_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_logs, "MAX_WAITING", 5)
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, notes):
        file.room = 0
        for number in range(12):
            log.note(record(number), has_effect=True)
        await notes.until(AuditSinkFailed)
        for number in range(12, 20):
            log.note(record(number), has_effect=True)
        file.room = 1 << 60
        await notes.until(AuditSinkBack)
        await log.write(record(20))
        await log.write(record(21))
    found = findings(tmp_path, file.content)
    assert {one.kind for one in found} == {ChainFindingKind.GAP}
    lost = sum(one["count"] for one in records(file.content, "gap"))
    kept = requests(file.content)
    assert kept[:5] == [f"r{number}" for number in range(5)]
    assert kept[-1] == "r21"
    assert len(kept) + lost == 22


async def test_a_record_that_can_not_be_written_is_counted_and_stops_no_other(tmp_path: Path) -> None:
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, notes):
        broken = record(0)
        broken.identity = 7  # type: ignore[assignment]
        await log.write(broken)
        await log.write(record(1))
        assert not notes.events
    assert [one["count"] for one in records(file.content, "gap")] == [1]
    assert requests(file.content) == ["r1"]


async def test_sync_makes_each_record_durable_before_write_returns(tmp_path: Path) -> None:
    file = MemoryFile()
    async with audit_log(tmp_path, file, sync=True) as (log, notes):
        before = file.synced
        await log.write(record(0))
        assert file.synced > before
        file.fails_to_sync = True
        with pytest.raises(AuditUnavailable):
            await log.write(record(1))
        assert not log.works
        file.fails_to_sync = False
        await notes.until(AuditSinkBack)
    assert requests(file.content) == ["r0", "r1"]
    assert serious(tmp_path, file.content) == []


async def test_without_sync_a_file_is_made_durable_now_and_then(tmp_path: Path) -> None:
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, _):
        number = 0
        while not file.synced:
            await log.write(record(number))
            number += 1


async def test_a_file_that_is_none_is_a_failed_sink(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    async with audit_log(tmp_path, FileTarget(folder)) as (log, notes):
        assert not log.works
        assert notes.of(AuditSinkFailed)
        with pytest.raises(AuditUnavailable):
            await log.write(record(0))


async def test_lines_reach_standard_output(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb") as out:
        async with audit_log(tmp_path, StdoutTarget(out.fileno())) as (log, _):
            await log.write(record(0))
    assert serious(tmp_path, path.read_bytes()) == []


async def test_a_broken_state_is_reported_and_the_file_goes_on(tmp_path: Path) -> None:
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, _):
        await log.write(record(0))
    (tmp_path / "audit-state").write_text("{")
    async with audit_log(tmp_path, file) as (log, _):
        assert log.warnings()
        await log.write(record(1))
    assert serious(tmp_path, file.content) == []


async def test_the_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    async with audit_log(tmp_path, MemoryFile()) as (log, _):
        first = log.hash_value("AKIA")
    async with audit_log(tmp_path, MemoryFile()) as (log, _):
        assert log.hash_value("AKIA") == first
        assert log.hash_value("AKIB") != first
    for name in ("audit-key", "audit-state"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "audit-key").stat().st_size == 32


async def test_a_real_file_that_may_not_grow_is_a_failed_sink_until_it_may(tmp_path: Path) -> None:
    """The system stops the write in the middle of a line (EFBIG), as a full disk does (ENOSPC)."""
    path = tmp_path / "audit.log"
    async with audit_log(tmp_path, FileTarget(path)) as (log, notes):
        await log.write(record(0))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(path.stat().st_size + 50, 4_096), hard))
        try:
            number = 1
            while log.works:
                with suppress(AuditUnavailable):
                    await log.write(record(number))
                number += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await notes.until(AuditSinkBack)
        await log.write(record(number))
    content = path.read_bytes()
    assert requests(content) == [f"r{one}" for one in range(number + 1)]
    assert serious(tmp_path, content) == []
