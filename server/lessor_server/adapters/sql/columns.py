"""Reads rows and checks each column; an error names the invalid column.

SQLite lets any column of these tables hold any type and any bytes (sqlite.org, "Flexible Typing" and
"Quirks": texts need not be UTF-8), and a file can be edited or damaged. So nothing of a row is used before
its columns are checked.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, cast

from lessor_server.domain.backoff import MAX_COUNT
from lessor_server.domain.durations import MAX_DURATION_US, SECOND_US
from lessor_server.domain.errors.base import RowUnreadable
from lessor_server.domain.errors.sealing import RowTampered
from lessor_server.domain.events import Event, TamperedRow, UnreadableRow
from lessor_server.domain.lease import MAX_GENERATION

if TYPE_CHECKING:
    from lessor_server.adapters.sql.row_macs import Placed, RowMacs
    from lessor_server.adapters.sql.transaction import Transaction

T = TypeVar("T")
Row = Sequence[Any]
Problem = Callable[[Any], str]
"""Returns what is wrong with a value, or an empty text."""


MAX_US: Final = 253_402_300_799_999_999
"""The last instant of the year 9999, where a Timestamp ends; no stored number is greater."""

MAX_SPAN_US: Final = MAX_DURATION_US
"""The longest span that a caller may set, and so the farthest from the service's time that a lease ends."""

MAX_NOW_US: Final = MAX_US - 50 * 366 * 86_400_000_000
"""The last instant that may have been the service's time.

What Lessor computes of the service's time lies less than 50 years after it (40 for a schedule): what follows
from a row that can be read can be read as well.
"""

MAX_START_US: Final = MAX_NOW_US - 50 * 366 * 86_400_000_000
"""The last instant at which the service's time may start, so that a server can run on for 50 years."""

MAX_NUMBERED: Final = MAX_GENERATION
"""The greatest generation of a row, and the greatest version of a root."""

MAX_JSON_DEPTH: Final = 32
"""The most levels of a JSON text: protobuf reads 100 levels, and makes three of each nested object."""

MAX_NOTED: Final = 1000
"""The maximum number of unreadable rows that are remembered."""

NEEDED: Final = object()
"""Marks a column without a spare value."""


class Malformed(Exception):
    """A value is not valid for its column."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its check, and the spare value that a revocation uses instead of an invalid one."""

    name: str
    problem: Problem
    spare: object = NEEDED


def text(value: object) -> str:
    """Take text that can be sent on: UTF-8."""
    if not isinstance(value, str):
        return f"holds {_kind(value)}, not a string"
    return "" if value.isascii() or _encodes(value) else "holds half a character"


def whole(least: int, most: int) -> Problem:
    """Take a whole number from ``least`` to ``most``."""

    def problem(value: object) -> str:
        if type(value) is not int:
            return f"holds {_kind(value)}, not a whole number"
        return "" if least <= value <= most else "is out of range"

    return problem


past = whole(0, MAX_NOW_US)
"""Take an instant that was the service's time, or 0."""

instant = whole(0, MAX_US)
"""Take any instant, or 0."""

span_us = whole(SECOND_US, MAX_SPAN_US)
"""Take a span that a caller may set."""

ttl_us = whole(0, MAX_SPAN_US)
"""Take a span that a caller may set, or 0."""

count = whole(0, MAX_COUNT)
"""Take a count that fits an int32 of the protocol."""

numbered = whole(1, MAX_NUMBERED)
"""Take a generation or a version."""

flag = whole(0, 1)
"""Take a truth value as SQLite stores it."""


def or_none(problem: Problem) -> Problem:
    """Take what ``problem`` takes, or NULL."""
    return lambda value: "" if value is None else problem(value)


def blob(value: object) -> str:
    """Take bytes."""
    return "" if isinstance(value, bytes) else f"holds {_kind(value)}, not bytes"


def anything(_: object) -> str:
    """Take any value: it is checked elsewhere."""
    return ""


def one_of(kinds: type[Enum]) -> Problem:
    """Take the value of a member of ``kinds``."""
    values = frozenset(kind.value for kind in kinds)

    def problem(value: object) -> str:
        return text(value) or ("" if value in values else f"is not a valid {kinds.__name__}")

    return problem


def texts(value: object) -> str:
    """Take a JSON array of texts."""
    try:
        read_texts(value)
    except Malformed as error:
        return str(error)
    return ""


def read_texts(stored: object) -> tuple[str, ...]:
    """Return the texts of a JSON array, or raise ``Malformed``."""
    if stored == "[]":
        return ()
    return require_texts(read_json(stored, list))


def read_json(stored: object, kind: type[T]) -> T:
    """Return a JSON value of ``kind``, or raise ``Malformed``."""
    if not isinstance(stored, str):
        raise Malformed(text(stored))
    try:
        value = json.loads(stored, parse_float=_finite, parse_int=_exact, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Malformed("is not JSON") from None
    if stored.count("[") + stored.count("{") > MAX_JSON_DEPTH and not _is_within(value, MAX_JSON_DEPTH):
        raise Malformed(f"is JSON of more than {MAX_JSON_DEPTH} levels")
    if _HALF_ESCAPE.search(stored) and not _encodes(json.dumps(value, ensure_ascii=False)):
        raise Malformed("holds half a character")
    if not isinstance(value, kind):
        raise Malformed(f"is JSON of another kind than {kind.__name__}")
    return value


def require_text(value: object, name: str) -> str:
    """Return a text, or raise ``Malformed`` with ``name``."""
    problem = text(value)
    if problem:
        raise Malformed(f"{name} {problem}")
    return str(value)


def require_number(value: object, name: str, problem_of: Problem) -> int:
    """Return a number that has no problem, or raise ``Malformed`` with ``name``."""
    problem = problem_of(value)
    if problem or not isinstance(value, int):
        raise Malformed(f"{name} {problem}")
    return value


def require_flag(value: object, name: str) -> bool:
    """Return a truth value, or raise ``Malformed`` with ``name``."""
    if not isinstance(value, bool):
        raise Malformed(f"{name} is not a boolean")
    return value


def require_texts(values: object, name: str = "it") -> tuple[str, ...]:
    """Return a list of texts as a tuple, or raise ``Malformed``."""
    if not isinstance(values, list):
        raise Malformed(f"{name} is not a list")
    return tuple(require_text(value, f"a member of {name}") for value in values)


class Table(Generic[T]):
    """How the rows of one table are read."""

    def __init__(
        self,
        name: str,
        keys: int,
        columns: Sequence[Column],
        build: Callable[[Row], T],
        problem: Problem = lambda _: "",
        *,
        place: Callable[[Row], Placed] | None = None,
        is_authentic: Callable[[RowMacs, Row], bool] | None = None,
        mark: Callable[[T], T] | None = None,
    ) -> None:
        """Read rows of ``columns``, the first ``keys`` of which name the row, by ``build``.

        What has a ``problem`` that its columns don't show is unreadable, too, but can be salvaged. A row that
        is not authentic can't be read to grant anything; with ``mark`` it can, and is marked. The MAC of a
        row is that of its ``place``, or is in the row, which ``is_authentic`` then checks.
        """
        self.place = place
        self.is_authentic = is_authentic
        self.mark = mark
        self.name = name
        self._problem = problem
        self._keys = keys
        self._columns = tuple(columns)
        self._build = build

    def read(self, row: Row) -> T:
        """Return the value of a row, or raise ``RowUnreadable``."""
        value, unreadable = self._whole(row)
        if unreadable is not None:
            raise unreadable
        return cast("T", value)

    def remember(self, count: int) -> Self:
        """Keep the values of the last ``count`` rows: each issue reads the same rows of configuration."""
        self.read = lru_cache(count)(self.read)  # type: ignore[method-assign]
        return self

    def salvage(self, row: Row) -> tuple[T, RowUnreadable | None]:
        """Return a row with spare values for invalid columns, and the error that ``read`` would raise.

        Raises:
            RowUnreadable: A column is bad that nothing can stand for.
        """
        value, unreadable = self._whole(row)
        if value is not None:
            return value, unreadable
        assert unreadable is not None
        filled = tuple(
            column.spare if column.problem(part) else part
            for column, part in zip(self._columns, row, strict=True)
        )
        if NEEDED in filled:
            raise unreadable
        try:
            return self._build(filled), unreadable
        except Malformed:
            raise unreadable from None

    def _whole(self, row: Row) -> tuple[T | None, RowUnreadable | None]:
        """Return the value of a row if every column is valid, or the error."""
        problems = self._problems(row)
        if problems:
            return None, self._unreadable(row, problems)
        try:
            value = self._build(row)
        except Malformed as error:
            return None, self._unreadable(row, [str(error)])
        problem = self._problem(value)
        return value, self._unreadable(row, [problem]) if problem else None

    def key(self, row: Row) -> str:
        """Return how a row is called in the log."""
        return "/".join(map(_shown, row[: self._keys]))

    def _problems(self, row: Row) -> list[str]:
        return [
            f"{column.name} {problem}"
            for column, value in zip(self._columns, row, strict=True)
            if (problem := column.problem(value))
        ]

    def _unreadable(self, row: Row, problems: Iterable[str]) -> RowUnreadable:
        return RowUnreadable(self.name, self.key(row), "; ".join(problems))


@dataclass(slots=True)
class Reader:
    """Reads rows, and remembers which could not be read, or are not authentic."""

    unreadable: dict[tuple[str, str], str] = field(default_factory=dict)
    tampered: set[tuple[str, str]] = field(default_factory=set)
    macs: RowMacs | None = None
    _news: list[Event] = field(default_factory=list)

    async def one(
        self, tx: Transaction, table: Table[T], row: Row | None, *, grants: bool = True
    ) -> T | None:
        """Return the value of a row, None if there is no row; raises as ``read``."""
        if row is None:
            return None
        value: T = await self.read(tx, table, row, grants=grants)
        return value

    async def read(self, tx: Transaction, table: Table[T], row: Row, *, grants: bool = True) -> T:
        """Return the value of a row, or raise ``RowUnreadable``.

        A row that is not authentic raises ``RowTampered`` if it is read to grant something.
        """
        try:
            value = table.read(row)
        except RowUnreadable as error:
            self._note(table, row, error)
            raise
        self._note(table, row, None)
        if await self._is_authentic(tx, table, row):
            if self.tampered:
                self.tampered.discard((table.name, table.key(row)))
            return value
        self.note_tampered(table.name, table.key(row))
        if table.mark is not None:
            return table.mark(value)
        if grants:
            raise RowTampered(table.name, table.key(row))
        return value

    async def _is_authentic(self, tx: Transaction, table: Table[T], row: Row) -> bool:
        if self.macs is None:
            return True
        if table.place is not None:
            return await self.macs.is_authentic(tx, table.place(row))
        return table.is_authentic is None or table.is_authentic(self.macs, row)

    def salvage(self, table: Table[T], row: Row) -> T:
        """Return a row with spare values, or raise ``RowUnreadable`` if a column has none."""
        try:
            value, problem = table.salvage(row)
        except RowUnreadable as error:
            self._note(table, row, error)
            raise
        self._note(table, row, problem)
        return value

    async def readable(self, tx: Transaction, table: Table[T], found: Iterable[Row]) -> list[T]:
        """Return the values of readable rows."""
        values = []
        for row in found:
            with suppress(RowUnreadable):
                values.append(await self.read(tx, table, row))
        return values

    def salvaged(self, table: Table[T], found: Iterable[Row]) -> list[T]:
        """Return the values of rows, those with spare values too."""
        values = []
        for row in found:
            with suppress(RowUnreadable):
                values.append(self.salvage(table, row))
        return values

    async def page(
        self, tx: Transaction, table: Table[T], found: AsyncGenerator[Row, None], limit: int
    ) -> list[T]:
        """Return the first ``limit`` rows that can be read."""
        values: list[T] = []
        async with aclosing(found) as rows:
            async for row in rows:
                if len(values) == limit:
                    break
                with suppress(RowUnreadable):
                    values.append(await self.read(tx, table, row))
        return values

    def note(self, table: str, key: str, problem: str) -> None:
        """Remember that a row could not be read; the first time it becomes an event."""
        if self.unreadable.get((table, key)) != problem and len(self.unreadable) < MAX_NOTED:
            self.unreadable[table, key] = problem
            self._news.append(UnreadableRow(table, key, problem))

    def note_tampered(self, table: str, key: str) -> None:
        """Remember that a row is not authentic; the first time it becomes an event."""
        if (table, key) not in self.tampered and len(self.tampered) < MAX_NOTED:
            self.tampered.add((table, key))
            self._news.append(TamperedRow(table, key))

    def _note(self, table: Table[Any], row: Row, error: RowUnreadable | None) -> None:
        if error is not None:
            self.note(error.table, error.key, error.private)
        elif self.unreadable:
            self.unreadable.pop((table.name, table.key(row)), None)

    def news(self) -> list[Event]:
        """Return, once, the events of unreadable rows that were read since."""
        news, self._news = self._news, []
        return news


_HALF_ESCAPE: Final = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape of half a character (RFC 8259, 8.2), which may be alone."""


def _finite(digits: str) -> float:
    """Return a fraction; JSON has no infinity (RFC 8259, 6)."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


def _exact(digits: str) -> int:
    """Return a whole number that fits SQLite's integers, and so a double."""
    number = int(digits)
    if not -(2**63) <= number < 2**63:
        raise ValueError(digits)
    return number


def _refuse(constant: str) -> object:
    """Take no NaN and no Infinity."""
    raise ValueError(constant)


def _is_within(value: object, levels: int) -> bool:
    """Return whether a JSON value nests lists and objects at most ``levels`` deep."""
    if not isinstance(value, (list, dict)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_within(one, levels - 1) for one in inner)


def _kind(value: object) -> str:
    names = {str: "a text", bytes: "bytes", float: "a fraction", bool: "a truth value", type(None): "NULL"}
    return names.get(type(value), "a number" if isinstance(value, int) else "another type")


def _shown(part: object) -> str:
    """Return a part of a key on one line, cut to 200 characters."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in str(part)[:200])


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
