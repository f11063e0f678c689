"""Parsers for values on the command line: policy documents, durations, and secrets in files."""

from __future__ import annotations

import getpass
import json
import re
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final, NoReturn

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

MAX_EXACT: Final = 2**53
"""The largest integer that a JSON number represents exactly (RFC 8259, section 6)."""

_DURATION: Final = re.compile(r"(?:(\d{1,15})d)?(?:(\d{1,15})h)?(?:(\d{1,15})m)?(?:(\d{1,15})s)?", re.ASCII)
_MAX_SECONDS: Final = 315_576_000_000
"""The limit of a Duration, about 10,000 years (google/protobuf/duration.proto)."""


class InvalidValue(ValueError):
    """A value can't be parsed; the text says why and how to fix it."""


def document(source: str | Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return a policy document from a mapping, a JSON text, ``@file``, or ``-`` for standard input.

    Raises:
        InvalidValue: It is not a JSON object, or has a duplicate key or a number that JSON can't represent.
    """
    if not isinstance(source, str):
        return _checked(dict(source), "the document")
    text, where = _read(source)
    try:
        found: JsonValue = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        problem = f"{where} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        is_inline = source != "-" and not source.startswith("@")
        or_file = ", or @FILE to read it from a file" if is_inline else ""
        raise InvalidValue(f"{problem}; write one JSON object{or_file}") from None
    except RecursionError:
        raise InvalidValue(f"{where} is nested too deeply; write one JSON object") from None
    except InvalidValue as wrong:
        raise InvalidValue(f"{where}: {wrong}") from None
    return _checked(found, where)


_POLICY_ORDER: Final = ("Version", "Id", "Statement")
_STATEMENT_ORDER: Final = (
    *("Sid", "Effect", "Action", "NotAction"),
    *("Resource", "NotResource", "Condition"),
)


def policy_text(document: Mapping[str, JsonValue], indent: int | None = None) -> str:
    """Return a policy as JSON: known keys in the order of IAM's grammar page, then other keys sorted."""
    statements = document.get("Statement")
    ordered = _in_order(document, _POLICY_ORDER)
    if isinstance(statements, list):
        ordered["Statement"] = [
            _in_order(one, _STATEMENT_ORDER) if isinstance(one, dict) else one for one in statements
        ]
    return json.dumps(ordered, ensure_ascii=False, indent=indent)


def _in_order(members: Mapping[str, JsonValue], order: tuple[str, ...]) -> dict[str, JsonValue]:
    known = [key for key in order if key in members]
    return {key: _sorted(members[key]) for key in (*known, *sorted(members.keys() - set(known)))}


def _sorted(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list) else value


def secret(source: str) -> str:
    """Return a secret from ``@file``, or ``-`` for standard input; other users could see an argument.

    At a terminal ``-`` prompts for it without echo.

    Raises:
        InvalidValue: The argument is the secret itself, or the file can't be read or is empty.
    """
    if source != "-" and not source.startswith("@"):
        raise InvalidValue(
            "other users could see a secret in the arguments; give @FILE, or - for standard input"
        )
    if source == "-" and sys.stdin.isatty():
        text, where = getpass.getpass("Secret: "), "the input"
    else:
        text, where = _read(source)
    if not text.strip():
        raise InvalidValue(f"{where} is empty; the secret is missing")
    return text.strip()


def duration(text: str) -> timedelta:
    """Return a duration in whole seconds from ``1h30m``, ``90s``, ``7d`` or plain seconds.

    Raises:
        InvalidValue: It has another format.
    """
    given = text.strip()
    parts = _DURATION.fullmatch(f"{given}s" if given.isascii() and given.isdecimal() else given)
    if not given or parts is None:
        raise InvalidValue(f"{text!r} is not a valid duration; write it as 1h30m, 90s, 7d or plain seconds")
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total > _MAX_SECONDS:
        raise InvalidValue(f"{text!r} is more than ten thousand years; give less")
    return timedelta(seconds=total)


def written(span: timedelta) -> str:
    """Return a duration in the format of ``duration``, in hours or smaller units; fractions are dropped."""
    left = int(span.total_seconds())
    if left < 0:
        return f"-{written(-span)}"
    hours, minutes, seconds = left // 3600, left // 60 % 60, left % 60
    parts = ((hours, "h"), (minutes, "m"), (seconds, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"


def _read(source: str) -> tuple[str, str]:
    """Return the text of a source, and the name of the source for errors."""
    if source == "-":
        return sys.stdin.read(), "standard input"
    if not source.startswith("@"):
        return source, "the document"
    path = Path(source.removeprefix("@"))
    try:
        return path.read_text(encoding="utf-8-sig"), str(path)
    except OSError as error:
        raise InvalidValue(f"{path} can't be read: {error.strerror}; name a readable file") from None
    except UnicodeDecodeError:
        raise InvalidValue(f"{path} is not UTF-8; save it as UTF-8") from None


def _once(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    """Return an object; raise for a duplicate key, because JSON parsers differ in which value they keep."""
    found: dict[str, JsonValue] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidValue(f"the key {key!r} is given twice in one object; keep one of them")
        found[key] = value
    return found


def _no_number(name: str) -> NoReturn:
    raise InvalidValue(f"{name} is not valid JSON; write a number or a string")


def _checked(found: JsonValue, where: str) -> dict[str, JsonValue]:
    if not isinstance(found, dict):
        raise InvalidValue(f"{where} is not a JSON object; write {{…}}")
    _refuse_inexact(found, where)
    return found


def _refuse_inexact(value: JsonValue, where: str) -> None:
    """Raise for integers that would change when they are sent as JSON numbers."""
    if isinstance(value, int) and abs(value) > MAX_EXACT:
        raise InvalidValue(
            f"{where} contains {value}, which a JSON number can't represent exactly; write it as a string"
        )
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _refuse_inexact(item, where)
