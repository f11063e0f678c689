"""The body of a request: bounded in size, and parsed as strict JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Final, NoReturn

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import BaseRequest, RequestPayloadError

from lessor_server.domain.errors.base import DeadlineExceeded, Invalid, Violation

BODY_SECONDS: Final = 10.0
MAX_BODY: Final = 1 << 20
MAX_ON_LOOP: Final = 32 << 10
"""A larger body is parsed on a thread: it takes longer than the loop may be blocked."""
MAX_ITEMS: Final = 16_384
"""The maximum commas and opening brackets, those in texts included: a million empty lists take a second."""
MAX_DEPTH: Final = 32
"""The maximum depth of nested arrays and objects; a policy needs about ten."""
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


async def read_bytes(request: BaseRequest, limit: int = MAX_BODY) -> bytes:
    """Return the body of a request.

    Raises:
        Invalid: It has more than ``limit`` bytes, is compressed, or malformed.
        DeadlineExceeded: It did not arrive within 10 s.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _invalid("is compressed", "send it without Content-Encoding")
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(CONTINUE)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise DeadlineExceeded("the body did not arrive in time") from None
    except (RequestPayloadError, HttpProcessingError):
        raise _invalid("is not valid HTTP/1.1", "send its length, or chunks") from None
    except RuntimeError:  # aiohttp's, if the connection ended before
        raise _invalid("has ended with its connection", "send it again") from None
    return bytes(body)


async def read_json_body(request: BaseRequest) -> dict[str, object]:
    """Return the JSON object in the body of a request; an empty body and ``null`` are empty objects.

    Raises:
        Invalid: It is too large, not JSON in UTF-8, has too many items, is nested too deeply, or is
            something else than an object.
    """
    body = await read_bytes(request)
    if len(body) > MAX_ON_LOOP:
        return await asyncio.to_thread(parse_object, body)
    return parse_object(body)


def parse_object(body: bytes) -> dict[str, object]:
    """Return the JSON object of a body; raises ``Invalid`` as ``read_json_body``."""
    if not body.strip():
        return {}
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_ITEMS:
        raise _invalid(f"has more than {MAX_ITEMS} items", "send fewer")
    try:
        found = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_refuse_constant)
        if b"\\u" in body:
            json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except UnicodeError:
        raise _invalid("is not UTF-8", "send JSON in UTF-8") from None
    except (ValueError, RecursionError):
        raise _invalid("is not JSON, or names a member twice", "send a JSON object") from None
    _require_shallow(found)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _invalid("is not a JSON object", "send an object, such as {}")
    return found


def _require_shallow(value: object, left: int = MAX_DEPTH) -> None:
    """Raise ``Invalid`` if arrays and objects are nested too deeply."""
    if not isinstance(value, dict | list):
        return
    if not left:
        raise _invalid(f"is nested more than {MAX_DEPTH} levels deep", "send a flatter object")
    for member in value.values() if isinstance(value, dict) else value:
        _require_shallow(member, left - 1)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is there twice")
    return found


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("not JSON")


def _too_large(limit: int) -> Invalid:
    return _invalid(f"has more than {limit} bytes", "send less")


def _invalid(problem: str, fix: str) -> Invalid:
    return Invalid((Violation("body", problem, fix),))
