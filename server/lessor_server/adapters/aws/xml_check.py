"""Checks whether a body is an answer of AWS's query protocol, before the SDK reads it.

Source: botocore's parsers for the protocol, AWS Query Protocol ("Smithy, AWS query protocol, Response
serialization"): ``<ActionResponse>`` with status 200, ``<ErrorResponse>`` with the error's code otherwise.
The SDK reads any well-formed page as a success without a result, or as an error without a code.
"""

from __future__ import annotations

import re
from typing import Any, Final
from xml.etree import ElementTree as ET

from lessor_server.adapters.aws.transport import NotAnAnswer

MAX_TAGS: Final = 1 << 16
"""Opening and closing tags: 1,000 results of the simulator have two thirds of that."""
MAX_QUOTES: Final = 1 << 14
"""An attribute has two, and AWS has one attribute; the text of a user's fifty tags may have 12,800."""
_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9.:_-]{0,99}")
_ERRORS: Final = ("{*}Error", "{*}Errors/{*}Error")
"""The places of an error: AWS's, and moto's for errors of authentication."""


def require_aws_answer(operation_model: Any, response_dict: Any, **_: object) -> None:
    """Raise ``NotAnAnswer`` unless an answer is AWS's; a handler of botocore's ``before-parse``."""
    status: int = response_dict["status_code"]
    problem = find_problem(operation_model.name, status, response_dict["body"])
    if problem:
        raise NotAnAnswer(status, problem)


def find_problem(action: str, status: int, body: bytes) -> str:
    """Return why a body is not AWS's answer to ``action``, without its text, or nothing."""
    # AWS declares no entities; they could expand without limit. Other encodings than UTF-8 could hide them.
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return "the body is not UTF-8"
    if b"\0" in body or b"<!" in body:
        return "the body is not XML of AWS"
    if body.count(b"<") > MAX_TAGS or body.count(b'"') + body.count(b"'") > MAX_QUOTES:
        return f"the body has more than {MAX_TAGS} tags or {MAX_QUOTES} quotes"
    try:
        root = ET.fromstring(body, ET.XMLParser(encoding="utf-8"))  # noqa: S314  # it has no entities
    except ET.ParseError:
        return "the body is not XML, or cut"
    name = root.tag.rpartition("}")[2]
    if status == 200:
        return "" if name == f"{action}Response" else f"the body is not an answer to {action}"
    if name != "ErrorResponse" or status < 400:
        return "the body is not an error of AWS"
    error = next((found for path in _ERRORS if (found := root.find(path)) is not None), root)
    code = error.findtext("{*}Code", "")
    return "" if _CODE.fullmatch(code) else "the error has no code of AWS"
