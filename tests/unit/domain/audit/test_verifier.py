"""Checks what the verifier finds in files that were changed by hand."""

from __future__ import annotations

import hashlib
import json
import random

import pytest

from lessor_server.adapters.audit.key import PublicKey
from lessor_server.domain.audit.chain import MAX_LINE, ChainEnd, link, read_line
from lessor_server.domain.audit.verifier import ChainFinding, ChainFindingKind, Verifier
from tests.support.audit_lines import PUBLIC, chain_of, last_of, read_independently, record, signed

COUNT = 23
LINES = chain_of(COUNT)
LAST = last_of(LINES)
AFTER_CHECKPOINT = 80_000_000
"""So many seconds after the first record a record is later than the checkpoints of the tests."""


def verify(
    *files: bytes, last: ChainEnd | None = None, first: ChainEnd | None = None, chunk: int = 1 << 16
) -> list[ChainFinding]:
    """Return all findings."""
    verifier = Verifier(PublicKey(PUBLIC).check, last, first)
    found: list[ChainFinding] = []
    for number, content in enumerate(files):
        verifier.begin_file(f"file{number}")
        for at in range(0, len(content), chunk):
            found += verifier.feed(content[at : at + chunk])
        found += verifier.end_file()
    return [*found, *verifier.finish()]


def serious(*files: bytes, last: ChainEnd | None = None, first: ChainEnd | None = None) -> list[ChainFinding]:
    """Return the findings that no record explains."""
    return [one for one in verify(*files, last=last, first=first) if not one.is_explained]


def kinds(found: list[ChainFinding]) -> set[ChainFindingKind]:
    """Return the kinds of findings."""
    return {one.kind for one in found}


def test_an_intact_file_has_no_findings() -> None:
    assert verify(b"".join(LINES), last=LAST) == []


def test_another_reading_of_the_chain_agrees() -> None:
    assert [one["seq"] for one in read_independently(b"".join(LINES), PUBLIC)] == list(range(1, COUNT + 1))


@pytest.mark.parametrize("chunk", [1, 7, 100, 4096])
def test_the_size_of_chunks_makes_no_difference(chunk: int) -> None:
    content = b"".join(LINES[:10]) + b"x" + b"".join(LINES[10:])
    assert list(map(str, verify(content, chunk=chunk))) == list(map(str, verify(content)))


def test_an_edited_record_is_found_with_its_number() -> None:
    """The text of each record in turn is changed, without its hash."""
    for at in range(COUNT):
        edited = [*LINES]
        edited[at] = edited[at].replace(b'"kind":"', b'"kind":"x')
        found = serious(b"".join(edited))
        assert found, at
        assert any(f"record {at + 1}" in one.problem for one in found)


def test_a_record_edited_with_a_fitting_hash_is_found_with_its_number() -> None:
    """The last one is found by the hash that the server keeps."""
    for at in range(COUNT):
        old = json.loads(LINES[at])
        before = ChainEnd(old["seq"] - 1, old["prev"])
        content = {key: value for key, value in old.items() if key not in ("seq", "prev", "hash")}
        line, _ = link({**content, "identity": "forged"}, before)
        found = serious(b"".join([*LINES[:at], line, *LINES[at + 1 :]]), last=LAST)
        assert any(f"record {at + 1}" in one.problem for one in found)
        assert kinds(found) == {ChainFindingKind.CHANGED}, at


def test_a_removed_record_is_found_with_its_number() -> None:
    for at in range(COUNT):
        found = serious(b"".join(LINES[:at] + LINES[at + 1 :]), last=LAST)
        assert kinds(found) == {ChainFindingKind.CUT if at == COUNT - 1 else ChainFindingKind.REMOVED}, at
        assert any(f"record {at + 1}" in one.problem for one in found)


def test_a_copied_record_is_found_wherever_it_is_put() -> None:
    """Beside itself, at the beginning, and at the end; a second beginning is another chain."""
    for at in range(COUNT):
        for to in {at, at + 1, 0, COUNT}:
            found = serious(b"".join([*LINES[:to], LINES[at], *LINES[to:]]), last=LAST)
            assert found, to
            assert any(
                f"record {at + 1}" in one.problem or f"number {at + 1} " in one.problem for one in found
            ), to


def test_swapped_records_are_found() -> None:
    for at in range(COUNT - 1):
        swapped = [*LINES]
        swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
        assert serious(b"".join(swapped)), at


def test_swapped_records_are_reported_as_moved() -> None:
    for at in range(1, COUNT - 2):
        swapped = [*LINES]
        swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
        found = serious(b"".join(swapped))
        assert ChainFindingKind.REORDERED in kinds(found), at
        assert any(f"record {at + 1} " in one.problem for one in found)


@pytest.mark.parametrize("added", [b"{}\n", b"\n", b"\x00\xff\n", LINES[3], b'{"seq":1}\n'])
def test_an_added_line_is_found(added: bytes) -> None:
    for at in range(COUNT + 1):
        assert serious(b"".join([*LINES[:at], added, *LINES[at:]]), last=LAST), at


def test_an_added_record_that_fits_is_found() -> None:
    """A forger hashes a record of its own at each place."""
    for at in range(1, COUNT):
        line, _ = link(record(99).content(), last_of(LINES[:at]))
        assert serious(b"".join([*LINES[:at], line, *LINES[at:]]), last=LAST), at


def test_a_tail_forged_with_fitting_hashes_is_found_by_the_checkpoint() -> None:
    """A forger recomputes all hashes after the change, but has no key."""
    forged, end = [*LINES[:7]], last_of(LINES[:7])
    for old in LINES[7:]:
        content = {k: v for k, v in json.loads(old).items() if k not in ("seq", "prev", "hash")}
        line, end = link({**content, "identity": "x"} if old == LINES[7] else content, end)
        forged.append(line)
    found = serious(b"".join(forged))
    assert any("the signature of checkpoint 11" in one.problem for one in found)


def test_a_forged_chain_without_checkpoints_is_found() -> None:
    lines, end = [signed(ChainEnd(), opens=True)[0]], signed(ChainEnd(), opens=True)[1]
    for number in range(1_001):
        line, end = link(record(number).content(), end)
        lines.append(line)
    assert kinds(serious(b"".join(lines))) == {ChainFindingKind.UNSIGNED}
    assert serious(b"".join(lines[:-1])) == []


@pytest.mark.parametrize("left", range(COUNT))
def test_a_tail_that_is_cut_off_is_found_by_the_last_number(left: int) -> None:
    found = serious(b"".join(LINES[:left]), last=LAST)
    assert ChainFindingKind.CUT in kinds(found)
    assert any(str(COUNT) in one.problem for one in found)


@pytest.mark.parametrize("size", [2, 10, 100])
def test_a_last_line_that_is_cut_is_found(size: int) -> None:
    assert serious(b"".join(LINES)[:-size])


def test_a_last_line_without_its_newline_alone_is_whole() -> None:
    assert serious(b"".join(LINES)[:-1], last=LAST) == []


def test_two_files_of_one_chain_are_one_file() -> None:
    first = chain_of(8)
    second = chain_of(8, last_of(first))
    assert verify(b"".join(first), b"".join(second), last=last_of(second)) == []
    assert serious(b"".join(second), b"".join(first))
    assert serious(b"".join(first[:-1]), b"".join(second))
    assert serious(b"".join(first), b"".join(second[1:]))
    assert serious(b"".join(second[1:]))


def test_a_file_without_the_older_ones_is_intact_only_after_the_record_named_as_first() -> None:
    """Whether those were deleted on purpose nothing but a person knows."""
    older = chain_of(8)
    before, content = last_of(older), b"".join(chain_of(8, last_of(older)))
    (found,) = verify(content)
    assert found.kind is ChainFindingKind.REMOVED
    assert "the first record here is 9, and records 1 to 8" in found.problem
    assert f"--first {before}" in found.problem
    assert verify(content, first=before, last=before) == []
    assert kinds(serious(content, first=last_of(older[:-1]))) == {ChainFindingKind.REMOVED}
    assert kinds(serious(content, first=ChainEnd(8, "ab" * 32))) == {ChainFindingKind.CHANGED}
    assert kinds(serious(content, first=ChainEnd(9, "ab" * 32))) == {ChainFindingKind.ADDED}
    assert serious(b"x\n" + content, first=before)


def test_the_record_of_last_must_have_its_hash() -> None:
    assert serious(b"".join(LINES), last=ChainEnd(3, "ab" * 32))
    assert serious(b"".join(LINES), last=last_of(LINES[:3])) == []


def test_files_without_records_are_reported() -> None:
    assert serious(b"")
    assert serious()


def recovered(piece: bytes, end: ChainEnd) -> bytes:
    """Return the record that explains a torn line."""
    content = {
        "kind": "recovered",
        "time": "x",
        "torn_bytes": len(piece),
        "torn_sha256": hashlib.sha256(piece).hexdigest(),
    }
    return link(content, end)[0]


def test_a_torn_line_that_a_record_explains_is_listed() -> None:
    piece = LINES[4][:40]
    content = b"".join(LINES[:4]) + piece + b"\n" + recovered(piece, last_of(LINES[:4]))
    assert kinds(verify(content)) == {ChainFindingKind.TORN}
    assert serious(content) == []


def test_a_torn_line_at_the_end_of_a_file_is_explained_in_the_next() -> None:
    piece = LINES[5][:40]
    opening, end = signed(last_of(LINES[:5]), opens=True)
    assert serious(b"".join(LINES[:5]) + piece, opening + recovered(piece, end)) == []
    assert serious(b"".join(LINES[:5]) + piece, opening)
    assert serious(b"".join(LINES[:5]) + piece + b"x", opening + recovered(piece, end))


def test_torn_lines_at_the_ends_of_two_files_are_each_explained() -> None:
    """The disk was full before the rotation and after it."""
    old, new = LINES[5][:40], b'{"hash":"'
    opening, end = signed(last_of(LINES[:5]), opens=True)
    first = recovered(old, end)
    records = opening + first + recovered(new, last_of([first]))
    assert serious(b"".join(LINES[:5]) + old, new + b"\n" + records) == []
    assert serious(b"".join(LINES[:5]) + old, new + b"\n" + opening + first)
    assert serious(b"".join(LINES[:5]) + old, b"x\n" + records)


@pytest.mark.parametrize("added", [b"x", b'{"a":1}\n', LINES[2]])
def test_other_bytes_than_the_torn_ones_are_not_explained(added: bytes) -> None:
    piece = LINES[4][:40]
    content = b"".join(LINES[:4]) + added + piece + b"\n" + recovered(piece, last_of(LINES[:4]))
    assert serious(content)


def test_a_gap_is_listed() -> None:
    line, _ = link({"kind": "gap", "time": "x", "count": 12}, LAST)
    (found,) = verify(b"".join(LINES) + line)
    assert (found.kind, found.is_explained) == (ChainFindingKind.GAP, True)
    assert "12" in found.problem


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"null",
        b'{"seq":1}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"seq":' + b"9" * 10_000 + b"}",
        b'{"kind":"x","prev":"","seq":NaN,"hash":""}',
        b"\xff\xfe",
        b'"\\ud800"',
    ],
)
def test_hostile_lines_are_no_records(line: bytes) -> None:
    assert read_line(line) is None
    assert serious(line + b"\n" + b"".join(LINES))


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b'","', b'", "', 1),
        lambda line: line.replace(b"{", b'{"kind":"a",', 1),
        lambda line: line[:-1] + b',"kind":"response"}',
        lambda line: line.replace(b"response", b"r\\u0065sponse"),
        lambda line: line + b" ",
        lambda line: b" " + line,
        lambda line: line + b"\r",
        lambda line: line.replace(b'"seq":2', b'"seq":2.0'),
        lambda line: line.replace(b'"seq":2', b'"seq":true'),
        lambda line: line.replace(b'"hash":"', b'"hash":"A'),
    ],
)
def test_bytes_are_compared_not_values(change: object) -> None:
    """A line that is not its own canonical form, or has a key twice, is no record."""
    line = LINES[1][:-1]
    assert read_line(line) is not None
    changed = change(line)  # type: ignore[operator]
    assert changed != line
    assert read_line(changed) is None


def test_a_line_without_an_end_needs_no_memory() -> None:
    """A hole of a sparse file is one line of zeros."""
    verifier = Verifier(PublicKey(PUBLIC).check)
    verifier.begin_file("f")
    list(verifier.feed(b"".join(LINES)))
    for _ in range(20):
        assert list(verifier.feed(bytes(MAX_LINE // 2))) == []
        assert len(verifier._buffer) <= MAX_LINE
    assert list(verifier.end_file()) == []
    assert kinds(list(verifier.finish())) == {ChainFindingKind.CHANGED}


def test_any_change_of_a_byte_is_found() -> None:
    rng = random.Random(1)
    content = b"".join(LINES)
    for _ in range(300):
        at = rng.randrange(len(content))
        changed = content[:at] + bytes([content[at] ^ rng.randrange(1, 256)]) + content[at + 1 :]
        assert serious(changed, last=LAST), at


def lines_at(seconds: list[int], end: ChainEnd) -> bytes:
    """Return records of these times."""
    lines = []
    for one in seconds:
        line, end = link(record(one * 1_000_000).content(), end)
        lines.append(line)
    return b"".join(lines)


def test_a_file_without_a_signed_beginning_is_not_intact() -> None:
    """Whatever its hashes: anybody can compute them."""
    assert kinds(serious(lines_at([1, 2], ChainEnd()))) == {ChainFindingKind.UNSIGNED}
    assert kinds(serious(lines_at([1, 2], LAST), first=LAST)) == {ChainFindingKind.UNSIGNED}
    opened, end = signed(ChainEnd(), opens=True)
    assert serious(opened + lines_at([1, 2], end)) == []
    without, end = signed(ChainEnd())
    assert kinds(serious(without + lines_at([1, 2], end))) == {ChainFindingKind.UNSIGNED}


def test_a_torn_line_may_be_explained_before_the_first_checkpoint() -> None:
    explained = recovered(b'{"hash', ChainEnd())
    opened, end = signed(last_of([explained]))
    assert serious(b'{"hash\n' + explained + opened + lines_at([1, 2], end)) == []


@pytest.mark.parametrize(
    ("seconds", "is_intact"),
    [
        ([0, 119], True),
        ([0, 121], False),
        ([7_200, 7_260, 7_320], True),
        ([7_200, 7_260, 7_321], False),
        ([7_200, 10, 20], True),
        ([0, 3_600], False),
    ],
)
def test_records_over_more_than_two_minutes_need_a_checkpoint(seconds: list[int], is_intact: bool) -> None:
    """However long nothing happened before them; a clock that goes back is no sign of a forger."""
    opened, end = signed(ChainEnd(), opens=True)
    found = serious(opened + lines_at([one + AFTER_CHECKPOINT for one in seconds], end))
    assert (found == []) is is_intact
    assert kinds(found) <= {ChainFindingKind.UNSIGNED}


@pytest.mark.parametrize("count", [1, 700])
def test_a_tail_that_was_added_before_the_server_went_on_is_named(count: int) -> None:
    end, forged = LAST, []
    for number in range(count):
        line, end = link(record(number).content(), end)
        forged.append(line)
    content = b"".join(LINES) + b"".join(forged) + b"".join(chain_of(8, LAST))
    (found,) = serious(content)
    assert found.kind is ChainFindingKind.ADDED
    assert f"{COUNT + 1}" in found.problem
    assert f"{COUNT + count} before" in found.problem


@pytest.mark.parametrize("left", [b"", b"\n"])
def test_a_torn_line_that_is_removed_or_made_blank_is_found(left: bytes) -> None:
    piece = LINES[4][:40]
    explained = recovered(piece, last_of(LINES[:4]))
    rest = lines_at([1], last_of([explained]))
    assert serious(b"".join(LINES[:4]) + piece + b"\n" + explained + rest) == []
    assert serious(b"".join(LINES[:4]) + left + explained + rest)
    assert serious(b"".join(LINES[:4]) + left + explained)


def test_a_torn_line_may_be_explained_twice() -> None:
    """After a kill before the server has noted that it was explained."""
    piece = LINES[4][:40]
    first = recovered(piece, last_of(LINES[:4]))
    content = b"".join(LINES[:4]) + piece + b"\n" + first + recovered(piece, last_of([first]))
    assert serious(content) == []


@pytest.mark.parametrize("left", [b"", b"\n", LINES[4][:40] + b"\n"])
def test_a_reader_of_a_stream_may_lose_a_torn_line(left: bytes) -> None:
    piece = LINES[4][:40]
    torn = {"torn_bytes": len(piece), "torn_sha256": hashlib.sha256(piece).hexdigest(), "stream": True}
    explained, end = link({"kind": "recovered", "time": "x", **torn}, last_of(LINES[:4]))
    assert serious(b"".join(LINES[:4]) + left + explained + lines_at([1], end)) == []


def test_what_the_server_itself_has_reported_is_listed() -> None:
    detail = {"sink": "file", "problem": "missing at its end: record 4\x1b"}
    line, _ = link({"kind": "event", "event": "audit_records_missing", "detail": detail}, LAST)
    (found,) = verify(b"".join(LINES) + line)
    assert (found.kind, found.is_explained) == (ChainFindingKind.REPORTED, True)
    assert "record 4" in found.problem
    assert "\x1b" not in found.problem
