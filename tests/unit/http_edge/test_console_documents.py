"""What is typed into forms: JSON with the lines of its members, durations, lists and maps."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor.v1 import role_pb2
from lessor.values import JsonValue
from lessor_server.http_edge.console.documents import MAX_TEXT, LineFinder, NotADocument, parse_json_text
from lessor_server.http_edge.console.forms import Control, ControlKind, fill_form, typed_of
from lessor_server.http_edge.console.views import role_forms

TEXT = """{
  "Version": "2012-10-17",
  "Statement": [
    {"Effect": "Allow",
     "Action": "ec2:DescribeRegions",
     "Condition": {
       "StringEquals": {"aws:x": "a, ] } b"}}}, {
     "Effect": "x",
     "Action": [
       "a:b",
       "c:d"
     ]}
  ]
}"""
DOCUMENTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("Version", 2),
        ("Statement", 3),
        ("Statement[0].Effect", 4),
        ("Statement[0].Action", 5),
        ("Statement[0].Action[0]", 5),
        ('Statement[0].Condition.StringEquals["aws:x"]', 7),
        ("Statement[1]", 7),
        ("Statement[1].Effect", 8),
        ("Statement[1].Action[1]", 11),
        ("Statement[1].Missing", 7),
        ("Elsewhere", 1),
        ("", 1),
    ],
)
def test_the_line_of_a_member_is_found(path: str, line: int) -> None:
    assert LineFinder(TEXT).find(path) == line


@given(DOCUMENTS, st.sampled_from([None, 2]))
def test_every_document_is_parsed_as_json_parses_it_and_has_a_line_for_every_key(
    document: dict[str, object], indent: int | None
) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    assert parse_json_text(text) == document
    for number, key in enumerate(document):
        if (
            key.isascii()
            and key.isalpha()
            and indent
            and not any(isinstance(one, dict | list) for one in document.values())
        ):
            assert LineFinder(text).find(key) == number + 2


@given(st.text(max_size=30))
def test_no_text_raises_anything_else(text: str) -> None:
    found: dict[str, JsonValue] = {}
    with suppress(NotADocument):
        found = parse_json_text(text)
    assert isinstance(found, dict)


def test_a_long_text_is_refused_before_it_is_read() -> None:
    with pytest.raises(NotADocument, match="has more than 32,768 characters"):
        parse_json_text('{"' + "a" * 39_996 + '": 1}')
    assert LineFinder('{"a": 1}' + " " * 40_000).find("a") == 0


@pytest.mark.parametrize("text", ["@secret", "", "["])
def test_a_text_that_is_not_an_object_has_no_lines(text: str) -> None:
    assert LineFinder(text).find("a") == 0


@pytest.mark.parametrize("text", ["[" * 1000, '{"a":' * 500, "{" * 30_000])
def test_depth_is_bounded_before_anything_is_parsed(text: str) -> None:
    with pytest.raises(NotADocument, match="nested deeper than 20 levels"):
        parse_json_text(text)


def test_the_line_of_a_syntax_error_is_known() -> None:
    with pytest.raises(NotADocument) as caught:
        parse_json_text('{\n  "a": 1,\n  b\n}')
    assert caught.value.line == 3


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("default_ttl", "soon", "is not a valid duration"),
        ("max_leases", "many", "is not a whole number"),
        ("max_leases", "9999999999", "is not a whole number"),
        ("iam_tags", "team", "is not a pair"),
        ("iam_tags", "a=1\na=2", "is there twice"),
        ("credential_type", "USER", "is not one of the choices"),
        ("policy_document", "@/etc/passwd", "is not valid JSON"),
        ("policy_document", "-", "is not valid JSON"),
    ],
)
def test_what_cannot_be_parsed_is_a_problem_of_its_field(name: str, text: str, problem: str) -> None:
    problems = fill_form(role_pb2.Role(), role_forms.CONTROLS, {name: text})
    assert [one.field for one in problems] == [name]
    assert problem in problems[0].text


def test_a_form_that_is_filled_from_a_message_gives_the_same_message() -> None:
    role = role_pb2.Role(
        name="reader",
        credential_type=role_pb2.Role.ASSUMED_ROLE,
        role_arns=["arn:aws:iam::123456789012:role/a", "arn:aws:iam::123456789012:role/b"],
        session_tags={"team": "blue", "stage": "prod"},
        max_leases=7,
        source_identity="{{identity.name}}",
    )
    role.default_sts_ttl.FromSeconds(5400)
    role.policy_document.update({"Version": "2012-10-17", "Statement": [{"Effect": "Deny"}]})
    again = role_pb2.Role()
    assert fill_form(again, role_forms.CONTROLS, typed_of(role, role_forms.CONTROLS)) == []
    assert again == role


def test_a_secret_is_never_filled_into_a_form() -> None:
    control = Control("external_id", "Secret", ControlKind.SECRET)
    assert typed_of(role_pb2.Role(external_id="secret"), (control,)) == {}


def test_the_form_of_a_role_has_every_field_of_the_message() -> None:
    fields = {name for name in role_pb2.Role.DESCRIPTOR.fields_by_name if name != "etag"}
    assert {one.name for one in role_forms.CONTROLS} == fields


@pytest.mark.parametrize(
    "text",
    [
        '"' + '\\"' * 16_000,
        "[" * 32_000,
        '{"a": "' + "\\" * 32_000,
        "{" * 100_000,
        '"' * 100_000,
        "\\" * 32_000,
    ],
)
def test_a_text_that_is_no_document_is_refused_after_one_reading(text: str) -> None:
    """A reading for each quote of a string without an end would take minutes, in which nobody is served."""
    with pytest.raises(NotADocument):
        parse_json_text(text)
    assert LineFinder(text).find("a") == 0


def test_a_document_that_is_longer_than_any_policy_is_refused() -> None:
    text = '{"Version": "2012-10-17"' + " " * MAX_TEXT + "}"
    with pytest.raises(NotADocument, match="more than 32,768 characters"):
        parse_json_text(text)
