"""Compares requests and answers of every operation that Lessor sends with those of botocore."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode
from xml.sax.saxutils import escape

import pytest
from botocore.exceptions import ClientError, ParamValidationError
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import QueryParser
from botocore.serialize import create_serializer

from lessor_server.adapters.aws.gateway import OPERATIONS
from lessor_server.adapters.aws.http_connection import HttpAnswer
from lessor_server.adapters.aws.query_protocol import query_service

USED = sorted({(one.service, one.action) for one in OPERATIONS.values()})
NAMES = [action for _, action in USED]
EXAMPLES = 40
"""How many requests and answers of each operation are drawn."""
WRONG: tuple[Any, ...] = (None, 1, -1, True, 1.5, "", "x", b"x", [], ["x"], [1], {}, {"Nothing": 1}, (), [[]])
CHARACTERS = "aB09-_.~ +&=%/\"'<>\n\té€\U0001f600"
UNREADABLE = "the answer cannot be read"


@cache
def model_of(service: str) -> ServiceModel:
    """Return botocore's model of a service."""
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def text(rng: random.Random) -> str:
    """Return a short text of difficult characters, often empty."""
    return "".join(rng.choices(CHARACTERS, k=rng.choice((0, 1, 2, 9))))


# --- requests ---------------------------------------------------------------------------------------------


def drawn(rng: random.Random, shape: Any, wrong: float) -> Any:
    """Return a value of an input shape; each of its parts is wrong with this probability."""
    if rng.random() < wrong:
        return rng.choice(WRONG)
    match shape.type_name:
        case "structure":
            present = [
                (name, member)
                for name, member in shape.members.items()
                if rng.random() < (1 - wrong if name in shape.required_members else 0.5)
            ]
            return {name: drawn(rng, member, wrong) for name, member in present}
        case "list":
            return [drawn(rng, shape.member, wrong) for _ in range(rng.randint(0 if wrong else 1, 3))]
        case "integer":
            return rng.choice((-1, 0, 1, 900, 50_000))
        case "boolean":
            return rng.choice((True, False))
        case _:
            return text(rng) if wrong else text(rng) + "x" * 20


def by_botocore(service: str, action: str, params: Any) -> bytes:
    """Return the form that a client of botocore sends."""
    model = model_of(service).operation_model(action)
    form = create_serializer("query", True).serialize_to_request(params, model)["body"]
    return urlencode(form).encode()


def tried(make: Callable[[], Any]) -> Any:
    """Return what was made, or what was wrong with it."""
    try:
        return make()
    except ParamValidationError as error:
        return str(error)
    except Exception:  # noqa: BLE001
        return UNREADABLE


@pytest.mark.parametrize(("service", "action"), USED, ids=NAMES)
def test_a_request_is_written_as_botocore_writes_it(service: str, action: str) -> None:
    """Parameters that botocore refuses are refused in its words."""
    rng, ours = random.Random(action), query_service(service)
    operation = ours.operation(action)
    shape = model_of(service).operation_model(action).input_shape
    for number in range(EXAMPLES):
        params = drawn(rng, shape, (0.0, 0.1)[number % 2]) if shape else {}
        written = tried(lambda params=params: ours.write(operation, params))  # type: ignore[misc]
        assert written == tried(lambda params=params: by_botocore(service, action, params))  # type: ignore[misc]


def test_every_character_is_escaped_as_in_a_form() -> None:
    every = "".join(map(chr, range(0x300)))
    ours = query_service("iam")
    params = {"UserName": every, "PolicyName": every[:128], "PolicyDocument": every[::-1]}
    assert ours.write(ours.operation("PutUserPolicy"), params) == by_botocore("iam", "PutUserPolicy", params)


# --- answers ----------------------------------------------------------------------------------------------


def inner(rng: random.Random, shape: Any, wrong: float) -> str:
    """Return the XML of an output shape; each part is left out, doubled or unknown with this probability."""
    match shape.type_name:
        case "structure":
            parts = [
                tagged(rng, member.serialization.get("name", name), inner(rng, member, wrong), wrong)
                for name, member in shape.members.items()
            ]
            if rng.random() < 0.5:
                rng.shuffle(parts)
            return "\n".join([*parts, "<Unknown><a>1</a></Unknown>"])
        case "list":
            name = shape.member.serialization.get("name", "member")
            return "".join(
                tagged(rng, name, inner(rng, shape.member, wrong), wrong) for _ in range(rng.randint(0, 2))
            )
        case "map":
            pairs = [(inner(rng, shape.key, wrong), inner(rng, shape.value, wrong)) for _ in range(2)]
            return "".join(f"<entry><key>{key}</key><value>{value}</value></entry>" for key, value in pairs)
        case "timestamp":
            right = ("2025-01-01T00:00:00Z", "2026-02-28T23:59:59.123Z")
            return rng.choice(right if rng.random() >= wrong else ("never", ""))
        case "integer":
            return rng.choice(("0", "-1", "99") if rng.random() >= wrong else ("", "x", "1.5"))
        case "boolean":
            return rng.choice(("true", "false", "", "True"))
        case _:
            return escape(text(rng)) if rng.random() >= wrong else "<x>inner</x>"


def tagged(rng: random.Random, name: str, inside: str, wrong: float) -> str:
    """Return an element, which may be missing or twice there."""
    one = f"<{name}>{inside}</{name}>" if inside else f"<{name}/>"
    return one * (rng.choice((0, 2)) if rng.random() < wrong else 1)


def plain(value: Any) -> Any:
    """Return a result without elements of XML: several in place of a text are only counted."""
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value if isinstance(value, str | int | datetime | None) else type(value)


def parsed(service: str, action: str, status: int, body: bytes) -> Any:
    """Return botocore's own reading of an answer."""
    answer = {"body": body, "headers": {"date": "today"}, "status_code": status}
    shape = model_of(service).operation_model(action).output_shape
    return plain(QueryParser(timestamp_parser=datetime.fromisoformat).parse(answer, shape))


@pytest.mark.parametrize(("service", "action"), USED, ids=NAMES)
def test_an_answer_is_read_as_botocore_reads_it(service: str, action: str) -> None:
    rng, ours = random.Random(action), query_service(service)
    shape = model_of(service).operation_model(action).output_shape
    results = []
    for number in range(EXAMPLES):
        result = inner(rng, shape, (0.0, 0.03)[number % 2]) if shape else ""
        wrapper = f"<{action}Result>{result}</{action}Result>" if shape else ""
        about = rng.choice(("<RequestId>r-1</RequestId>", "", "<RequestId/><Other>x</Other>"))
        body = (
            f'<?xml version="1.0"?>\n<{action}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
            f"{wrapper}<ResponseMetadata>{about}</ResponseMetadata></{action}Response>"
        ).encode()
        answer = HttpAnswer(200, {"date": "today"}, body)
        read = tried(lambda answer=answer: plain(ours.read(ours.operation(action), answer)))  # type: ignore[misc]
        assert read == tried(lambda body=body: parsed(service, action, 200, body))  # type: ignore[misc]
        results.append(read)
    assert results.count(UNREADABLE) <= EXAMPLES // 2


def test_a_field_that_nobody_needs_may_be_wrong() -> None:
    user = "<User><Arn>a</Arn><CreateDate>never</CreateDate><Path>/</Path><Path>/</Path></User>"
    body = f"<CreateUserResponse><CreateUserResult>{user}</CreateUserResult></CreateUserResponse>".encode()
    ours = query_service("iam")
    found = ours.read(ours.operation("CreateUser"), HttpAnswer(200, {}, body))["User"]
    assert found["Arn"] == "a"
    with pytest.raises(ValueError, match="never"):
        found["CreateDate"]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 500, 503])
@pytest.mark.parametrize("error", ["<Error>{}</Error>", "<Errors><Error>{}</Error></Errors>"])
@pytest.mark.parametrize("message", ["<Message>no &amp; \n é</Message>", "<Message/>"])
def test_an_error_is_read_as_botocore_reads_it(status: int, error: str, message: str) -> None:
    told = error.format(f"<Type>Sender</Type><Code>NoSuchEntity</Code>{message}")
    body = f"<ErrorResponse xmlns='a'>{told}<RequestId>r-1</RequestId></ErrorResponse>".encode()
    ours = query_service("iam")
    with pytest.raises(ClientError) as caught:
        ours.read(ours.operation("GetUser"), HttpAnswer(status, {"date": "today"}, body))
    theirs = parsed("iam", "GetUser", status, body)
    assert caught.value.operation_name == "GetUser"
    assert caught.value.response["ResponseMetadata"] == theirs["ResponseMetadata"]
    for name in ("Code", "Message"):
        assert caught.value.response["Error"][name] == (theirs["Error"][name] or "")
