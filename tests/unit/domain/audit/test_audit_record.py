"""Checks what a record holds: cut, escaped texts, and no empty field."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest

from lessor_server.domain.audit.chain import ChainEnd, link, read_line
from lessor_server.domain.audit.record import AuditRecord, RecordKind, document_digest, format_time


def line_of(**fields: object) -> dict[str, object]:
    """Return a record as it is read from its line."""
    record = AuditRecord(kind=RecordKind.EVENT, time_us=1_700_000_000_000_001, **fields)  # type: ignore[arg-type]
    line, _ = link(record.content(), ChainEnd())
    assert read_line(line[:-1]) is not None
    parsed: dict[str, object] = json.loads(line)
    return parsed


def test_a_field_without_a_value_is_left_out() -> None:
    assert set(line_of()) == {"kind", "time", "seq", "prev", "hash"}
    assert line_of(duration_ms=0)["duration_ms"] == 0


def test_a_time_is_rfc_3339_with_microseconds() -> None:
    assert format_time(1_700_000_000_000_001) == "2023-11-14T22:13:20.000001Z"
    assert format_time(0) == "1970-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x" * 300, "x" * 256),
        ("a\nb", "a\\nb"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\x85\u2028", "\\x85\\u2028"),
        ("\ud800", "\\ud800"),
        ("a\\nb", "a\\\\nb"),
        ('"}', '"}'),
        ("straße 😀", "straße 😀"),
    ],
)
def test_a_callers_text_is_cut_and_escaped(text: str, kept: str) -> None:
    """Different texts never look the same, and none can act on a terminal or forge a line."""
    record = line_of(caller_reason=text, labels={text: text}, detail={"error": text}, aws_request_ids=(text,))
    assert record["caller_reason"] == kept
    assert record["labels"] == {kept: kept}
    assert record["detail"] == {"error": kept}
    assert record["aws_request_ids"] == [kept]


def test_a_document_is_represented_by_its_digest() -> None:
    assert len(document_digest("{}")) == 64
    assert document_digest("{}") != document_digest("[]")


@pytest.mark.parametrize(
    "text", ["", "1", "1:", ":" + "0" * 64, "x:" + "0" * 64, "-1:" + "0" * 64, "1:" + "G" * 64]
)
def test_only_a_number_and_a_hash_are_the_end_of_a_chain(text: str) -> None:
    with pytest.raises(ValueError, match="SEQ:HASH"):
        ChainEnd.parse(text)
    end = ChainEnd(12, "ab" * 32)
    assert ChainEnd.parse(str(end)) == end


FIELDS = [one.name for one in dataclasses.fields(AuditRecord) if one.name not in ("kind", "time_us")]


def test_the_fast_way_to_a_line_gives_the_same_line() -> None:
    """Random fields, some empty, some hostile: the line is the canonical form."""
    for seed in range(200):
        rng = random.Random(seed)
        texts = ["a", 'q"uote', "\\", "\x1b\n", "ü😀", "\u2028", "x" * 300, "}", '","hash":"']
        values: dict[str, object] = {}
        for name in rng.sample(FIELDS, rng.randrange(len(FIELDS) + 1)):
            match name:
                case "labels":
                    values[name] = {rng.choice(texts): rng.choice(texts) for _ in range(rng.randrange(3))}
                case "detail":
                    values[name] = {"kind": rng.choice(texts), "attempts": rng.randrange(5)}
                case "aws_request_ids":
                    values[name] = tuple(rng.sample(texts, rng.randrange(3)))
                case "duration_ms" | "count":
                    values[name] = rng.randrange(3)
                case _:
                    values[name] = rng.choice(texts)
        kind = rng.choice(list(RecordKind))
        record = AuditRecord(kind=kind, time_us=rng.randrange(2**51), **values)  # type: ignore[arg-type]
        before = ChainEnd(rng.randrange(1000), rng.choice(["0", "a"]) * 64)
        assert record.encode().link(before) == link(record.content(), before), seed
        assert read_line(record.encode().link(before)[0][:-1]) is not None, seed
