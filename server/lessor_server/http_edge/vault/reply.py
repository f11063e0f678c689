"""What Vault's API answers: the envelope, and errors as HTTP statuses.

Source: HashiCorp Vault, "HTTP API"; its clients read more than that page says, see docs/vault.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from aiohttp.web import Response

from lessor_server.domain.errors.base import AwsQuota, ErrorKind, Invalid, LessorError
from lessor_server.http_edge.answers import JsonObject, error_response, http_status, json_response
from lessor_server.services import status
from lessor_server.services.logins import NewToken

Issued = str | NewToken
"""The id of a new lease, or a new login token."""

MAX_ERRORS: Final = 20
"""The maximum number of errors in one answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: ``data`` in the envelope, or the whole ``body`` of an answer without one.

    ``beside`` are members beside ``data``. ``lease_seconds`` is the life of ``lease_id``. ``is_empty``: there
    is no body, unless there are ``warnings``. ``issued`` is the lease of a new key, or a new token: it is
    revoked if the caller does not get this answer.
    """

    data: JsonObject | None = None
    status: int = HTTPStatus.OK
    body: JsonObject | None = None
    beside: JsonObject = field(default_factory=dict)
    warnings: Sequence[str] = ()
    auth: JsonObject | None = None
    lease_id: str = ""
    lease_seconds: int = 0
    renewable: bool = False
    is_empty: bool = False
    issued: Issued | None = None
    retry_in: float = 0.0


DONE: Final = Reply(status=HTTPStatus.NO_CONTENT, is_empty=True)
ACCEPTED: Final = Reply(status=HTTPStatus.ACCEPTED, is_empty=True)
MISSING: Final = Reply(status=HTTPStatus.NOT_FOUND, body={"errors": []})


def listed(keys: Sequence[str], *warnings: str) -> Reply:
    """Return the answer to a list; an empty one is missing."""
    return Reply({"keys": list(keys)}, warnings=warnings) if keys else MISSING


def no_handler(path: str, *more: str) -> Reply:
    """Return the answer for a path that is not served; ``more`` says why."""
    error = f'no handler for route "{path[:256]}". route entry not found.'
    return Reply(status=HTTPStatus.NOT_FOUND, body={"errors": [error, *more]})


def bad_request(*errors: str) -> Reply:
    """Return the answer to a request that a retry can't help."""
    return Reply(status=HTTPStatus.BAD_REQUEST, body={"errors": list(errors)})


def unavailable(error: str, retry_in: float) -> Reply:
    """Return the answer to a request that may succeed ``retry_in`` seconds later."""
    return Reply(status=HTTPStatus.SERVICE_UNAVAILABLE, body={"errors": [error]}, retry_in=retry_in)


def done(warnings: Sequence[str]) -> Reply:
    """Return the answer to a write: empty, or with warnings."""
    return Reply(warnings=warnings, is_empty=True) if warnings else DONE


def respond(reply: Reply, request_id: str) -> Response:
    """Return the HTTP response of a reply."""
    if reply.body is not None:
        response = json_response(reply.status, reply.body)
        if reply.retry_in:
            response.headers["Retry-After"] = str(math.ceil(reply.retry_in))
        return response
    if reply.is_empty and not reply.warnings:
        return json_response(reply.status, None)
    return json_response(
        HTTPStatus.OK if reply.is_empty else reply.status,
        {
            **reply.beside,
            "request_id": request_id,
            "lease_id": reply.lease_id,
            "renewable": reply.renewable,
            "lease_duration": reply.lease_seconds,
            "data": reply.data,
            "wrap_info": None,
            "warnings": list(reply.warnings) or None,
            "auth": reply.auth,
        },
    )


def refuse_call(error: LessorError, *, sees_root: bool, hides_missing: bool) -> Response:
    """Return the response to an error; ``hides_missing`` answers with an empty list what does not exist."""
    code = vault_status(error, hides_missing=hides_missing)
    retry_in = 0.0
    if code in _RETRIED:
        retry_in = error.retry_in or 1.0
    if code is HTTPStatus.FORBIDDEN:
        return error_response(code, "permission denied", *_why_denied(error))
    if code is HTTPStatus.NOT_FOUND:
        return error_response(code)
    if isinstance(error, Invalid):
        return error_response(code, *_violations(error))
    text = status.error_status(error, sees_root=sees_root).message
    if error.aws is not None and error.aws.code and error.aws.code not in text:
        text = f"{text} (AWS: {error.aws.code})"
    return error_response(code, text, retry_in=retry_in)


_RETRIED: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


def vault_status(error: LessorError, *, hides_missing: bool) -> HTTPStatus:
    """Return the status of an error; 412, 429 and 5xx, which clients retry, only if that may help."""
    if isinstance(error, AwsQuota):
        return HTTPStatus.BAD_REQUEST  # a quota of the account: no retry of a client helps
    match error.kind:
        case ErrorKind.EXISTS | ErrorKind.PRECONDITION:
            return HTTPStatus.BAD_REQUEST
        case ErrorKind.NOT_FOUND if not hides_missing:
            # The command line of Vault shows no text of a 404.
            return HTTPStatus.BAD_REQUEST
        case ErrorKind.ABORTED:
            return HTTPStatus.SERVICE_UNAVAILABLE
        case _:
            return http_status(error.kind)


def _violations(error: Invalid) -> list[str]:
    """Return one text for each violation, at most 20."""
    texts = [
        f"{_place(one.field)}: {one.problem}; {one.fix}" if one.field else f"{one.problem}; {one.fix}"
        for one in error.violations
    ]
    if len(texts) <= MAX_ERRORS:
        return texts
    return [*texts[: MAX_ERRORS - 1], f"and {len(texts) - MAX_ERRORS + 1} more; fix these first"]


def _place(field: str) -> str:
    """Return the name of a field as a caller over HTTP has sent it."""
    for holder in ("role.", "config.", "static_role."):
        field = field.removeprefix(holder)
    return field


def _why_denied(error: LessorError) -> list[str]:
    """Return what a known caller may learn of a refusal; an unknown one learns nothing."""
    return [f"{error.message}; {error.fix}"] if error.kind is ErrorKind.DENIED else []
