"""Translates the statements of ``adapters/sql`` to PostgreSQL.

A named parameter gets a number and a type: PostgreSQL would infer a narrow type from its first use. What the
two dialects write differently is replaced by rule; a statement of its own here replaces one as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from lessor_server.adapters.postgres import statements as own
from lessor_server.adapters.postgres.texts import escape_text
from lessor_server.adapters.sql.transaction import PARAMETER

_BIGINT: Final = frozenset(
    (
        "generation", "before", "attempts", "looks", "untaken", "root_version", "max_users", "max_leases",
        "rule_max_leases", "limit", "offset", "now", "until", "version", "expect_version", "stuck", "claimed",
        "active", "depth", "renewable",
    )
)  # fmt: skip
_DOUBLE: Final = frozenset(("rate", "demand", "share", "reserved"))
_BOOLEAN: Final = frozenset(("held", "live"))
_BYTEA: Final = frozenset(
    ("sealed", "fresh_sealed", "root_sealed", "mac", "new_mac", "old_mac", "wrapped", "complete")
)  # fmt: skip

_RULES: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"SELECT value FROM json_each\(body, '\$\.(\w+)'\)",
         r"SELECT jsonb_array_elements_text(body::jsonb -> '\1')"),
        (r"SELECT value FROM json_each\((:\w+)\)", r"SELECT jsonb_array_elements_text(\1::jsonb)"),
        (r"CASE WHEN json_valid\(body\) THEN ifnull\(json_extract\(body, '\$\.(\w+)'\), 0\) ELSE 0 END",
         r"CASE WHEN body::jsonb ->> '\1' = 'true' THEN 1 ELSE 0 END"),
        (r"json_extract\(body, '\$\.(\w+)'\)", r"(body::jsonb ->> '\1')"),
        (r"GLOB '\*([^']*?)\*'", r"LIKE '%\1%'"),
        (r"GLOB '\*([^'*]*)'", r"LIKE '%\1'"),
        (r"\bmax\((\w+, :\w+)\)", r"greatest(\1)"),
        (r"\bmin\((\w+, :\w+)\)", r"least(\1)"),
        (r"\bx'([0-9a-f]*)'", r"'\\x\1'::bytea"),
        (r"\btypeof\(\w+\) = 'text'", "true"),
        (r"substr\(subject, 1, instr\(subject, '/'\) - 1\)", "split_part(subject, '/', 1)"),
        (r"IS NOT ''", "<> ''"),
        (r"IS NOT 0", "<> 0"),
        (r"(coalesce\(sum\(\w+\), 0\))", r"\1::bigint"),
        (r"LIMIT :rule_max_leases", "LIMIT greatest(:rule_max_leases, 0)"),
    )
)  # fmt: skip

Value = str | int | float | bytes | None


class Translated:
    """A statement of PostgreSQL, and the order of its parameters."""

    def __init__(self, statement: str) -> None:
        """Translate ``statement``, which has named parameters."""
        numbers: dict[str, int] = {}

        def number(found: re.Match[str]) -> str:
            name = found[1]
            return f"${numbers.setdefault(name, len(numbers) + 1)}::{type_of(name)}"

        self.text = PARAMETER.sub(number, _rewritten(statement))
        self._conversions = tuple((name, _conversion(type_of(name))) for name in numbers)

    def arguments(self, params: Mapping[str, Value]) -> list[object]:
        """Return the values of the parameters in their order."""
        return [convert(params[name]) for name, convert in self._conversions]


@cache
def translate(statement: str) -> Translated:
    """Return a statement as PostgreSQL takes it; there are as many as the program has."""
    return Translated(statement)


@cache
def spread(statement: str, columns: tuple[str, ...]) -> tuple[str, tuple[Callable[[Value], object], ...]]:
    """Return a statement in which an array of each column, with the rows numbered, stands for ``{many}``."""
    arrays = ", ".join(f"${number}::{type_of(name)}[]" for number, name in enumerate(columns, start=1))
    table = f"unnest({arrays}) WITH ORDINALITY AS given({', '.join(columns)}, nth)"
    text = statement.replace("{many} AS given", table).replace("{many}", table)
    return text, tuple(_conversion(type_of(name)) for name in columns)


def type_of(name: str) -> str:
    """Return the type of a named parameter."""
    if name in _BIGINT or name.endswith("_us"):
        return "bigint"
    if name in _BOOLEAN:
        return "boolean"
    if name in _DOUBLE:
        return "double precision"
    return "bytea" if name in _BYTEA else "text"


def _rewritten(statement: str) -> str:
    if statement in own.REPLACED:
        return own.REPLACED[statement]
    for pattern, replacement in _RULES:
        statement = pattern.sub(replacement, statement)
    return statement


def _conversion(kind: str) -> Callable[[Value], object]:
    """Return how a value becomes one that the driver takes for a parameter of this type."""
    if kind == "bigint":
        return lambda value: None if value is None else int(value)
    if kind == "double precision":
        return lambda value: None if value is None else float(value)
    return bool if kind == "boolean" else escape_text
