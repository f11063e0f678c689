"""The hash chain of a sink: each record names the hash of the one before it.

``hash`` is the lower-case hex of SHA-256 over the 64 hex characters of ``prev``, followed by the record
without ``hash`` in canonical form: JSON (RFC 8259) with sorted keys, separators ``,`` and ``:``, UTF-8 not
escaped. A line is the canonical form with ``hash``. Model: RFC 9162 (Certificate Transparency).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

NO_HASH: Final = "0" * 64
"""The ``prev`` of the first record ever."""
CHECKPOINT_RECORDS: Final = 1_000
"""A checkpoint follows after at most this many records."""
CHECKPOINT_SECONDS: Final = 60.0
MAX_LINE: Final = 1 << 20
"""The maximum length of a line in bytes; a longer one is not ours."""
MAX_SEQ: Final = 1 << 53

_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
)
_quote: Final = json.encoder.encode_basestring
_HEX: Final = frozenset("0123456789abcdef")


class ChainEnd(NamedTuple):
    """The number and the hash of a record; before the first one 0 and zeros."""

    seq: int = 0
    hash: str = NO_HASH

    def __str__(self) -> str:
        """Return ``SEQ:HASH``, as ``lessor audit verify --last`` takes it."""
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> ChainEnd:
        """Parse ``SEQ:HASH``; raise ``ValueError`` for any other text."""
        seq, _, digest = text.partition(":")
        if not (seq.isascii() and seq.isdecimal() and len(seq) <= 16 and is_hash(digest)):
            raise ValueError("is not SEQ:HASH: a number and 64 hex characters")
        return cls(int(seq), digest)


def is_hash(text: object) -> bool:
    """Return whether ``text`` is a SHA-256 in lower-case hex."""
    return isinstance(text, str) and len(text) == 64 and _HEX.issuperset(text)


def canonical_json(value: object) -> str:
    """Return the canonical form of a value."""
    return _ENCODER.encode(value)


def link(content: Mapping[str, Any], before: ChainEnd) -> tuple[bytes, ChainEnd]:
    """Return the line of the record that follows ``before``, ended by a newline, and the chain's new end."""
    line, digest = _hashed({**content, "seq": before.seq + 1, "prev": before.hash})
    return line + b"\n", ChainEnd(before.seq + 1, digest)


def read_line(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line without its newline; None if it is not the line of a record.

    It is one if it is the canonical form of itself, and its own hash is right.
    """
    try:
        record = json.loads(line)
        if not (isinstance(record, dict) and _is_shaped(record)):
            return None
        own = record.pop("hash")
        expected, digest = _hashed(record)
    except (ValueError, RecursionError):
        return None
    record["hash"] = own
    return record if digest == own and expected == line else None


def end_of(record: Mapping[str, Any]) -> ChainEnd:
    """Return the chain's end after a record."""
    return ChainEnd(record["seq"], record["hash"])


def number_range(first: int, last: int) -> str:
    """Return the text of a range of records."""
    return f"record {first}" if first == last else f"records {first} to {last}"


def checkpoint_text(seq: int, prev: str) -> bytes:
    """Return what the signature of the checkpoint with this number and ``prev`` signs."""
    return f"{seq}:{prev}".encode("ascii")


def _is_shaped(record: Mapping[str, Any]) -> bool:
    """Return whether the chain's own fields have the right types."""
    seq = record.get("seq")
    return (
        type(seq) is int
        and 0 < seq <= MAX_SEQ
        and is_hash(record.get("prev"))
        and is_hash(record.get("hash"))
        and isinstance(record.get("kind"), str)
    )


def _hashed(record: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return the canonical line of a record that has no ``hash`` yet, and its hash."""
    # The key "hash" comes between these two, so nothing is encoded twice; "kind" is always there.
    before: list[str] = []
    after: list[str] = []
    for key in sorted(record):
        value = record[key]
        text = _quote(value) if type(value) is str else canonical_json(value)
        (before if key < "hash" else after).append(f"{_quote(key)}:{text}")
    head, tail = "".join(f"{one}," for one in before), ",".join(after)
    digest = hashlib.sha256(f"{record['prev']}{{{head}{tail}}}".encode()).hexdigest()
    return f'{{{head}"hash":"{digest}",{tail}}}'.encode(), digest
