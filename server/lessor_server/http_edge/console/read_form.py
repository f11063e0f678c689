"""Reads the form that a browser posts, within limits."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from aiohttp.web import BaseRequest

from lessor_server.domain.errors.base import DeadlineExceeded, Invalid
from lessor_server.http_edge.body import read_bytes

MAX_FORM: Final = 128 << 10
"""A policy of 32,768 characters, of which each is escaped, and the other fields of a role."""
MAX_SIGN_IN: Final = 32 << 10
"""A stranger's form holds one token."""
MAX_FIELDS: Final = 64
_TYPE: Final = "application/x-www-form-urlencoded"


class BadForm(Exception):
    """A form can't be read; ``status`` says why."""

    def __init__(self, status: HTTPStatus, problem: str) -> None:
        """Say what is wrong, and how to fix it."""
        super().__init__(problem)
        self.status = status


async def read_form(request: BaseRequest, limit: int) -> dict[str, str]:
    """Return the fields of a form of at most ``limit`` bytes, with the line ends of Unix.

    Raises:
        BadForm: It is too large, too slow, not a form, or has a field twice.
    """
    if request.content_type != _TYPE:
        raise BadForm(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body is not a form; send {_TYPE}")
    try:
        data = await read_bytes(request, limit)
    except DeadlineExceeded:
        raise BadForm(HTTPStatus.REQUEST_TIMEOUT, "the form did not arrive in time; send it again") from None
    except Invalid as error:
        is_large = (request.content_length or 0) > limit
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if is_large else HTTPStatus.BAD_REQUEST
        (one,) = error.violations
        raise BadForm(status, f"the form {one.problem}; {one.fix}") from None
    try:
        pairs = parse_qsl(
            data.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError:
        problem = "the form can't be parsed; send it again from its page"
        raise BadForm(HTTPStatus.BAD_REQUEST, problem) from None
    fields = {name: value.replace("\r\n", "\n").replace("\r", "\n") for name, value in pairs}
    if len(fields) != len(pairs):
        raise BadForm(HTTPStatus.BAD_REQUEST, "the form has a field twice; send it again from its page")
    return fields
