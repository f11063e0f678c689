"""Tests of answers that are read without a parser: each must be read as the parser reads it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import pytest

from lessor_server.adapters.aws import query_protocol
from lessor_server.adapters.aws.flat_answer import MAX_BYTES, read_flat
from lessor_server.adapters.aws.http_connection import HttpAnswer
from lessor_server.adapters.aws.query_protocol import query_service
from lessor_server.adapters.aws.xml_check import parse_answer

NAMESPACE = "https://iam.amazonaws.com/doc/2010-05-08/"
USER = {
    "Path": "/lessor/",
    "UserName": "lessor-aws-app-1",
    "UserId": "AIDA1",
    "Arn": "arn:aws:iam::123456789012:user/lessor/lessor-aws-app-1",
    "CreateDate": "2026-01-01T00:00:00Z",
}
KEY = {
    "UserName": "u",
    "AccessKeyId": "AKIA1",
    "Status": "",
    "SecretAccessKey": "a+/\"b='c",
    "CreateDate": "2026-01-01T00:00:00Z",
}
MEMBERS = {"CreateUser": ("User", USER), "GetUser": ("User", USER), "CreateAccessKey": ("AccessKey", KEY)}
SPACES = ("", "\n  ", "\r\n\t")
MUTATIONS = 6000


def body_of(action: str, space: str = "", start: str = "", texts: Mapping[str, str] | None = None) -> bytes:
    """Return an answer with ``space`` between its elements."""
    lines = [f'{start}<{action}Response xmlns="{NAMESPACE}">']
    if action in MEMBERS:
        name, usual = MEMBERS[action]
        leaves = [f"<{tag}>{text}</{tag}>" for tag, text in (usual if texts is None else texts).items()]
        lines += [f"<{action}Result>", f"<{name}>", *leaves, f"</{name}>", f"</{action}Result>"]
    lines += ["<ResponseMetadata>", "<RequestId>r-1</RequestId>", "</ResponseMetadata>"]
    return space.join([*lines, f"</{action}Response>"]).encode() + space.encode()


def read(action: str, body: bytes) -> object:
    """Return an answer as plain values, or the type of the error."""
    ours = query_service("iam")
    try:
        return plain(ours.read(ours.operation(action), HttpAnswer(200, {"date": "today"}, body)))
    except Exception as error:  # noqa: BLE001 - whatever it is, both ways must raise it
        return type(error)


def read_by_parser(action: str, body: bytes) -> object:
    """Return the same as the parser reads it."""
    with patch.object(query_protocol, "read_flat", lambda _: None):
        return read(action, body)


def plain(value: Any) -> Any:
    """Return a result without structures that read when they are asked."""
    return {name: plain(one) for name, one in value.items()} if isinstance(value, Mapping) else value


@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.parametrize("start", ["", '<?xml version="1.0"?>', '<?xml version="1.0" encoding="UTF-8"?>\n'])
@pytest.mark.parametrize("action", [*MEMBERS, "PutUserPolicy", "DeleteUser"])
def test_a_flat_answer_is_read_as_the_parser_reads_it(action: str, start: str, space: str) -> None:
    body = body_of(action, space, start)
    with patch.object(query_protocol, "parse_answer", side_effect=AssertionError("parsed")):
        found = read(action, body)
    assert isinstance(found, dict)
    assert found == read_by_parser(action, body)


def test_a_list_of_one_text_is_read_as_the_parser_reads_it() -> None:
    texts = "<PolicyNames><member>lessor</member></PolicyNames>"
    about = "<ResponseMetadata><RequestId>r-1</RequestId></ResponseMetadata>"
    action = "ListUserPolicies"
    result = f"<{action}Result>{texts}</{action}Result>"
    body = f'<{action}Response xmlns="{NAMESPACE}">{result}{about}</{action}Response>'
    assert read_flat(body.encode()) is not None
    found = read(action, body.encode())
    assert found == read_by_parser(action, body.encode())
    assert isinstance(found, dict)
    assert found["PolicyNames"] == ["lessor"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("AIDA1", "AIDA&amp;1"),
        ("AIDA1", "AIDÄ1"),
        ("AIDA1", "AIDA\x011"),
        ("AIDA1", "AIDA]]>1"),
        ("AIDA1", "<![CDATA[AIDA1]]>"),
        ("AIDA1", "AIDA<!-- -->1"),
        ("AIDA1", "<a>AIDA1</a>"),
        ("<UserId>", "<UserId a='1'>"),
        ("<UserId>AIDA1</UserId>", "<UserId/>"),
        ("<UserId>AIDA1</UserId>", "<UserId>AIDA1</UserID>"),
        ("<UserId>AIDA1</UserId>", "<UserId>AIDA1</UserId><UserId>AIDA2</UserId>"),
        ("<UserId>AIDA1</UserId>", "<UserId>AIDA1</UserId>\x0b"),
        ("<UserId>AIDA1</UserId>", "<UserId>AIDA1"),
        ("</User>", "</User><Marker>m</Marker>"),
        ("</CreateUserResponse>", "</CreateUserResponse><a/>"),
        ("</CreateUserResponse>", "</GetUserResponse>"),
        ("r-1", ""),
        (NAMESPACE, "http://www.w3.org/2000/xmlns/"),
        (f' xmlns="{NAMESPACE}"', ""),
    ],
)
def test_whatever_is_not_flat_is_left_to_the_parser(old: str, new: str) -> None:
    body = body_of("CreateUser").decode()
    assert old in body
    assert read_flat(body.replace(old, new).encode()) is None


def test_a_long_answer_is_left_to_the_parser() -> None:
    assert read_flat(body_of("CreateUser", texts=USER | {"UserName": "u" * MAX_BYTES})) is None


@pytest.mark.parametrize("action", ["GetUser", "CreateAccessKey", "PutUserPolicy", "ListUsers"])
def test_an_answer_to_another_action_is_refused_as_by_the_parser(action: str) -> None:
    body = body_of("CreateUser")
    assert read(action, body) == read_by_parser(action, body)


def test_what_is_read_without_the_parser_is_well_formed_however_a_body_is_changed() -> None:
    rng, flat = random.Random("flat"), 0
    likely = [b"<", b">", b"</", b"/>", b"<UserId>", b"&", b"]]>", b"\n"]
    signs = [bytes([code]) for code in range(256)] + likely * 8
    for _ in range(MUTATIONS):
        body = body_of("CreateUser", rng.choice(SPACES))
        start = rng.randrange(len(body))
        body = body[:start] + rng.choice(signs) + body[start + rng.randrange(3) :]
        if (found := read_flat(body)) is not None:
            flat += 1
            parse_answer(found.action, 200, body)
            assert read("CreateUser", body) == read_by_parser("CreateUser", body)
    assert MUTATIONS // 20 < flat < MUTATIONS
