"""Checks that a stream of credentials asks for and tells what a single issue does."""

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
def test_both_kinds_of_messages_are_numbered_alike(
    single: type[pb.GenerateCredentialsRequest], stream: type[pb.WatchCredentialsRequest], more: set[str]
) -> None:
    """One is read from the other's bytes, so a field of one is the same field of the other."""
    here, there = shape(single.DESCRIPTOR), shape(stream.DESCRIPTOR)
    assert here <= there
    assert {str(name) for _, name, *_ in there - here} == more
