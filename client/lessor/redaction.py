"""Hides secrets in the repr and the str of messages, and therefore in logs and tracebacks.

``protos/build.py`` adds a call of ``redact`` to the end of each stub. Messages on the wire, and the output of
``google.protobuf.json_format`` and ``text_format``, still contain the secrets.
"""

from __future__ import annotations

from typing import Final

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

SECRET_FIELDS: Final = frozenset({"secret_key", "security_token", "mfa_code", "sign_in_url"})
HIDDEN: Final = "***"


def redact(file: FileDescriptor) -> None:
    """Hide secrets when a message of ``file`` is printed, including those in nested messages."""
    for descriptor in file.message_types_by_name.values():
        if _holds_secrets(descriptor):
            kind = GetMessageClass(descriptor)
            kind.__repr__ = kind.__str__ = _text  # type: ignore[method-assign, assignment]


def _holds_secrets(descriptor: Descriptor) -> bool:
    """Return whether a message or a nested one has a secret field; no message is recursive."""
    if descriptor.file.package.startswith("google."):
        return False
    return any(
        field.name in SECRET_FIELDS or (field.message_type is not None and _holds_secrets(field.message_type))
        for field in descriptor.fields
    )


def _text(message: Message) -> str:
    """Return a message in the text format, with each secret hidden."""
    copy = type(message)()
    copy.CopyFrom(message)
    _hide(copy)
    return text_format.MessageToString(copy)


def _hide(message: Message) -> None:
    for field, value in message.ListFields():
        if field.name in SECRET_FIELDS:
            setattr(message, field.name, HIDDEN)
        elif field.message_type is not None and _holds_secrets(field.message_type):
            for one in value if field.is_repeated else (value,):
                _hide(one)
