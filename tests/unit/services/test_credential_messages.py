"""Checks the messages with credentials: which have a secret, and that stream and single issue agree."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import Descriptor

from lessor.v1 import creds_pb2 as pb
from lessor_server.app import SERVICES


def shape(descriptor: Descriptor) -> set[tuple[object, ...]]:
    """Return each field's number, name and type."""
    return {
        (
            field.number,
            field.name,
            field.type,
            field.is_repeated,
            getattr(field.message_type, "full_name", ""),
        )
        for field in descriptor.fields
    }


SECRETS = {"secret_key", "security_token"}


def secrets_in(descriptor: Descriptor, seen: frozenset[str] = frozenset()) -> set[str]:
    """Return the full names of fields for secrets in a message, also in messages within it."""
    found = {str(field.full_name) for field in descriptor.fields if field.name in SECRETS}
    for field in descriptor.fields:
        inner = field.message_type
        if inner is not None and inner.full_name not in seen:
            found |= secrets_in(inner, seen | {descriptor.full_name})
    return found


def test_secrets_have_a_field_in_answers_with_a_credential_or_a_root_only() -> None:
    """Any other answer can't return the secret of a root."""
    answers = {
        f"{service.name}.{method.name}": secrets_in(method.output_type)
        for service in SERVICES
        for method in service.methods
    }
    of_root = {name for name, found in answers.items() if "lessor.v1.RootConfig.secret_key" in found}
    assert of_root == {"ConfigService.SetRoot", "ConfigService.GetRoot"}
    others = {name for name, found in answers.items() if found} - of_root
    assert others == {
        f"CredsService.{method.name}" for method in pb.DESCRIPTOR.services_by_name["CredsService"].methods
    }


@pytest.mark.parametrize(
    ("single", "stream", "more"),
    [
        (pb.GenerateCredentialsRequest, pb.WatchCredentialsRequest, {"overlap"}),
        (pb.GenerateCredentialsResponse, pb.WatchCredentialsResponse, set()),
    ],
)
def test_both_messages_have_the_same_field_numbers(
    single: type[pb.GenerateCredentialsRequest], stream: type[pb.WatchCredentialsRequest], more: set[str]
) -> None:
    """One is parsed from the other's bytes."""
    here, there = shape(single.DESCRIPTOR), shape(stream.DESCRIPTOR)
    assert here <= there
    assert {str(name) for _, name, *_ in there - here} == more
