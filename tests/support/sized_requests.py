"""Requests of a chosen size, made from the descriptors for each field of each request.

A new field of a request is covered automatically.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct

from lessor_server.app import SERVICES

TEXT_SIZES = (512, 1024, 2048, 4096, 8192)
ITEM_SIZES = (32, 64, 128, 256, 2048)
ARN = "arn:aws:iam::123456789012"

TEXTS: dict[str, Callable[[int], str]] = {
    "letters": lambda n: "a" * n,
    "digits": lambda n: "0" * n,
    "an open placeholder": lambda n: "{{" + " " * n,
    "open placeholders": lambda n: "{{" * (n // 2),
    "placeholders": lambda n: "{{identity.name}}" * (n // 17),
    "closing braces": lambda n: "{{" + "}" * n,
    "slashes": lambda n: "/a" * (n // 2) + "/",
    "dashes": lambda n: "us-" + "a-" * (n // 2),
    "stars": lambda n: f"{ARN}:role/" + "*a" * (n // 2),
    "a deep path": lambda n: f"{ARN}:role/" + "a/" * (n // 2) + "a",
    "a long host": lambda n: "https://vpce-" + "a-" * (n // 2) + ".sts.us-east-1.vpce.amazonaws.com",
    "a list of minutes": lambda n: "0," * (n // 2) + "0 3 * * *",
    "blanks": lambda n: "0 3 * * *" + " " * n,
    "letters of two bytes": lambda n: "é" * n,
}


def statements(count: int, **members: Any) -> dict[str, Any]:
    """Return a policy with this number of statements."""
    one = {"Effect": "Allow", "Action": "s3:*", "Resource": "*", **members}
    return {"Version": "2012-10-17", "Statement": [one] * count}


def nested(depth: int) -> dict[str, Any]:
    """Return a document with this number of nested objects."""
    return {"a": nested(depth - 1)} if depth else {}


DOCUMENTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "statements": statements,
    "statements of one name": lambda n: statements(n, Sid="a"),
    "wrong statements": lambda n: {"Statement": ["x"] * n},
    "actions": lambda n: statements(1, Action=[f"*:{index}*" for index in range(n)]),
    "numbers": lambda n: statements(1, Resource=[0.5] * n),
    "stars": lambda n: statements(1, Action="*:" + "*a" * n),
    "placeholders": lambda n: statements(1, Resource="{{" * n),
    "conditions": lambda n: statements(1, Condition={f"Op{index}": {"a:b": "c"} for index in range(n)}),
    "members": lambda n: {f"m{index}": None for index in range(n)},
    "levels": lambda n: nested(min(n // 8, 30)),
    "a long text": lambda n: {"Id": "x" * n * 16},
}

ROLE = {"name": "app", "credentialType": "IAM_USER"}
ROOT = {"accessKey": "A" * 20, "secretKey": "s" * 40}
STATIC = {"name": "app", "username": "app", "rotationPeriod": "3600s"}
BASES: dict[str, dict[str, Any]] = {
    "PutRoleRequest": {"role": ROLE},
    "CheckRoleRequest": {"role": ROLE},
    "SetRootRequest": {"config": ROOT},
    "PutStaticRoleRequest": {"staticRole": STATIC},
    "GenerateCredentialsRequest": {"role": "app"},
    "WatchCredentialsRequest": {"role": "app", "ttl": "1s"},
}
"""Requests that are right, so that each field is judged by all its rules.

What WatchCredentials asks is less than it gives, as its stream would not end.
"""

METHODS = {
    f"{service.name}.{method.name}": method.input_type for service in SERVICES for method in service.methods
}


def base(kind: Descriptor) -> Message:
    """Return a valid request, in which one field is then changed."""
    return ParseDict(BASES.get(kind.name, {}), GetMessageClass(kind)())


Sized = Callable[[int], Message]


def inputs(kind: Descriptor) -> Iterator[tuple[str, Sized, tuple[int, ...]]]:
    """Yield for each field of a request, nested ones too, a builder of requests by size, and the sizes."""
    for path, field in fields(kind):
        for name, value, sizes in values(field):
            yield f"{'.'.join(path)}: {name}", partial(request_with, kind, path, value), sizes


def request_with(kind: Descriptor, path: tuple[str, ...], value: Callable[[int], Any], size: int) -> Message:
    """Return a request whose field at ``path`` has a value of ``size``."""
    request: Any = base(kind)
    holder = request
    for part in path[:-1]:
        holder = getattr(holder, part)
        holder = holder.add() if hasattr(holder, "add") else holder
    holder.ClearField(path[-1])
    holder.MergeFrom(type(holder)(**{path[-1]: value(size)}))
    return request


def fields(kind: Descriptor, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldDescriptor]]:
    """Yield each field that has a size, with its path."""
    for field in kind.fields:
        inner = field.message_type
        here = (*path, field.name)
        if field.type == FieldDescriptor.TYPE_STRING or field.is_repeated or is_well_known(inner):
            yield here, field
        if inner is not None and not is_well_known(inner) and not inner.GetOptions().map_entry:
            yield from fields(inner, here)


def is_well_known(kind: Descriptor | None) -> bool:
    """Tell whether a message is one of those that have a size and are not the project's own."""
    return kind is not None and kind.full_name in ("google.protobuf.Struct", "google.protobuf.FieldMask")


def values(field: FieldDescriptor) -> Iterator[tuple[str, Callable[[int], Any], tuple[int, ...]]]:
    """Yield values of a field that are expensive to check, by size."""
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        yield "keys", lambda n: {f"k{index}": "v" for index in range(n)}, ITEM_SIZES
        yield "keys but for case", lambda n: {bits(index): "v" for index in range(n)}, ITEM_SIZES
        yield "templates", lambda n: {f"k{index}": "{{" for index in range(n)}, ITEM_SIZES
        yield "a long key", lambda n: {"{{" * (n // 2): "v"}, TEXT_SIZES
        yield "a long value", lambda n: {"k": "{{" + " " * n}, TEXT_SIZES
    elif inner is not None and inner.name == "Struct":
        for name, document in DOCUMENTS.items():
            yield name, lambda n, document=document: struct(document(n)), ITEM_SIZES
    elif inner is not None and inner.name == "FieldMask":
        known = field.containing_type.fields[1].message_type
        same = known.fields[-1].name if known else "description"
        yield "one path again and again", lambda n: {"paths": [same] * n}, ITEM_SIZES
        yield "paths", lambda n: {"paths": [f"x{index}" for index in range(n)]}, ITEM_SIZES
        yield "a long path", lambda n: {"paths": ["a." * (n // 2)]}, TEXT_SIZES
    elif field.is_repeated and inner is not None:
        yield "items", lambda n: [{}] * n, ITEM_SIZES
    elif field.is_repeated:
        yield "items", lambda n: [f"a{index}" for index in range(n)], ITEM_SIZES
        yield "one item again and again", lambda n: ["a"] * n, ITEM_SIZES
        yield from (
            (f"one of {name}", lambda n, text=text: [text(n)], TEXT_SIZES) for name, text in TEXTS.items()
        )
    else:
        yield from ((name, text, TEXT_SIZES) for name, text in TEXTS.items())


def bits(number: int) -> str:
    """Return a text of ten letters, another one for each number, the same but for case."""
    return "".join("A" if number >> bit & 1 else "a" for bit in range(11))


def struct(document: dict[str, Any]) -> Struct:
    """Return a document as a Struct."""
    made = Struct()
    made.update(document)
    return made
