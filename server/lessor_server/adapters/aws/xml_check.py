"""Parses a body only if it is an answer of AWS's query protocol.

Source: botocore's parsers for the protocol, AWS Query Protocol ("Smithy, AWS query protocol, Response
serialization"): ``<ActionResponse>`` with status 200, ``<ErrorResponse>`` with the error's code otherwise.
The SDK reads any well-formed page as a success without a result, or as an error without a code.
"""

from __future__ import annotations

import re
from typing import Any, Final
from xml.etree import ElementTree as ET

from lessor_server.adapters.aws.http_connection import NotAnAnswer

MAX_TAGS: Final = 1 << 16
"""Opening and closing tags: 1,000 results of the simulator have two thirds of that."""
MAX_QUOTES: Final = 1 << 14
"""An attribute has two, and AWS has one attribute; the text of a user's fifty tags may have 12,800."""
MAX_NAME_BYTES: Final = 1 << 24
"""All names in memory, each with its namespace: AWS's take 4 MiB at most. A policy may have any text."""
_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9.:_-]{0,99}")
_ERRORS: Final = ("{*}Error", "{*}Errors/{*}Error")
"""The places of an error: AWS's, and moto's for errors of authentication."""


def require_aws_answer(operation_model: Any, response_dict: Any, **_: object) -> None:
    """Raise ``NotAnAnswer`` unless an answer is AWS's; a handler of botocore's ``before-parse``."""
    parse_answer(operation_model.name, response_dict["status_code"], response_dict["body"])


def parse_answer(action: str, status: int, body: bytes) -> ET.Element:
    """Return the root of AWS's answer to ``action``, or raise ``NotAnAnswer``, without the body's text."""
    # AWS declares no entities; they could expand without limit. Other encodings than UTF-8 could hide them.
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        raise NotAnAnswer(status, "the body is not UTF-8") from None
    if b"\0" in body or b"<!" in body:
        raise NotAnAnswer(status, "the body is not XML of AWS")
    if len(body) > MAX_QUOTES:
        _require_little_markup(status, body)
    try:
        root = ET.fromstring(body, ET.XMLParser(encoding="utf-8"))  # noqa: S314  # it has no entities
    except ET.ParseError:
        raise NotAnAnswer(status, "the body is not XML, or cut") from None
    name = root.tag.rpartition("}")[2]
    if status == 200:
        if name != f"{action}Response":
            raise NotAnAnswer(status, f"the body is not an answer to {action}")
    elif name != "ErrorResponse" or status < 400:
        raise NotAnAnswer(status, "the body is not an error of AWS")
    elif _CODE.fullmatch(find_error(root)[0]) is None:
        raise NotAnAnswer(status, "the error has no code of AWS")
    return root


def _require_little_markup(status: int, body: bytes) -> None:
    """Raise ``NotAnAnswer`` if parsing would take long, or much more memory than the body."""
    tags, quotes = body.count(b"<"), body.count(b'"') + body.count(b"'")
    if tags > MAX_TAGS or quotes > MAX_QUOTES:
        raise NotAnAnswer(status, f"the body has more than {MAX_TAGS} tags or {MAX_QUOTES} quotes")
    # The parser writes the namespace into each name. No attribute value has the character "<".
    namespace = max((len(run) for run in body.split(b"<") if b"xmlns" in run), default=0)
    if namespace * (tags + quotes) > MAX_NAME_BYTES:
        raise NotAnAnswer(status, f"the names in the body are longer than {MAX_NAME_BYTES} bytes")


def find_error(root: ET.Element) -> tuple[str, str, str]:
    """Return the code, the message and the request id of an error, each empty if it is missing."""
    error = next((found for path in _ERRORS if (found := root.find(path)) is not None), root)
    return error.findtext("{*}Code", ""), error.findtext("{*}Message", ""), root.findtext("{*}RequestId", "")
