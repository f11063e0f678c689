"""Rows that Lessor would never write: each column of each table with each kind of bad value.

A database that no server has open is changed by hand, as an operator's tool, a bad disk or an attacker with
the file would; ``ignore_check_constraints`` and ``writable_schema`` let through what the schema forbids.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lessor_server.adapters.sqlite.store import FILE

VALUES: Final = {
    "null": "NULL",
    "a text": "'malformed'",
    "an empty text": "''",
    "bytes": "x'00ff'",
    "text that is not UTF-8": "CAST(x'61ff62' AS TEXT)",
    "a fraction": "1.5",
    "a negative number": "-1",
    "the greatest number": str(2**63 - 1),
    "the year 20000": "569002924800000000",
    "a count beyond 32 bits": "3000000000",
    "zero": "0",
}
"""SQL expressions of bad values, by name."""

JSON: Final = {
    "bad JSON": "'{bad'",
    "a JSON list of numbers": "'[1, 2]'",
    "a JSON null": "'null'",
    "half a character": """'["\\ud800"]'""",
    "deep JSON": f"'{'[' * 100_000}'",
}
_OF_JSON: Final = ("policy_arns", "groups", "body")

BODIES: Final = {
    "an empty object": "'{}'",
    "a type of another version": """json_set(body, '$.credential_type', 'NEWER')""",
    "a number for a text": """json_set(body, '$.policy_document', 5)""",
    "a policy that is not JSON": """json_set(body, '$.policy_document', '{bad')""",
    "a policy with half a character": """json_set(body, '$.policy_document', '{"Id":"\\ud800"}')""",
    "a policy with half a character as a key": """json_set(body, '$.policy_document', '{"\\uDfff":1}')""",
    "a policy with NaN": """json_set(body, '$.policy_document', '{"Id":NaN}')""",
    "a policy with infinity": """json_set(body, '$.policy_document', '{"Id":-Infinity}')""",
    "a policy with a number beyond all doubles": """json_set(body, '$.policy_document', '{"Id":1e999}')""",
    "a policy with a long number": f"""json_set(body, '$.policy_document', '{{"Id":{"9" * 400}}}')""",
    "a policy of 400 levels": f"""json_set(body, '$.policy_document', '{'{"a":' * 400}1{"}" * 400}')""",
    "a policy of 33 levels": f"""json_set(body, '$.policy_document', '{'{"a":' * 33}1{"}" * 33}')""",
    "half a character in tags": """json_set(body, '$.session_tags', json('{"a":"\\ud800"}'))""",
    "half a character in ARNs": """json_set(body, '$.role_arns', json('["\\ud800"]'))""",
    "a schedule that is none": """json_set(body, '$.cron', 'never')""",
    "a chain with half a character": """json_set(body, '$.assume_chain', json('[["\\ud800", ""]]'))""",
    "a list of keys with half a character": """json_set(body, '$.away', json('["\\ud800"]'))""",
    "a text for a list": """json_set(body, '$.iam_groups', 'admins')""",
    "a list for tags": """json_set(body, '$.iam_tags', json('[1]'))""",
    "a number in tags": """json_set(body, '$.iam_tags', json('{"a": 1}'))""",
    "a text for a span": """json_set(body, '$.default_ttl', 'long')""",
    "a span beyond all time": """json_set(body, '$.max_ttl', 9223372036854775807)""",
    "a negative limit": """json_set(body, '$.max_leases', -1)""",
    "a number for a schedule": """json_set(body, '$.cron', 5)""",
    "a text for a period": """json_set(body, '$.period_us', 'x')""",
    "a chain of texts": """json_set(body, '$.assume_chain', json('["x"]'))""",
    "a number for a key": """json_set(body, '$.current', 5)""",
}
"""SQL expressions for the body of a role or a rotation."""

_NO_NULLS = re.compile(r"\s+NOT NULL", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Case:
    """One column of one row with a bad value."""

    table: str
    column: str
    value: str
    what: str

    def __str__(self) -> str:
        """Return the case as a test's id."""
        return f"{self.table}.{self.column} holds {self.what}"


def cases(folder: Path) -> list[Case]:
    """Return every case for the tables of a database."""
    with closing(sqlite3.connect(folder / FILE)) as connection:
        tables = ("mounts", "roots", "roles", "leases", "rotations", "prefixes", "meta", "lease_counts")
        found = [
            Case(table, column, value, what)
            for table in tables
            for _, column, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall()
            for what, value in (VALUES | JSON if column in _OF_JSON else VALUES).items()
        ]
    bodies = [
        Case(table, "body", value, what) for table in ("roles", "rotations") for what, value in BODIES.items()
    ]
    return [*found, *bodies]


def loosen(folder: Path) -> None:
    """Take out of the schema what would refuse the cases: NOT NULL, and indexes on what a body says."""
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        for name, text in connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"):
            loose = _NO_NULLS.sub("", text or "")
            connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (loose, name))
        connection.execute("PRAGMA writable_schema = RESET")
        for name in ("rotations_user", "rotations_current", "rotations_previous", "rotations_fresh"):
            connection.execute(f"DROP INDEX {name}")


def damage(folder: Path, case: Case, where: str = "true") -> bool:
    """Make a case of the rows ``where``; False where SQLite itself refuses it."""
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        try:
            connection.execute(f"UPDATE {case.table} SET {case.column} = {case.value} WHERE {where}")
        except sqlite3.Error:
            return False
        return True
