"""Checks that the repr of a message has no secret."""

from __future__ import annotations

import logging

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from lessor.redaction import HIDDEN, SECRET_FIELDS
from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2, system_pb2

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
MODULES = (config_pb2, creds_pb2, lease_pb2, role_pb2, system_pb2)
MESSAGES = [
    GetMessageClass(descriptor)
    for module in MODULES
    for descriptor in module.DESCRIPTOR.message_types_by_name.values()
]
WITH_SECRETS = {
    "CreateSignInLinkResponse",
    "GenerateCredentialsRequest",
    "GenerateCredentialsResponse",
    "GetRootResponse",
    "GetStaticCredentialsResponse",
    "RootConfig",
    "SetRootRequest",
    "SetRootResponse",
    "WatchCredentialsRequest",
    "WatchCredentialsResponse",
}


def is_plain(descriptor: Descriptor) -> bool:
    """Tell whether a message is Google's, or an entry of a map of plain values."""
    return descriptor.file.package.startswith("google.") or descriptor.GetOptions().map_entry


def fill(message: Message) -> bool:
    """Put the secret into each secret field of a message and of those below; tell whether there is one."""
    found = False
    for field in message.DESCRIPTOR.fields:
        if field.name in SECRET_FIELDS:
            setattr(message, field.name, SECRET)
            found = True
        elif field.message_type is not None and not is_plain(field.message_type):
            inner = getattr(message, field.name)
            found |= fill(inner.add() if field.is_repeated else inner)
    return found


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.DESCRIPTOR.name)
def test_no_message_prints_a_secret(kind: type[Message], caplog: pytest.LogCaptureFixture) -> None:
    message = kind()
    holds = fill(message)
    assert holds is (kind.DESCRIPTOR.name in WITH_SECRETS)
    logging.getLogger("test").warning("answered %s or %r", message, [message])
    printed = f"{message} {message!r} {caplog.text}"
    assert SECRET not in printed
    assert (HIDDEN in printed) is holds
    assert (SECRET in str(MessageToDict(message))) is holds
    assert (SECRET.encode() in message.SerializeToString()) is holds


def test_the_other_fields_are_printed_as_they_are() -> None:
    answer = creds_pb2.GenerateCredentialsResponse(lease_id="aws/creds/app/x", secret_key=SECRET)
    assert str(answer) == f'lease_id: "aws/creds/app/x"\nsecret_key: "{HIDDEN}"\n'
    assert answer.secret_key == SECRET


def test_a_secret_that_is_empty_is_not_shown_as_hidden() -> None:
    assert str(creds_pb2.GenerateCredentialsResponse(arn="x")) == 'arn: "x"\n'


def test_each_field_named_like_a_secret_is_hidden() -> None:
    """A new field is added to the list, or named here as not secret."""
    names = {field.name for kind in MESSAGES for field in kind.DESCRIPTOR.fields}
    suspects = {
        name for name in names if any(word in name for word in ("secret", "token", "code", "password"))
    }
    assert suspects - SECRET_FIELDS == {
        "page_token",
        "next_page_token",
        "identity_token_file",
        "identity_token_audience",
    }
