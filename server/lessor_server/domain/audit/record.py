"""Audit records: who asked for what, what was decided, and what came of it. No record holds a secret."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from itertools import islice
from operator import attrgetter
from typing import Final, NamedTuple

from lessor_server.domain.audit.chain import ChainEnd, canonical_json

MAX_TEXT: Final = 256
"""The maximum length of a text before it is escaped, in characters."""
MAX_TEXTS: Final = 100
"""The maximum number of labels, and of AWS's request ids, in one record."""

Value = str | int | bool | list[str] | dict[str, str | int]


class RecordKind(Enum):
    """What a record is about; the last three are about the chain itself."""

    REQUEST = "request"
    """A call is about to have an effect."""
    RESPONSE = "response"
    """The result of a call, or a credential of a stream."""
    EVENT = "event"
    """Work without a caller, such as an expiry."""
    CHECKPOINT = "checkpoint"
    """The signed position of the chain."""
    GAP = "gap"
    """Records were dropped, because too many waited for the sink."""
    RECOVERED = "recovered"
    """The record before was written only in part."""


@dataclass(slots=True, kw_only=True)
class AuditRecord:
    """One record; an empty field is left out. ``time_us`` is in microseconds since the epoch.

    Nothing changes it. It is not frozen, because that takes three times as long for so many fields.
    """

    kind: RecordKind
    time_us: int
    request: str = ""
    """An id that the records of one call share."""
    identity: str = ""
    auth_method: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    peer: str = ""
    rpc: str = ""
    path: str = ""
    capability: str = ""
    decision: str = ""
    rule: str = ""
    status: str = ""
    reason: str = ""
    caller_reason: str = ""
    mount: str = ""
    role: str = ""
    lease_id: str = ""
    access_key_hmac: str = ""
    accessor: str = ""
    """Names the login token with which the caller calls, or, in the response to a login, the new one."""
    policy_sha256: str = ""
    """Of a policy document in the request: SHA-256 of its canonical form."""
    aws_request_ids: tuple[str, ...] = ()
    duration_ms: int | None = None
    event: str = ""
    """Of an event: its name in the log."""
    detail: Mapping[str, str | int] = field(default_factory=dict)
    """Of an event: its other fields."""
    count: int = 0
    """How many calls or records this one stands for."""
    trace_id: str = ""
    """The id of the call's trace, 32 hexadecimal digits."""

    def content(self) -> dict[str, Value]:
        """Return the fields that have a value, with texts cut and escaped, for the chain."""
        content: dict[str, Value] = {"kind": self.kind.value, "time": format_time(self.time_us)}
        for name, text in zip(_TEXTS, _texts_of(self), strict=True):
            if text:
                content[name] = text if _is_plain(text) else printable_text(text)
        if self.labels:
            content["labels"] = _cut(self.labels)
        if self.aws_request_ids:
            content["aws_request_ids"] = [printable_text(one) for one in self.aws_request_ids[:MAX_TEXTS]]
        if self.duration_ms is not None:
            content["duration_ms"] = self.duration_ms
        if self.detail:
            content["detail"] = _printable(self.detail)
        if self.count:
            content["count"] = self.count
        if self.trace_id:
            content["trace_id"] = printable_text(self.trace_id)
        return content

    def encode(self) -> EncodedRecord:
        """Return this record as JSON without its place in a chain.

        It takes a third of the time of ``content`` and ``chain.link``, because the order of the fields is
        known. Once linked it gives the same line.
        """
        texts: Sequence[str] = _texts_of(self)
        if not _are_plain(texts):
            texts = [_encode(text)[1:-1] for text in texts]
        key_hmac, accessor, auth_method, caller_reason, capability, decision, event, *texts = texts
        identity, lease_id, mount, path, peer, policy, reason, request, role, rpc, rule, status = texts
        values = (
            key_hmac,
            accessor,
            auth_method,
            _encode_list(self.aws_request_ids) if self.aws_request_ids else "",
            caller_reason,
            capability,
            str(self.count) if self.count else "",
            decision,
            canonical_json(_printable(self.detail)) if self.detail else "",
            "" if self.duration_ms is None else str(self.duration_ms),
            event,
            identity,
            self.kind.value,
            canonical_json(_cut(self.labels)) if self.labels else "",
            lease_id,
            mount,
            path,
            peer,
            policy,
            reason,
            request,
            role,
            rpc,
            rule,
            status,
            format_time(self.time_us),
            _encode(self.trace_id) if self.trace_id else "",
        )
        line = _template(tuple(map(bool, values))) % tuple(filter(None, values))
        return EncodedRecord(self.kind, self.time_us, *line.split("\n"))  # no value has a newline


class EncodedRecord(NamedTuple):
    """A record as JSON, in the pieces between which a chain puts ``hash``, ``prev`` and ``seq``."""

    kind: RecordKind
    time_us: int
    before_hash: str
    before_prev: str
    before_seq: str
    end: str

    def link(self, before: ChainEnd) -> tuple[bytes, ChainEnd]:
        """Return the line of this record after ``before``, and the chain's new end (``chain.link``)."""
        seq = before.seq + 1
        tail = f'{self.before_prev}"prev":"{before.hash}",{self.before_seq}"seq":{seq},{self.end}'
        digest = hashlib.sha256(f"{before.hash}{{{self.before_hash}{tail}".encode()).hexdigest()
        return f'{{{self.before_hash}"hash":"{digest}",{tail}\n'.encode(), ChainEnd(seq, digest)


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """What is known of a sink: whether it works, and the number and hash of the last record in it."""

    name: str
    works: bool
    last_seq: int
    last_hash: str


_BEFORE_DETAIL: Final = ("aws_request_ids", "caller_reason", "capability", "count", "decision")
_FIELDS: Final = (
    ("access_key_hmac", "accessor", "auth_method", *_BEFORE_DETAIL, "detail", "duration_ms", "event"),
    ("identity", "kind", "labels", "lease_id", "mount", "path", "peer", "policy_sha256"),
    ("reason", "request", "role", "rpc", "rule"),
    ("status", "time", "trace_id"),
)
"""All fields in the order of a line, in its pieces: ``hash``, ``prev`` and ``seq`` come between them."""
_NOT_TEXTS: Final = frozenset(("aws_request_ids", "count", "detail", "duration_ms", "labels", "trace_id"))
"""Fields whose values are JSON already."""
_TEXTS: Final = tuple(
    name for piece in _FIELDS for name in piece if name not in _NOT_TEXTS and name not in ("kind", "time")
)
"""The fields of ``AuditRecord`` that are texts; ``encode`` counts on their order."""
_UNESCAPED: Final = bytes(code for code in range(0x20, 0x7F) if chr(code) not in '"\\')
_quote: Final = json.encoder.encode_basestring
_texts_of: Final = attrgetter(*_TEXTS)


@lru_cache(maxsize=256)
def _template(has_value: tuple[bool, ...]) -> str:
    """Return a line with a place for each field that has a value, its pieces separated by newlines."""
    has = iter(has_value)
    names = [[name for name in piece if next(has)] for piece in _FIELDS]
    pieces = [[f'"{name}":%s,' if name in _NOT_TEXTS else f'"{name}":"%s",' for name in one] for one in names]
    return "\n".join(map("".join, pieces))[:-1] + "}"


def _are_plain(texts: Sequence[str]) -> bool:
    """Return whether texts stand in JSON as they are, as nearly all do; they are looked at as one."""
    joined = "".join(texts)
    if len(joined) > MAX_TEXT and max(map(len, texts)) > MAX_TEXT:
        return False
    return joined.isascii() and not joined.encode("ascii").translate(None, _UNESCAPED)


def _encode(text: str) -> str:
    """Return a text as JSON, cut and escaped."""
    return _quote(text if _is_plain(text) else printable_text(text))


def _encode_list(texts: Sequence[str]) -> str:
    """Return the first texts of a list as JSON."""
    return f"[{','.join([_encode(one) for one in texts[:MAX_TEXTS]])}]"


def _cut(labels: Mapping[str, str]) -> dict[str, str | int]:
    """Return the first labels, printable."""
    first = islice(labels.items(), MAX_TEXTS)
    return {printable_text(key): printable_text(value) for key, value in first}


def _printable(detail: Mapping[str, str | int]) -> dict[str, str | int]:
    return {key: printable_text(one) if isinstance(one, str) else one for key, one in detail.items()}


def _is_plain(text: str) -> bool:
    """Return whether ``printable_text`` changes nothing."""
    return len(text) <= MAX_TEXT and text.isprintable() and "\\" not in text


def printable_text(text: str) -> str:
    r"""Return a text cut to 256 characters; others than printable ones are escaped as in ``\x1b``."""
    cut = text[:MAX_TEXT]
    return cut if _is_plain(cut) else "".join(_escaped(sign) for sign in cut)


def _escaped(sign: str) -> str:
    return sign if sign.isprintable() and sign != "\\" else sign.encode("unicode_escape").decode()


def format_time(time_us: int) -> str:
    """Return an instant in RFC 3339 with microseconds, in UTC."""
    seconds, rest = divmod(time_us, 10**6)
    return f"{_format_second(seconds)}.{rest:06d}Z"


@lru_cache(maxsize=8)
def _format_second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def document_digest(canonical: str) -> str:
    """Return what stands for a policy document in a record: the SHA-256 of its canonical form, in hex."""
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
