"""Checks that each field of a role is in the protocol, the domain, the service, the stores and the CLI."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import click
import pytest
from google.protobuf.descriptor import FieldDescriptor
from tests.support.stores import OPENERS, bench

from lessor.cli.role import ROLE_OPTIONS
from lessor.v1 import role_pb2 as pb
from lessor_server.domain.role import Role
from lessor_server.services.role import _role, role_message

POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
ROLE = pb.Role.DESCRIPTOR


def full_message() -> pb.Role:
    """Return a role with another value than the default in each field."""
    message = pb.Role()
    for field in ROLE.fields:
        _fill(message, field)
    message.policy_document.update(POLICY)
    return message


def _fill(message: pb.Role, field: FieldDescriptor) -> None:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value["key"] = field.name
    elif field.message_type is not None and field.message_type.full_name == "google.protobuf.Duration":
        value.seconds = 100 + field.number
    elif field.is_repeated:
        value.append(f"{field.name}-value")
    elif field.type == FieldDescriptor.TYPE_STRING:
        setattr(message, field.name, field.name)
    elif field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_ENUM):
        setattr(message, field.name, 2)


def full_role() -> Role:
    """Return the domain's role of the full message."""
    message = full_message()
    return replace(_role("aws", message), etag=message.etag)


def test_a_message_with_every_field_is_valid() -> None:
    assert {field.name for field, _ in full_message().ListFields()} == set(ROLE.fields_by_name)


def test_protocol_and_domain_have_the_same_fields() -> None:
    assert {field.name for field in fields(Role)} - {"mount"} == set(ROLE.fields_by_name)


def test_the_service_reads_and_shows_every_field() -> None:
    message = full_message()
    assert role_message(full_role()) == message


@pytest.mark.parametrize("kind", OPENERS)
async def test_a_store_keeps_every_field(kind: str, tmp_path: Path) -> None:
    role = full_role()
    async with bench(kind, tmp_path) as b:
        assert await b.store.put_role(role, None)
        assert await b.store.get_role("aws", role.name) == role


def test_the_command_has_an_option_for_every_field() -> None:
    command = click.Command("put")
    for option in ROLE_OPTIONS:
        option(command)
    assert set(ROLE.fields_by_name) - {"name"} <= {param.name for param in command.params}
