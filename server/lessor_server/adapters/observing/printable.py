"""Escapes unprintable characters: callers' text must not move the cursor, forge a line or reorder text.

By ``str.isprintable`` these are control characters (C0, DEL, C1), format characters such as the bidirectional
ones (Unicode TR 36, "Bidirectional Text Spoofing"), line separators, surrogates, and unassigned code points.
"""

from __future__ import annotations

from structlog.typing import EventDict, WrappedLogger

_TRACEBACKS = frozenset({"exception", "stack"})
"""Keys of structlog with text of several lines."""


def escape(text: str) -> str:
    r"""Return ``text`` with escapes as in Python's string literals: ``\x1b``, ``\n``, ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def drop_empty(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Return the event without empty fields, which JSON keeps. A structlog processor."""
    return {key: value for key, value in event.items() if key == "event" or not _is_empty(value)}


def escape_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Return the event for a renderer of plain text, which escapes nothing; a structlog processor."""
    return {escape(key): _escape_value(key, value) for key, value in event.items()}


def escape_json(_logger: WrappedLogger, _method: str, line: str) -> str:
    """Return a line of JSON with JSON's escapes, equal in content. A structlog processor."""
    if line.isprintable():
        return line
    return "".join(sign if sign.isprintable() else _json_escape(sign) for sign in line)


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str | tuple | list | dict | set | frozenset) and not value)


def _escape_value(key: str, value: object) -> object:
    """Return a value without control characters; indent a traceback's lines, so that none can be forged."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else repr(value)
    return "\n    ".join(map(escape, text.split("\n"))) if key in _TRACEBACKS else escape(text)


def _json_escape(sign: str) -> str:
    """Return the escape of one character, in UTF-16 code units (RFC 8259, 7)."""
    units = sign.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
