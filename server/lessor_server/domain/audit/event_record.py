"""The audit records of work without a caller: expiry, revocation, rotation, reconcile and adoption."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Final

from lessor_server.domain import events
from lessor_server.domain.audit.record import AuditRecord, RecordKind, format_time
from lessor_server.domain.events import Event

_NOT_RECORDED: Final = (
    events.Issued,
    events.Renewed,
    events.RevocationAsked,
    events.BackedUp,
    events.PrefixAccepted,
    events.Abandoned,
    events.Created,
    events.Changed,
    events.Deleted,
    events.MountDisabled,
    events.StaticKeyRead,
    events.AuditSinkFailed,
    events.AuditSinkBack,
    events.StoreFailed,
    events.StoreBack,
    events.AccountPaused,
    events.AccountResumed,
)
"""Events that are not recorded: a call has its own records, and outages change nothing."""
_LEFT_OUT: Final = frozenset({"lease_id", "access_key_id", "by", "reason", "detail", "mount"})
"""Fields with a place of their own; ``detail`` is AWS's text."""
_WORD_START: Final = re.compile(r"(?<!^)(?=[A-Z])")


def event_record(event: Event, time_us: int, hash_value: Callable[[str], str]) -> AuditRecord | None:
    """Return the record of an event; None if events of its class are not recorded."""
    if isinstance(event, _NOT_RECORDED):
        return None
    lease_id = str(getattr(event, "lease_id", ""))
    mount, _, rest = lease_id.partition("/creds/")
    key_id = str(getattr(event, "access_key_id", ""))
    return AuditRecord(
        kind=RecordKind.EVENT,
        time_us=time_us,
        event=_name(type(event)),
        identity=str(getattr(event, "by", "")),
        caller_reason=str(getattr(event, "reason", "")),
        lease_id=lease_id,
        mount=mount or str(getattr(event, "mount", "")),
        role=rest.partition("/")[0],
        access_key_hmac=hash_value(key_id) if key_id else "",
        detail=_detail(event),
    )


def _detail(event: Event) -> dict[str, str | int]:
    """Return the fields that have no place of their own, without empty ones; instants in RFC 3339."""
    detail: dict[str, str | int] = {}
    for name in _fields(type(event)):
        value = getattr(event, name)
        if name.endswith("_us") and isinstance(value, int) and value:
            detail[name.removesuffix("_us")] = format_time(value)
        elif isinstance(value, bool):
            detail[name] = str(value).lower()
        elif isinstance(value, (tuple, float)):
            detail[name] = " ".join(value) if isinstance(value, tuple) else f"{value:g}"
        elif value:
            detail[name] = value
    return detail


def _fields(kind: type[Event]) -> tuple[str, ...]:
    return tuple(one.name for one in dataclasses.fields(kind) if one.name not in _LEFT_OUT)


def _name(kind: type[Event]) -> str:
    """Return the event's name in the log."""
    return kind.log_name or _WORD_START.sub("_", kind.__name__).lower()
