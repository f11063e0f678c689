"""Parses a JSON document that a person typed, and finds the line of each of its members.

Sources: RFC 8259; sections 4 (duplicate names) and 6 (numbers that other parsers may not represent).
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Final, NoReturn

from lessor.values import MAX_EXACT, JsonValue

MAX_DEPTH: Final = 20
"""The maximum depth of a document; a policy has six levels."""
MAX_TEXT: Final = 32 << 10
"""The maximum number of characters; IAM allows a policy 6,144 without space. More would block the loop."""
_STEP: Final = re.compile(r"\.?([A-Za-z][A-Za-z0-9]*)|\[(\d{1,6})\]|\[(\"[^\"]*\")\]")
_TOKEN: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
"""A string without an end goes to the end of the text: so each character is read once, whatever was typed."""


class NotADocument(ValueError):
    """A text is not one JSON object; ``line`` begins at 1, and is 0 if no line is known."""

    def __init__(self, problem: str, line: int = 0) -> None:
        """Say what is wrong, and how to fix it."""
        super().__init__(problem)
        self.line = line


class _Defect(ValueError):
    """What a hook of the parser found; the hooks know no line."""


def parse_json_text(text: str) -> dict[str, JsonValue]:
    """Return the JSON object that a text holds.

    Raises:
        NotADocument: It holds something else, is nested too deeply, has a duplicate key, or has a number that
            JSON can't represent exactly.
    """
    if len(text) > MAX_TEXT:
        raise NotADocument(f"has more than {MAX_TEXT:,} characters; write a shorter document")
    if _depth(text) > MAX_DEPTH:
        raise NotADocument(f"is nested deeper than {MAX_DEPTH} levels; write one JSON object")
    try:
        found: JsonValue = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse, parse_int=_exact)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise NotADocument(f"is not valid JSON: {error.msg} at {where}", error.lineno) from None
    except _Defect as defect:
        raise NotADocument(str(defect)) from None
    if not isinstance(found, dict):
        raise NotADocument("is not a JSON object; write {…}", 1)
    return found


class LineFinder:
    """Finds the lines of members in one document, which is read when the first is wanted, and once."""

    def __init__(self, text: str) -> None:
        """Look in ``text``; if it is not a document, no line is known."""
        self._text = text

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        try:
            parse_json_text(self._text)
        except NotADocument:
            return {}
        return _lines(self._text)

    def find(self, path: str) -> int:
        """Return the line, from 1, of the member that ``path`` names, or of the nearest that there is.

        ``path`` are steps from the top, as violations have them: ``Statement[0].Condition["aws:x"]``. The
        line is 0 if the text is not a document.
        """
        if not self._lines:
            return 0
        steps = [key or quoted[1:-1] or index for key, index, quoted in _STEP.findall(path)]
        found = 1
        for end in range(1, len(steps) + 1):
            # IAM allows one statement, action or resource without its list: such a step has no line.
            found = self._lines.get(tuple(steps[:end]), found)
        return found


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the line of each member and item of a valid document, by its steps."""
    lines: dict[tuple[str, ...], int] = {}
    path: list[str | int] = []
    line, position, key_next = 1, 0, False
    for token in _TOKEN.finditer(text):
        line += text.count("\n", position, token.start())
        position = token.start()
        sign = token.group()
        if sign in ("{", "["):
            lines.setdefault(tuple(str(step) for step in path), line)
            path.append("" if sign == "{" else 0)
            key_next = sign == "{"
        elif sign in ("}", "]"):
            path.pop()
            key_next = False
        elif sign == "," and path:
            last = path[-1]
            path[-1] = last + 1 if isinstance(last, int) else last
            key_next = not isinstance(last, int)
        elif key_next and sign != ":":
            path[-1] = json.loads(sign)
            key_next = False
        if path and sign not in (",", "}", "]"):
            lines.setdefault(tuple(str(step) for step in path), line)
    return lines


def _depth(text: str) -> int:
    """Return how deep the brackets outside of strings are nested; it needs no recursion."""
    depth = deepest = 0
    for token in _TOKEN.finditer(text):
        sign = token.group()
        depth += (sign in ("{", "[")) - (sign in ("}", "]"))
        deepest = max(deepest, depth)
    return deepest


def _once(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for key, value in pairs:
        if key in found:
            raise _Defect(f"has the key {json.dumps(key[:64])} twice in one object; keep one of them")
        found[key] = value
    return found


def _refuse(name: str) -> NoReturn:
    raise _Defect(f"holds {name}, which is not valid JSON; write a number or a string")


def _exact(digits: str) -> int:
    # The length is checked first: parsing thousands of digits takes time.
    if len(digits) > 17 or abs(int(digits)) > MAX_EXACT:
        raise _Defect("has a number that JSON can't represent exactly; write it as a string")
    return int(digits)
