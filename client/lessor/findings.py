"""What a check of a set-up found: one line each with its fix, or JSON; a failure makes the exit code 1."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Self

import click


class Grade(Enum):
    """How bad a finding is, as it is printed."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: what it is about, one sentence, and how to fix it unless it is fine."""

    check: str
    grade: Grade
    text: str
    fix: str = ""

    @classmethod
    def good(cls, check: str, text: str) -> Self:
        """Return that a check found nothing wrong."""
        return cls(check, Grade.OK, text)

    @classmethod
    def doubtful(cls, check: str, text: str, fix: str) -> Self:
        """Return what should change, though it works now."""
        return cls(check, Grade.WARN, text, fix)

    @classmethod
    def bad(cls, check: str, text: str, fix: str) -> Self:
        """Return what does not work."""
        return cls(check, Grade.FAIL, text, fix)

    @classmethod
    def of_error(cls, check: str, line: str, fix: str = "") -> Self:
        """Return the failure that a line ``problem; fix`` describes; ``fix`` is for a line without one."""
        text, separator, own = line.rpartition("; ")
        return cls(check, Grade.FAIL, text if separator else line, own if separator else fix)

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.grade.value:<5} {self.check:<12} {self.text}{self.fix and f'; {self.fix}'}"


def count_left(seconds: float) -> str:
    """Return how long something is still valid: in whole days, or in hours if it is less than two days."""
    hours = int(seconds // 3600)
    return f"{hours // 24} more days" if hours >= 48 else f"{hours} more hours"


def show_findings(findings: Sequence[Finding], *, as_json: bool) -> int:
    """Print the findings in their order; return the exit code: 1 if one of them is a failure.

    JSON is YAML, too.
    """
    if as_json:
        rows = [
            {"check": one.check, "status": one.grade.value, "message": one.text, "fix": one.fix}
            for one in findings
        ]
        click.echo(json.dumps({"checks": rows}, indent=2))
    else:
        for one in findings:
            click.echo("".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in str(one)))
    return int(any(one.grade is Grade.FAIL for one in findings))
