"""Errors of calls, for pages: beside the fields that they name, or for the whole page."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, assert_never

from lessor_server.domain.errors.base import ErrorKind, Invalid, LessorError
from lessor_server.http_edge.console.forms import FormProblem
from lessor_server.http_edge.console.strict_json import LineFinder
from lessor_server.services.guard import CallRefusal

_WRAPPERS: Final = ("role", "config", "static_role")
"""Fields of requests that hold the message of a form."""


class CallRefused(Exception):
    """A call through the guard was refused."""

    def __init__(self, refusal: CallRefusal) -> None:
        """Keep the ``refusal``."""
        super().__init__(refusal.error.reason)
        self.refusal = refusal

    @property
    def error(self) -> LessorError:
        """Return the error."""
        return self.refusal.error

    @property
    def kind(self) -> ErrorKind:
        """Return what the person can do about it."""
        return self.refusal.error.kind


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
    if failed.refusal.sees_root:
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
    problems = []
    documents: dict[str, LineFinder] = {}
    for violation in failed.error.violations:
        first, _, rest = violation.field.partition(".")
        path = rest if first in _WRAPPERS else violation.field
        field = path.partition(".")[0].partition("[")[0]
        text = f"{violation.problem}; {violation.fix}"
        inner = path[len(field) :].lstrip(".")
        if field not in fields:
            problems.append(FormProblem("", f"{violation.field}: {text}" if violation.field else text))
        else:
            if inner and field not in documents:
                documents[field] = LineFinder(typed.get(field, ""))
            line = documents[field].find(inner) if inner else 0
            problems.append(FormProblem(field, f"{inner}: {text}" if inner else text, line))
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


def status_of(kind: ErrorKind) -> HTTPStatus:
    """Return the status of a page that shows an error of this kind."""
    match kind:
        case ErrorKind.INVALID:
            return HTTPStatus.BAD_REQUEST
        case ErrorKind.UNAUTHENTICATED | ErrorKind.DENIED:
            return HTTPStatus.FORBIDDEN
        case ErrorKind.NOT_FOUND:
            return HTTPStatus.NOT_FOUND
        case ErrorKind.EXISTS | ErrorKind.PRECONDITION | ErrorKind.ABORTED:
            return HTTPStatus.CONFLICT
        case ErrorKind.QUOTA:
            return HTTPStatus.TOO_MANY_REQUESTS
        case ErrorKind.UNAVAILABLE:
            return HTTPStatus.SERVICE_UNAVAILABLE
        case ErrorKind.DEADLINE:
            return HTTPStatus.GATEWAY_TIMEOUT
        case ErrorKind.UNIMPLEMENTED:
            return HTTPStatus.NOT_IMPLEMENTED
        case ErrorKind.INTERNAL:
            return HTTPStatus.INTERNAL_SERVER_ERROR
    assert_never(kind)
