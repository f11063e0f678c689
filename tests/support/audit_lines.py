"""Lines of an audit file of a test, and a reading of its chain that shares no code with the server."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lessor_server.domain.audit.chain import ChainEnd, checkpoint_text, link
from lessor_server.domain.audit.record import AuditRecord, RecordKind

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = base64.b64encode(SIGNER.public_key().public_bytes_raw()).decode()


def record(number: int) -> AuditRecord:
    """Return a record of a test."""
    return AuditRecord(
        kind=RecordKind.RESPONSE, time_us=1_700_000_000_000_000 + number, request=f"r{number}", status="OK"
    )


def signed(end: ChainEnd, *, opens: bool = False) -> tuple[bytes, ChainEnd]:
    """Return the line of the checkpoint that follows ``end``."""
    signature = base64.b64encode(SIGNER.sign(checkpoint_text(end.seq + 1, end.hash))).decode()
    content: dict[str, Any] = {"kind": "checkpoint", "time": "2026-01-01T00:00:00.000000Z"}
    return link({**content, "signature": signature, **({"opens": True} if opens else {})}, end)


def chain_of(count: int, end: ChainEnd | None = None, every: int = 5) -> list[bytes]:
    """Return lines with a checkpoint first and after each ``every`` records."""
    lines = []
    end = end or ChainEnd()
    for number in range(count):
        if number % every == 0:
            line, end = signed(end, opens=not number)
        else:
            line, end = link(record(number).content(), end)
        lines.append(line)
    return lines


def last_of(lines: Iterable[bytes]) -> ChainEnd:
    """Return the end of a chain after these lines."""
    last = json.loads(list(lines)[-1])
    return ChainEnd(last["seq"], last["hash"])


def read_independently(content: bytes, public: str) -> list[dict[str, Any]]:
    """Return the records of an intact chain; fail at the first line that breaks it.

    A torn line is passed over if a record of kind ``recovered`` follows it.
    """
    records: list[dict[str, Any]] = []
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public))
    torn = 0
    for line in content.decode().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            torn += 1
            continue
        if torn:
            assert record["kind"] in ("recovered", "checkpoint")
            torn = 0
        assert line == json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = record.pop("hash")
        plain = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert digest == hashlib.sha256((record["prev"] + plain).encode()).hexdigest()
        if records:
            assert (record["seq"], record["prev"]) == (records[-1]["seq"] + 1, records[-1]["hash"])
        if record["kind"] == "checkpoint":
            text = f"{record['seq']}:{record['prev']}".encode()
            key.verify(base64.b64decode(record["signature"]), text)
        records.append({**record, "hash": digest})
    assert torn == 0
    return records
