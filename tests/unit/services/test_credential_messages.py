"""Checks that the messages of a stream of credentials agree with those of a single issue."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import Descriptor

from lessor.v1 import creds_pb2 as pb


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
