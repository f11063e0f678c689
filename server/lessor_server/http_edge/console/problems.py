"""Errors of calls, for pages: beside the fields that they name, or for the whole page."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from lessor_server.domain.errors.base import ErrorKind, Invalid
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.console.documents import LineFinder
from lessor_server.http_edge.console.forms import FormProblem

MAX_PROBLEMS: Final = 20
_WRAPPERS: Final = ("role", "config", "static_role")
"""Fields of requests that hold the message of a form."""


@dataclass(frozen=True, slots=True)
class PageProblem:
    """An error for a person: a heading, what happened, how to fix it, and its name for the docs."""

    heading: str
    text: str
    fix: str
    reason: str


def page_problem(failed: CallRefused) -> PageProblem:
    """Return the error of a call for a page; AWS's text and private parts only for those who see the root."""
    error = failed.error
    text = error.message
    if failed.sees_root:
        if error.private:
            text = f"{text} ({error.private})"
        if error.aws and error.aws.text:
            source = "AWS says" if error.aws.request_id else "cause"
            text = f"{text} ({source}: {error.aws.text})"
    fix = "" if isinstance(error, Invalid) else error.fix
    return PageProblem(_HEADINGS[error.kind], text, fix, error.reason)


def form_problems(
    failed: CallRefused, fields: Collection[str], typed: Mapping[str, str]
) -> list[FormProblem]:
    """Return the error of a call as problems of a form with these fields; documents get the line of each."""
    if not isinstance(failed.error, Invalid):
        shown = page_problem(failed)
        return [FormProblem("", f"{shown.text}; {shown.fix}")]
    lines: dict[str, LineFinder] = {}
    problems = []
    for violation in failed.error.violations[:MAX_PROBLEMS]:
        first, _, rest = violation.field.partition(".")
        path = rest if first in _WRAPPERS else violation.field
        field = path.partition(".")[0].partition("[")[0]
        text = f"{violation.problem}; {violation.fix}"
        inner = path[len(field) :].lstrip(".")
        if field not in fields:
            problems.append(FormProblem("", f"{violation.field}: {text}" if violation.field else text))
        elif inner:
            if field not in lines:
                lines[field] = LineFinder(typed.get(field, ""))
            problems.append(FormProblem(field, f"{inner}: {text}", lines[field].find(inner)))
        else:
            problems.append(FormProblem(field, text))
    if (more := len(failed.error.violations) - len(problems)) > 0:
        problems.append(FormProblem("", f"and {more} more; fix these first"))
    return problems


_HEADINGS: Final = {
    ErrorKind.INVALID: "This request is not valid",
    ErrorKind.NOT_FOUND: "Not found",
    ErrorKind.EXISTS: "That name is in use",
    ErrorKind.PRECONDITION: "Not possible now",
    ErrorKind.QUOTA: "A limit is reached",
    ErrorKind.UNAVAILABLE: "No answer",
    ErrorKind.ABORTED: "Something changed meanwhile",
    ErrorKind.UNAUTHENTICATED: "Not signed in",
    ErrorKind.DENIED: "Not allowed",
    ErrorKind.DEADLINE: "That took too long",
    ErrorKind.UNIMPLEMENTED: "Not supported",
    ErrorKind.INTERNAL: "Unexpected error",
}
