"""Logs events, one line each."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import re
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from lessor_server.domain import events
from lessor_server.domain.audit.record import format_time
from lessor_server.domain.events import Event

_WARNINGS = (
    events.RevocationFailed,
    events.AccountPaused,
    events.IssueFailed,
    events.ClaimLost,
    events.TakenOver,
    events.ReplicaSilent,
    events.LostKeyDeleted,
    events.RotationFailed,
    events.ReloadFailed,
)
_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")
_ERRORS = (
    events.Stuck,
    events.StoreFailed,
    events.KeyLeft,
    events.RotationMissed,
    events.UnreadableRow,
    events.AuditSinkFailed,
    events.AuditRecordsMissing,
    events.TamperedRow,
    events.SealingKeyAway,
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    """How the events of one class are written: at which level, by which name, with which fields."""

    write: Callable[..., object]
    name: str
    fields: tuple[tuple[str, str], ...]
    """The name of each field, in the event and in the log."""


class EventLog:
    """An observer that logs."""

    def __init__(self, logger: FilteringBoundLogger, rng: random.Random) -> None:
        """Write to ``logger``; ``rng`` draws references."""
        self._logger = logger
        self._rng = rng
        self._kinds: dict[type[Event], _Kind] = {}
        self._refused: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        """Write one event: its name in snake case and its fields, with instants as RFC 3339."""
        kind = self._kinds.get(type(event)) or self._learn(type(event))
        kind.write(
            kind.name,
            **{
                shown: getattr(event, field) if shown == field else _instant(getattr(event, field))
                for field, shown in kind.fields
            },
        )

    def _learn(self, kind: type[Event]) -> _Kind:
        """Find out how events of a class are written."""
        write = self._logger.info
        if issubclass(kind, _ERRORS):
            write = self._logger.error
        elif issubclass(kind, _WARNINGS):
            write = self._logger.warning
        name = kind.log_name or _WORD_START.sub("_", kind.__name__).lower()
        fields = tuple(field.name for field in dataclasses.fields(kind))
        found = _Kind(write, name, tuple((field, field.removesuffix("_us")) for field in fields))
        self._kinds[kind] = found
        return found

    def report(self, method: str, error: BaseException) -> str:
        """Write an unexpected exception, with its stack; return the reference that a caller gets."""
        reference = f"{self._rng.getrandbits(48):012x}"
        self._logger.error("internal_error", method=method, reference=reference, exc_info=error)
        return reference

    def refused(self, reason: str) -> None:
        """Write that a call was refused: the first one immediately, later ones as a count each second."""
        if reason in self._refused:
            self._refused[reason] += 1
            return
        self._refused[reason] = 1
        self._write_refused(reason)

    def _write_refused(self, reason: str) -> None:
        """Write the number of calls refused since the last line; stop after a second without any."""
        count = self._refused.pop(reason)
        if count:
            self._logger.warning("calls_refused", reason=reason, count=count)
            self._refused[reason] = 0
            asyncio.get_running_loop().call_later(1.0, self._write_refused, reason)


def _instant(value: object) -> object:
    """Return an instant in microseconds as an RFC 3339 time, 0 as None; anything else as it is."""
    if not isinstance(value, int):
        return value
    return format_time(value) if value else None
