"""Checks that a sink never goes on after records that someone else has added to its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.audit_lines import record
from tests.support.audit_reading import findings, last_of, records, requests, serious, until
from tests.support.audit_sinks import HandClock, MemoryFile, audit_log
from tests.support.recording import Recording

from lessor_server.adapters.audit.key import AuditKey, AuditKeyBroken
from lessor_server.adapters.audit.log import AuditLog
from lessor_server.adapters.audit.targets import TAIL_BYTES, FileTarget
from lessor_server.domain.audit.chain import ChainEnd, end_of, link, read_line
from lessor_server.domain.audit.verifier import ChainFindingKind
from lessor_server.domain.events import AuditRecordsMissing

STATE = "audit-state"


def one_record(end: ChainEnd) -> bytes:
    return link(record(66).content(), end)[0]


def many_records(end: ChainEnd) -> bytes:
    lines = []
    for number in range(50):
        line, end = link(record(66 + number).content(), end)
        lines.append(line)
    return b"".join(lines)


def part_of_a_record(end: ChainEnd) -> bytes:
    return one_record(end)[:-20]


def junk(_: ChainEnd) -> bytes:
    return b"hello\n"


def blank_line(_: ChainEnd) -> bytes:
    return b"\n"


def junk_beyond_what_is_read(_: ChainEnd) -> bytes:
    return b"x" * (TAIL_BYTES + 1)


def junk_line_beyond_what_is_read(end: ChainEnd) -> bytes:
    return junk_beyond_what_is_read(end) + b"\n"


FORGERIES = [
    one_record,
    many_records,
    part_of_a_record,
    junk,
    blank_line,
    junk_beyond_what_is_read,
    junk_line_beyond_what_is_read,
]


def append(path: Path, forge: Callable[[ChainEnd], bytes]) -> int:
    """Append what somebody forges after the last record; return the number of that record."""
    last = read_line(path.read_bytes().splitlines()[-1])
    assert last is not None
    end = end_of(last)
    with path.open("ab") as file:
        file.write(forge(end))
    return end.seq


async def check_reported(folder: Path, log: AuditLog, notes: Recording, after: int) -> None:
    """Check all the places where an addition is shown."""
    (event,) = notes.of(AuditRecordsMissing)
    assert "added" in event.problem
    assert any(event.problem in one for one in log.warnings())
    await log.write(record(7))
    await until(lambda: b'"kind":"event"' in (folder / "audit.log").read_bytes())
    (noted,) = records(b"\n".join((folder / "audit.log").read_bytes().splitlines()[after:]), "event")
    assert noted["detail"]["problem"] == event.problem


def killed_state(folder: Path) -> bytes:
    """Return the state once the last write is confirmed, as a killed server leaves it."""
    content = (folder / STATE).read_bytes()
    return b"" if b'"reach"' in content else content


@pytest.mark.parametrize("forge", FORGERIES)
@pytest.mark.parametrize("is_killed", [False, True])
async def test_what_is_added_while_the_server_is_stopped_is_reported_and_never_signed(
    tmp_path: Path, forge: Callable[[ChainEnd], bytes], *, is_killed: bool
) -> None:
    path = tmp_path / "audit.log"
    async with audit_log(tmp_path, FileTarget(path), clock=HandClock()) as (log, _):
        await log.write(record(0))
        await until(lambda: bool(killed_state(tmp_path)))
        state, content = killed_state(tmp_path), path.read_bytes()
    if is_killed:
        (tmp_path / STATE).write_bytes(state)
        path.write_bytes(content)
    seq = append(path, forge)
    boot = "boot" if is_killed else "another"
    async with audit_log(tmp_path, FileTarget(path), boot=boot, clock=HandClock()) as (log, notes):
        await check_reported(tmp_path, log, notes, seq)
        end = last_of(log)
    found = serious(tmp_path, path.read_bytes(), last=end)
    assert ChainFindingKind.ADDED in {one.kind for one in found}
    if forge in (one_record, many_records):
        (finding,) = found
        assert f"record {seq} " in finding.problem + " "
        assert str(seq + 1) in finding.problem


@pytest.mark.parametrize("before", [b"", b"hello\n"])
async def test_a_last_record_that_is_there_twice_is_reported(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "audit.log"
    async with audit_log(tmp_path, FileTarget(path), clock=HandClock()) as (log, _):
        await log.write(record(0))
    content = path.read_bytes()
    path.write_bytes(content + before + content.splitlines(keepends=True)[-1])
    seq = content.count(b"\n")
    async with audit_log(tmp_path, FileTarget(path), clock=HandClock()) as (log, notes):
        await check_reported(tmp_path, log, notes, seq)


@pytest.mark.parametrize("forge", FORGERIES)
@pytest.mark.parametrize("reopens", [False, True])
async def test_what_is_added_while_the_server_runs_is_reported_and_never_signed(
    tmp_path: Path, forge: Callable[[ChainEnd], bytes], *, reopens: bool
) -> None:
    """Whether or not a SIGHUP follows."""
    path = tmp_path / "audit.log"
    async with audit_log(tmp_path, FileTarget(path), clock=HandClock()) as (log, notes):
        await log.write(record(0))
        seq = append(path, forge)
        if reopens:
            log.reopen()
        await notes.until(AuditRecordsMissing)
        await check_reported(tmp_path, log, notes, seq)
    assert ChainFindingKind.ADDED in {one.kind for one in serious(tmp_path, path.read_bytes())}
    assert requests(path.read_bytes())[-1] == "r7"


async def test_what_is_added_to_a_renamed_file_is_found(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    async with audit_log(tmp_path, FileTarget(path), clock=HandClock()) as (log, notes):
        await log.write(record(0))
        path.rename(old)
        log.reopen()
        await log.write(record(1))
        assert not notes.events
    seq = append(old, one_record)
    (found,) = serious(tmp_path, old.read_bytes(), path.read_bytes())
    assert (found.kind, found.place) == (ChainFindingKind.ADDED, "f:1")
    assert f"record {seq + 1} before" in found.problem


def cut_short(folder: Path, file: MemoryFile, keep: int, boot: str = "boot") -> None:
    """Leave of the last three records ``keep``, as a kill while they were written."""
    lines = bytes(file.content).splitlines(keepends=True)
    ends = [end_of(json.loads(line)) for line in lines]
    file.content = bytearray(b"".join(lines[: len(lines) - 3 + keep]))
    sink = {
        "written": str(ends[-4]),
        "durable": str(ends[-4]),
        "mark": "0",
        "start": str(ChainEnd()),
        "reach": str(ends[-1]),
    }
    (folder / STATE).write_text(json.dumps({"boot": boot, "sinks": {"file": sink}}))


@pytest.mark.parametrize("keep", range(4))
async def test_records_of_a_write_that_a_kill_cut_short_are_reported(tmp_path: Path, keep: int) -> None:
    """And are of the chain: they may be the server's. None and all are certain."""
    file = MemoryFile()
    async with audit_log(tmp_path, file, clock=HandClock()) as (log, _):
        for number in range(5):
            await log.write(record(number))
    cut_short(tmp_path, file, keep)
    async with audit_log(tmp_path, file, clock=HandClock()) as (log, notes):
        await log.write(record(9))
        assert len(notes.of(AuditRecordsMissing)) == (keep in (1, 2))
    listed = findings(tmp_path, file.content)
    assert [one.kind for one in listed] == [ChainFindingKind.REPORTED] * (keep in (1, 2))
    assert all("cut short" in one.problem for one in listed)


@pytest.mark.parametrize("more", [0, 1])
async def test_another_record_than_the_one_that_was_to_be_written_is_not_taken(
    tmp_path: Path, more: int
) -> None:
    file = MemoryFile()
    async with audit_log(tmp_path, file, clock=HandClock()) as (log, _):
        for number in range(5):
            await log.write(record(number))
    cut_short(tmp_path, file, 0)
    end = end_of(json.loads(bytes(file.content).splitlines()[-1]))
    for _ in range(3 + more):
        line, end = link(record(66).content(), end)
        file.content += line
    async with audit_log(tmp_path, file, clock=HandClock()) as (_, notes):
        assert "added" in notes.of(AuditRecordsMissing)[0].problem
    assert ChainFindingKind.ADDED in {one.kind for one in serious(tmp_path, file.content)}


async def test_records_that_only_the_file_has_after_a_crash_of_the_machine_are_listed(tmp_path: Path) -> None:
    """The state that the disk has may be older than the file, so they may be the server's."""
    file = MemoryFile()
    async with audit_log(tmp_path, file, clock=HandClock()) as (log, _):
        for number in range(5):
            await log.write(record(number))
    cut_short(tmp_path, file, 3)
    append_to = end_of(json.loads(bytes(file.content).splitlines()[-1]))
    file.content += many_records(append_to)
    async with audit_log(tmp_path, file, boot="another", clock=HandClock()) as (log, notes):
        (event,) = notes.of(AuditRecordsMissing)
        assert f"records {append_to.seq + 1} to {append_to.seq + 50}" in event.problem
        await log.write(record(9))
    assert [one.kind for one in findings(tmp_path, file.content)] == [ChainFindingKind.REPORTED]


async def test_a_state_that_is_gone_is_reported(tmp_path: Path) -> None:
    file = MemoryFile()
    async with audit_log(tmp_path, file) as (log, _):
        await log.write(record(0))
    (tmp_path / STATE).unlink()
    async with audit_log(tmp_path, file) as (log, notes):
        assert len(notes.of(AuditRecordsMissing)) == 1
        assert any("audit-state knows nothing" in one for one in log.warnings())
        await log.write(record(1))
    assert [one.kind for one in findings(tmp_path, file.content)] == [ChainFindingKind.REPORTED]


async def test_a_key_that_is_gone_is_not_replaced(tmp_path: Path) -> None:
    async with audit_log(tmp_path, MemoryFile()) as (log, _):
        await log.write(record(0))
    (tmp_path / "audit-key").unlink()
    with pytest.raises(AuditKeyBroken, match="is missing, but audit-state is there") as caught:
        AuditKey.load_or_make(tmp_path)
    assert "restore it from a backup" in caught.value.fix
    assert not (tmp_path / "audit-key").exists()
    (tmp_path / STATE).unlink()
    AuditKey.load_or_make(tmp_path)


async def test_a_checkpoint_comes_between_records_a_minute_apart_that_are_written_together(
    tmp_path: Path,
) -> None:
    """As after an outage of the disk, or on a machine that was suspended."""
    file = MemoryFile()
    async with audit_log(tmp_path, file, clock=HandClock()) as (log, _):
        for minute in range(10):
            log.note(record(minute * 60_000_000), has_effect=True)
        await log.write(record(600_000_000))
    kinds = [json.loads(line)["kind"] for line in file.content.splitlines()]
    assert kinds.count("checkpoint") >= 10
    assert serious(tmp_path, file.content) == []
