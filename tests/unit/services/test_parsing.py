"""Checks what is refused of a request before anything else reads it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from lessor.v1 import config_pb2, lease_pb2, role_pb2
from lessor_server.app import SERVICES
from lessor_server.domain.aws import arn, tags
from lessor_server.domain.errors.base import Invalid, Violation
from lessor_server.domain.policy import policy
from lessor_server.domain.role import ROLE_ARNS_LIMIT, SESSION_POLICIES_LIMIT
from lessor_server.services import messages, parsing
from lessor_server.services.parsing import (
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_REQUEST_BYTES,
    MAX_TEXT,
    MAX_UNKNOWN,
    MAX_UNKNOWN_BYTES,
    MAX_UNSCANNED_BYTES,
    WELL_KNOWN_TYPES,
    parse,
)

UNKNOWN = b"\xa0\x06\x01"
"""Field 100 with the number 1."""
REQUESTS = [method.input_type for service in SERVICES for method in service.methods]


def varint(number: int) -> bytes:
    """Return a number as the wire has it."""
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def within(field: FieldDescriptor, *items: bytes) -> bytes:
    """Return a message whose field holds these bytes, each as one item."""
    return b"".join(varint(field.number << 3 | 2) + varint(len(item)) + item for item in items)


def places(kind: Descriptor, seen: tuple[str, ...] = ()) -> Iterator[tuple[bytes, str]]:
    """Yield a message for each message inside of ``kind``: with an unknown field there, and its path.

    Of a repeated message the first item is as it should be. Inside of well-known types the path stays.
    """
    yield UNKNOWN, "#100"
    own = kind.file.package != WELL_KNOWN_TYPES
    for field in kind.fields:
        inner = field.message_type
        if inner is None or inner.full_name in seen:
            continue
        if inner.GetOptions().map_entry:
            key, value = inner.fields_by_name["key"], inner.fields_by_name["value"]
            yield within(field, within(key, b"k") + UNKNOWN), f"#{field.number}"
            if value.message_type is not None:
                for data, path in places(value.message_type, (*seen, kind.full_name)):
                    yield within(field, within(key, b"k") + within(value, data)), path
            continue
        step = f"{field.name}[1]" if field.is_repeated else field.name
        before = (b"",) if field.is_repeated else ()
        for data, path in places(inner, (*seen, kind.full_name)):
            yield within(field, *before, data), f"{step}.{path}" if own else path


PLACES = [
    pytest.param(kind, data, path, id=f"{kind.name} {path} {index}")
    for kind in REQUESTS
    for index, (data, path) in enumerate(places(kind))
]


def refused(kind: Descriptor, data: bytes) -> tuple[Violation, ...]:
    """Return the violations with which bytes are refused."""
    with pytest.raises(Invalid) as raised:
        parse(GetMessageClass(kind), data)
    return raised.value.violations


@pytest.mark.parametrize(("kind", "data", "path"), PLACES)
def test_an_unknown_field_is_refused_at_any_depth(kind: Descriptor, data: bytes, path: str) -> None:
    """Nested, repeated, in maps and in well-known types."""
    assert [violation.field for violation in refused(kind, data)] == [path]


def test_the_generated_cases_include_repeated_messages_and_well_known_types() -> None:
    paths = {path for kind in REQUESTS for _, path in places(kind)}
    hops = {"config.assume_chain[1].#100", "static_role.assume_chain[1].#100"}
    assert {*hops, "update_mask.#100", "role.policy_document.#100", "ttl.#100", "role.#7"} <= paths
    assert len(PLACES) > 80


def test_at_most_twenty_unknown_fields_are_named() -> None:
    found = refused(role_pb2.PutRoleRequest.DESCRIPTOR, UNKNOWN * 30)
    assert [violation.field for violation in found] == ["#100", ""]
    assert "30 fields" in found[1].problem
    others = b"".join(varint(number << 3) + b"\x01" for number in range(100, 100 + MAX_UNKNOWN))
    assert len(refused(role_pb2.PutRoleRequest.DESCRIPTOR, others)) == MAX_UNKNOWN


@pytest.mark.parametrize("inside", [False, True])
def test_unknown_fields_of_many_bytes_are_not_listed(inside: bool) -> None:
    """To list them takes too long, so only their size is reported."""
    request = role_pb2.PutRoleRequest.DESCRIPTOR
    for count, named in ((MAX_UNKNOWN_BYTES // 3 - 2, True), (MAX_UNKNOWN_BYTES // 3 + 2, False)):
        data = UNKNOWN * count
        found = refused(request, within(request.fields_by_name["role"], data) if inside else data)
        assert ("#100" in found[0].field) is named
        assert named or "bytes" in found[0].problem


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"\x0b" * 200])
def test_bytes_that_are_not_the_request_are_refused(data: bytes) -> None:
    (violation,) = refused(lease_pb2.LookupLeaseRequest.DESCRIPTOR, data)
    assert violation.field == ""


def test_a_request_has_a_bounded_size() -> None:
    padding = b"\x0a\x00"  # the same field again and again: protobuf keeps the last
    data = padding * (MAX_REQUEST_BYTES // 2)
    assert parse(lease_pb2.LookupLeaseRequest, data) == lease_pb2.LookupLeaseRequest()
    (violation,) = refused(lease_pb2.LookupLeaseRequest.DESCRIPTOR, data + b"\xff")
    assert str(MAX_REQUEST_BYTES + 1) in violation.problem


def many(count: int) -> dict[str, role_pb2.PutRoleRequest | config_pb2.SetRootRequest]:
    """Return requests with so many items in one place."""
    null = Value(null_value=0)  # type: ignore[arg-type]
    listed = Struct(fields={"a": Value(list_value=ListValue(values=[null] * (count - 1)))})
    members = Struct(fields={f"k{index}": null for index in range(count)})
    hops = [config_pb2.AssumeStep()] * count
    return {
        "role.iam_groups": role_pb2.PutRoleRequest(role=role_pb2.Role(iam_groups=["g"] * count)),
        "role.iam_tags": role_pb2.PutRoleRequest(
            role=role_pb2.Role(iam_tags={f"k{index}": "v" for index in range(count)})
        ),
        "update_mask": role_pb2.PutRoleRequest(update_mask=FieldMask(paths=["a"] * count)),
        "role.policy_document": role_pb2.PutRoleRequest(role=role_pb2.Role(policy_document=listed)),
        "role.policy_document ": role_pb2.PutRoleRequest(role=role_pb2.Role(policy_document=members)),
        "config.assume_chain": config_pb2.SetRootRequest(config=config_pb2.RootConfig(assume_chain=hops)),
    }


@pytest.mark.parametrize("place", many(1))
def test_the_items_of_a_request_are_bounded(place: str) -> None:
    full = many(MAX_ITEMS)[place]
    assert parse(type(full), full.SerializeToString()) == full
    over = many(MAX_ITEMS + 1)[place]
    (violation,) = refused(over.DESCRIPTOR, over.SerializeToString())
    assert violation.field == place.strip()
    assert str(MAX_ITEMS) in violation.fix


def test_the_items_of_all_fields_are_counted_together() -> None:
    half = ["g"] * (MAX_ITEMS // 2 + 1)
    request = role_pb2.PutRoleRequest(role=role_pb2.Role(iam_groups=half, role_arns=half))
    (violation,) = refused(request.DESCRIPTOR, request.SerializeToString())
    assert violation.field == "role.iam_groups"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("role.external_id", {"external_id": "{}"}),
        ("role.role_arns[1]", {"role_arns": ["a", "{}"]}),
        ('role.iam_tags["k"]', {"iam_tags": {"k": "{}"}}),
        ("role.policy_document", {"policy_document": Struct(fields={"a": Value(string_value="{}")})}),
        ("role.policy_document", {"policy_document": Struct(fields={"{}": Value(string_value="a")})}),
    ],
)
def test_a_text_has_a_maximum_length_at_any_depth(path: str, fields: dict[str, object]) -> None:
    """In characters, not bytes."""
    for length in (MAX_TEXT, MAX_TEXT + 1):
        request = role_pb2.PutRoleRequest(role=role_pb2.Role(**fields))  # type: ignore[arg-type]
        data = request.SerializeToString()
        filled = rebuilt(data, "é" * length)
        if length == MAX_TEXT:
            parse(role_pb2.PutRoleRequest, filled)
        else:
            assert [one.field for one in refused(request.DESCRIPTOR, filled)] == [path]


def rebuilt(data: bytes, text: str) -> bytes:
    """Return the bytes of a PutRoleRequest with ``text`` in place of ``{}``."""
    role = role_pb2.PutRoleRequest.FromString(data).role
    for name in ("external_id",):
        setattr(role, name, getattr(role, name).replace("{}", text))
    arns = [one.replace("{}", text) for one in role.role_arns]
    del role.role_arns[:]
    role.role_arns.extend(arns)
    for key in role.iam_tags:
        role.iam_tags[key] = text
    for key, value in list(role.policy_document.fields.items()):
        filled = Value(string_value=value.string_value.replace("{}", text))
        del role.policy_document.fields[key]
        role.policy_document.fields[key.replace("{}", text)].CopyFrom(filled)
    return role_pb2.PutRoleRequest(role=role).SerializeToString()


def test_a_request_that_is_too_small_to_break_a_limit_breaks_none() -> None:
    """Its limits are not checked: here they are, of the deepest one."""
    deepest = b""
    while len(deepest) + 2 <= MAX_UNSCANNED_BYTES:
        deepest = within(Value.DESCRIPTOR.fields_by_name["list_value"], deepest)
        if len(deepest) + 2 <= MAX_UNSCANNED_BYTES:
            deepest = within(ListValue.DESCRIPTOR.fields_by_name["values"], deepest)
    assert len(deepest) in (MAX_UNSCANNED_BYTES - 1, MAX_UNSCANNED_BYTES)
    for kind in (Value, ListValue):
        assert len(parsing._scan(kind.FromString(deepest))) <= MAX_DEPTH + 1
    assert max(MAX_TEXT, MAX_ITEMS) > MAX_UNSCANNED_BYTES


def test_a_document_has_a_maximum_depth() -> None:
    """A policy needs seven levels."""
    for levels, right in ((7, True), (15, True), (30, False)):
        value = Value(string_value="x")
        for _ in range(levels):
            value = Value(list_value=ListValue(values=[value]))
        request = role_pb2.PutRoleRequest(role=role_pb2.Role(policy_document=Struct(fields={"a": value})))
        data = request.SerializeToString()
        if right:
            assert parse(role_pb2.PutRoleRequest, data) == request
        else:
            assert [one.field for one in refused(request.DESCRIPTOR, data)] == ["role.policy_document"]


def test_the_largest_valid_role_is_within_the_bounds() -> None:
    longest = "arn:aws-us-gov:iam::123456789012:role/" + "p" * 511 + "/" + "n" * 64
    assert len(longest) < arn.MAX_ARN
    key, value = "k" * (tags.KEY_LIMIT - 3), "v" * 512
    statement = {"Effect": "Allow", "Action": ["s3:A"] * 280, "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    assert math.isclose(len(policy.canonical(document)), policy.LIMIT, rel_tol=0.05)
    role = role_pb2.Role(
        name="n" * 64,
        credential_type=role_pb2.Role.ASSUMED_ROLE,
        role_arns=[f"{longest[:-3]}{index:03}" for index in range(ROLE_ARNS_LIMIT)],
        policy_arns=[longest] * SESSION_POLICIES_LIMIT,
        policy_document=messages.struct(policy.canonical(document)),
        session_tags={f"{key}{index:03}": value for index in range(tags.SESSION_LIMIT)},
        transitive_tag_keys=[f"{key}{index:03}" for index in range(tags.SESSION_LIMIT)],
        external_id="e" * 1224,
        source_identity="s" * 512,
        mfa_serial_number="m" * 256,
    )
    request = role_pb2.PutRoleRequest(role=role)
    assert parsing.parse(role_pb2.PutRoleRequest, request.SerializeToString()) == request
