"""What all faces answer: JSON, errors and their statuses, and the delivery of what is issued."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, assert_never

from aiohttp.web import BaseRequest, Response

from lessor_server.domain.errors.base import ErrorKind

JsonObject = Mapping[str, object]

SERVER: Final = "Lessor"
"""Instead of the versions of Python and aiohttp."""
BARE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "Server": SERVER,
    "X-Content-Type-Options": "nosniff",
}
"""The headers of each answer that is not a page: a browser may show it."""


def json_response(status: int, body: JsonObject | None) -> Response:
    """Return a response with a JSON body, or without a body."""
    data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
    response = Response(status=status, body=data)
    response.headers.update(BARE_HEADERS)
    if data is not None:
        # Exactly this text: hvac compares it, and reads no errors otherwise.
        response.headers["Content-Type"] = "application/json"
    return response


def error_response(status: HTTPStatus, *errors: str, retry_in: float = 0.0) -> Response:
    """Return the response that refuses a request; ``retry_in`` are seconds."""
    response = json_response(status, {"errors": list(errors)})
    if retry_in:
        response.headers["Retry-After"] = str(math.ceil(retry_in))
    return response


async def deliver(request: BaseRequest, response: Response, withdraw: Callable[[], None]) -> None:
    """Send an answer with a new key or token; ``withdraw`` it if the caller has gone: nobody has it then."""
    is_delivered = False
    try:
        await response.prepare(request)
        await response.write_eof()
        is_delivered = request.transport is not None and not request.transport.is_closing()
    finally:
        if not is_delivered:
            withdraw()


def http_status(kind: ErrorKind) -> HTTPStatus:
    """Return the status of an error, as RFC 9110 defines it; Vault's API has exceptions for its clients."""
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
