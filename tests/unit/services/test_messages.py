"""Checks conversions between messages and values of the domain."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from lessor.v1 import creds_pb2, role_pb2
from lessor_server.domain.errors.base import Invalid
from lessor_server.domain.policy import policy
from lessor_server.services import messages

CORPUS = Path(__file__).resolve().parents[2] / "corpus"
NAMES = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def fields(expected: pytest.ExceptionInfo[Invalid]) -> list[str]:
    """Return the paths of an error's violations."""
    return [violation.field for violation in expected.value.violations]


def test_no_mount_means_the_default_one() -> None:
    assert messages.mount_of("") == "aws"
    assert messages.mount_of("second") == "second"
    with pytest.raises(Invalid) as raised:
        messages.mount_of("../x")
    assert fields(raised) == ["mount"]
    with pytest.raises(Invalid) as raised:
        messages.role_of("", "name")
    assert fields(raised) == ["name"]


@pytest.mark.parametrize("text", ["x" * 257, "a\nb", "a\x00", "a\x1b[2J", "\u202e"])
def test_an_owner_that_nobody_can_be_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as raised:
        messages.owner_of(text)
    assert fields(raised) == ["owner"]


@pytest.mark.parametrize("text", ["", "root", "k8s/prod/api", "x" * 256, "%", "é"])
def test_an_owner_is_taken_as_it_is(text: str) -> None:
    assert messages.owner_of(text) == text


@given(st.integers(min_value=-(10**8), max_value=10**8))
def test_a_duration_is_converted_without_loss(microseconds: int) -> None:
    span = timedelta(microseconds=microseconds)
    request = creds_pb2.GenerateCredentialsRequest(ttl=messages.to_duration(span))
    assert messages.parse_duration(request, "ttl") == span


def test_an_absent_duration_is_none() -> None:
    assert messages.parse_duration(creds_pb2.GenerateCredentialsRequest(), "ttl") is None
    zero = creds_pb2.GenerateCredentialsRequest(ttl=Duration())
    assert messages.parse_duration(zero, "ttl") == timedelta(0)
    assert messages.to_duration(None) is None


@pytest.mark.parametrize(
    "value", [Duration(seconds=2**62), Duration(nanos=10**9), Duration(seconds=-(2**62))]
)
def test_a_duration_out_of_bounds_is_refused_by_its_field(value: Duration) -> None:
    request = creds_pb2.GenerateCredentialsRequest(ttl=value)
    with pytest.raises(Invalid) as raised:
        messages.parse_duration(request, "ttl", "role")
    assert fields(raised) == ["role.ttl"]


def test_a_ttl_is_whole_seconds_and_an_instant_keeps_microseconds() -> None:
    assert messages.to_whole_seconds(timedelta(seconds=5, milliseconds=900)) == Duration(seconds=5)
    assert messages.to_whole_seconds(timedelta(seconds=-5)) == Duration()
    instant = messages.timestamp(1_900_000_000_000_007)
    assert instant is not None
    assert (instant.seconds, instant.nanos) == (1_900_000_000, 7000)
    assert messages.timestamp(0) is None


@given(st.dictionaries(NAMES, JSON, min_size=1, max_size=4))
def test_a_document_is_converted_without_loss(document: dict[str, object]) -> None:
    assert messages.parse_document(messages.struct(json.dumps(document)), "x") == document


def test_whole_numbers_of_a_struct_are_whole_in_the_policy() -> None:
    """A Struct has only floats."""
    lines = [line for file in sorted(CORPUS.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()]
    assert len(lines) > 300
    for line in lines:
        written = json.loads(line)["document"]
        if not written:
            continue  # refused, with a hint
        came = messages.parse_document(messages.struct(json.dumps(written)), "x")
        assert policy.canonical(came) == policy.canonical(written)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_json_does_not_have_is_refused_by_its_field(number: float) -> None:
    with pytest.raises(Invalid) as raised:
        messages.parse_document(Struct(fields={"a": Value(number_value=number)}), "role.policy_document")
    assert fields(raised) == ["role.policy_document"]


def stored() -> role_pb2.Role:
    """Return a role as it is stored."""
    role = role_pb2.Role(name="app", max_leases=5, policy_arns=["a", "b"], iam_tags={"k": "v"})
    role.max_ttl.seconds = 60
    role.policy_document.update({"Version": "1", "Old": 1})
    return role


def test_a_mask_changes_what_it_names_and_nothing_else() -> None:
    document = Struct()
    document.update({"Version": "2"})
    sent = role_pb2.Role(policy_arns=["c"], policy_document=document, user_path="/x/", iam_tags={"n": "w"})
    paths = ["policy_arns", "policy_document", "max_ttl", "max_leases", "iam_tags"]
    merged = messages.apply_mask(stored(), sent, paths)
    assert list(merged.policy_arns) == ["c"]
    assert dict(merged.iam_tags) == {"n": "w"}
    assert merged.policy_document == document
    assert (merged.name, merged.user_path, merged.max_leases) == ("app", "", 0)
    assert not merged.HasField("max_ttl")


def test_an_empty_mask_changes_nothing() -> None:
    assert messages.apply_mask(stored(), role_pb2.Role(name="other"), ()) == stored()


def test_a_mask_of_unknown_fields_is_refused_with_all_of_them() -> None:
    mask = FieldMask(paths=["nope", "max_ttl", "max_ttl.seconds"])
    with pytest.raises(Invalid) as raised, messages.Problems() as problems:
        named = messages.paths(mask, role_pb2.Role.DESCRIPTOR.fields_by_name, "name fields", problems)
    assert named == ["max_ttl"]
    assert fields(raised) == ["update_mask"] * 2
    assert {"nope", "seconds"} <= set(str(raised.value.violations).replace('"', ".").split("."))


def test_a_page_has_a_bounded_size() -> None:
    assert [messages.page_size(size) for size in (0, 1, 1000)] == [100, 1, 1000]
    for size in (-1, 1001):
        with pytest.raises(Invalid) as raised:
            messages.page_size(size)
        assert fields(raised) == ["page_size"]


def numbered(number: int) -> role_pb2.Role:
    """Return a role that has a third of what a page takes."""
    return role_pb2.Role(max_leases=number, external_id="x" * (messages.MAX_PAGE_BYTES // 3))


async def test_a_page_ends_at_its_size_or_where_its_bytes_are_too_many() -> None:
    """A page with large items is shorter, but not empty."""
    for found, size, numbers, more in (
        ([1, 2, 3], 2, [1, 2], True),
        ([1, 2], 2, [1, 2], False),
        ([], 2, [], False),
        ([1, 2, 3, 4], 4, [1, 2], True),
    ):
        page, follows = await messages.fill_page(found, size, numbered)
        assert ([role.max_leases for role in page], follows) == (numbers, more)


async def test_one_item_that_is_larger_than_a_page_is_a_page() -> None:
    """Otherwise the list would never end."""
    huge = role_pb2.Role(external_id="x" * (messages.MAX_PAGE_BYTES + 1))
    page, more = await messages.fill_page([huge, huge], 1, lambda role: role)
    assert (len(page), more) == (1, True)


async def test_a_long_page_lets_other_calls_run() -> None:
    turns: list[int] = []
    made: list[int] = []

    def convert_one(number: int) -> role_pb2.Role:
        made.append(number)
        return role_pb2.Role(max_leases=number)

    async def other() -> None:
        while len(made) < 100:
            turns.append(len(made))
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(other())
        await messages.fill_page(range(100), 100, convert_one)
    assert max(after - before for after, before in zip(turns[1:], turns, strict=False)) <= messages.STRIDE


def test_a_path_that_comes_twice_counts_once() -> None:
    sent = role_pb2.Role(policy_arns=["c"], iam_tags={"n": "w"})
    mask = FieldMask(paths=["policy_arns", "policy_arns", "iam_tags", "policy_arns"])
    with messages.Problems() as problems:
        named = messages.paths(mask, role_pb2.Role.DESCRIPTOR.fields_by_name, "name fields", problems)
    assert named == ["policy_arns", "iam_tags"]
    merged = messages.apply_mask(stored(), sent, ["policy_arns"] * 3)
    assert list(merged.policy_arns) == ["c"]


def test_a_mask_has_a_bounded_number_of_paths() -> None:
    fields_of_role = role_pb2.Role.DESCRIPTOR.fields_by_name
    with messages.Problems() as problems:
        mask = FieldMask(paths=["max_ttl"] * messages.MAX_PATHS)
        assert messages.paths(mask, fields_of_role, "name fields", problems) == ["max_ttl"]
    mask.paths.append("max_ttl")
    with pytest.raises(Invalid) as raised, messages.Problems() as problems:
        messages.paths(mask, fields_of_role, "name fields", problems)
    assert fields(raised) == ["update_mask"]


def test_an_empty_document_is_refused_with_a_hint() -> None:
    """A library that can't convert a plain object to a Struct sends one without fields."""
    with pytest.raises(Invalid) as raised:
        messages.parse_document(Struct(), "role.policy_document")
    (violation,) = raised.value.violations
    assert (violation.field, violation.problem) == ("role.policy_document", "is an empty object")
    assert "proto-loader" in violation.fix


@pytest.mark.parametrize("text", ["x" * 256, "ticket 4711: Größe prüfen", ""])
def test_a_reason_is_printable_and_of_at_most_256_characters(text: str) -> None:
    assert messages.reason(text) == text


@pytest.mark.parametrize(
    "text", ["x" * 257, "two\nlines", "tab\there", "\x1b[31m", "\u202eright to left", "\x00"]
)
def test_a_reason_that_is_too_long_or_not_printable_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as raised:
        messages.reason(text)
    assert fields(raised) == ["reason"]
