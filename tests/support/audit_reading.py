"""Reads what the sinks of a test hold: by the verifier, and line by line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lessor_server.adapters.audit.key import PublicKey
from lessor_server.adapters.audit.log import AuditLog
from lessor_server.domain.audit.chain import ChainEnd
from lessor_server.domain.audit.verifier import ChainFinding, Verifier
from tests.support.audit_sinks import public_key


def findings(folder: Path, *files: bytes | bytearray, last: ChainEnd | None = None) -> list[ChainFinding]:
    """Return what the verifier finds."""
    verifier = Verifier(PublicKey(public_key(folder)).check, last)
    found: list[ChainFinding] = []
    for content in files:
        verifier.begin_file("f")
        found += verifier.feed(bytes(content))
        found += verifier.end_file()
    return [*found, *verifier.finish()]


def serious(folder: Path, *files: bytes | bytearray, last: ChainEnd | None = None) -> list[ChainFinding]:
    """Return the findings that no record explains."""
    return [one for one in findings(folder, *files, last=last) if not one.is_explained]


def records(content: bytes | bytearray, kind: str = "response") -> list[dict[str, Any]]:
    """Return the records of a kind, from all lines that are JSON."""
    found = []
    for line in bytes(content).splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [one for one in found if one["kind"] == kind]


def last_of(log: AuditLog) -> ChainEnd:
    """Return the last record of the first sink."""
    status = log.statuses()[0]
    return ChainEnd(status.last_seq, status.last_hash)


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop go on until a condition holds."""
    while not holds():  # noqa: ASYNC110 - the collector runs on this loop too
        await asyncio.sleep(0)


def requests(content: bytes | bytearray) -> list[str]:
    """Return the ids of the calls that are recorded."""
    return [one["request"] for one in records(content)]
