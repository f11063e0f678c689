"""Writes the methods of the Python clients from the descriptors of the services.

Both clients come from one template: ``methods_pb2_async.py`` for ``lessor.Client``, and
``methods_pb2_sync.py`` for ``lessor.sync.Client``. A method is the RPC's name in snake_case, and its
arguments are the request's fields. If the request holds one message of this package, such as ``role``, that
message's own fields are arguments instead. Fields that are "output only" are left out.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

Kind = FieldDescriptorProto
OUTPUT_ONLY: Final = "Output only."
WIDTH: Final = 100
_SCALARS: Final = {
    Kind.TYPE_STRING: "str",
    Kind.TYPE_BOOL: "bool",
    Kind.TYPE_INT32: "int",
    Kind.TYPE_INT64: "int",
    Kind.TYPE_ENUM: "int | str",
}
_MESSAGES: Final = {
    ".google.protobuf.Duration": "DurationLike",
    ".google.protobuf.Struct": "PolicyLike",
    ".google.protobuf.FieldMask": "Sequence[str]",
}
_HEAD: Final = '''\
"""Made from the protos by ``protos/methods.py``: the methods of {client}."""

from __future__ import annotations

from collections.abc import {iterator}, Mapping, Sequence

from lessor.arguments import DurationLike, PolicyLike
from lessor.{base_module} import {base}
from lessor.v1 import {modules}


class Methods({base}):
    """Each RPC as a method.

    A method raises a subclass of ``lessor.Error`` if the call fails, and ``ValueError`` for an argument that
    can't be converted. ``timeout`` limits the call and its retries.
    """
'''


@dataclass(frozen=True, slots=True)
class Flavor:
    """What differs between the two clients."""

    file: str
    client: str
    base: str
    base_module: str
    iterator: str
    prefix: str
    wait: str


FLAVORS: Final = (
    Flavor(
        "methods_pb2_async.py",
        "``lessor.Client``",
        "AsyncCaller",
        "async_wire",
        "AsyncGenerator[{}, None]",
        "async ",
        "await ",
    ),
    Flavor(
        "methods_pb2_sync.py",
        "``lessor.sync.Client``",
        "SyncCaller",
        "sync_wire",
        "Generator[{}, None, None]",
        "",
        "",
    ),
)


def render(found: FileDescriptorSet, package: str) -> dict[str, str]:
    """Return the text of each file by its name.

    Raises:
        SystemExit: A field has a type, or a request a shape, that no argument can have.
    """
    files = [file for file in found.file if file.package == package]
    protos = Protos(files)
    return {flavor.file: protos.written(flavor) for flavor in FLAVORS}


class Protos:
    """The messages of a package, their comments, and its services."""

    def __init__(self, files: list[FileDescriptorProto]) -> None:
        """Index ``files``, which must have their source info."""
        self._files = files
        self._messages: dict[str, tuple[FileDescriptorProto, DescriptorProto]] = {}
        self._comments: dict[str, str] = {}
        for file in files:
            self._index(file)

    def _index(self, file: FileDescriptorProto) -> None:
        comments = {tuple(one.path): one.leading_comments for one in file.source_code_info.location}
        for number, message in enumerate(file.message_type):
            name = f".{file.package}.{message.name}"
            self._messages[name] = (file, message)
            for index, field in enumerate(message.field):
                self._comments[f"{name}.{field.name}"] = _joined(comments.get((4, number, 2, index), ""))
        for number, service in enumerate(file.service):
            for index, method in enumerate(service.method):
                path = f"{file.package}.{service.name}/{method.name}"
                self._comments[path] = _joined(comments.get((6, number, 2, index), ""))

    def written(self, flavor: Flavor) -> str:
        """Return the module of one client."""
        head = _HEAD.format(
            client=flavor.client,
            iterator=flavor.iterator.partition("[")[0],
            base=flavor.base,
            base_module=flavor.base_module,
            modules=", ".join(sorted(_module(file) for file in self._files)),
        )
        methods = [
            self._method(flavor, f"{file.package}.{service.name}", method)
            for file in self._files
            for service in file.service
            for method in service.method
        ]
        return "\n".join([head, *methods])

    def _method(self, flavor: Flavor, service: str, method: MethodDescriptorProto) -> str:
        path = f"{service}/{method.name}"
        request, answer = self._python(method.input_type), self._python(method.output_type)
        arguments = list(self._arguments(method.input_type))
        names = [name for name, _, _ in arguments]
        if len({*names, "timeout"}) != len(names) + 1:
            raise SystemExit(f"{path}: two fields have one name: {', '.join(names)}")
        returned = flavor.iterator.format(answer) if method.server_streaming else answer
        sent = f'"/{path}", {request}, {answer}, fields, timeout'
        last = (
            f"return self._stream({sent})"
            if method.server_streaming
            else f"return {flavor.wait}self._call({sent})"
        )
        lines = [
            f"{'' if method.server_streaming else flavor.prefix}def {_snake(method.name)}(",
            "    self,",
            "    *,",
            *(f"    {name}: {kind} | None = None," for name, kind, _ in arguments),
            "    timeout: DurationLike | None = None,",
            f") -> {returned}:",
            *(f"    {line}".rstrip() for line in self._docstring(path, arguments)),
            "    fields: Mapping[str, object] = {",
            *(f'        "{name}": {name},' for name in names),
            "    }",
            f"    {last}",
        ]
        return "\n".join(f"    {line}".rstrip() for line in lines) + "\n"

    def _docstring(self, path: str, arguments: list[tuple[str, str, str]]) -> Iterator[str]:
        yield from textwrap.wrap(f'"""{self._comments[path]}', WIDTH)
        yield ""
        yield "Args:"
        for name, _, comment in arguments:
            yield from textwrap.wrap(
                f"{name}: {comment}", WIDTH, initial_indent="    ", subsequent_indent="        "
            )
        yield "    timeout: The longest time that the call may take; else the client's."
        yield '"""'

    def _arguments(self, request: str) -> Iterator[tuple[str, str, str]]:
        """Yield the name, the type and the comment of each argument."""
        for field in self._messages[request][1].field:
            if field.type_name in self._messages and field.label != Kind.LABEL_REPEATED:
                yield from self._fields(field.type_name)
        for name, kind, comment in self._fields(request):
            if kind:
                yield name, kind, comment

    def _fields(self, message: str) -> Iterator[tuple[str, str, str]]:
        for field in self._messages[message][1].field:
            comment = self._comments[f"{message}.{field.name}"]
            if not comment.startswith(OUTPUT_ONLY):
                yield field.name, self._type(message, field), comment

    def _type(self, message: str, field: FieldDescriptorProto) -> str:
        """Return the type of an argument; empty for a message whose own fields are arguments."""
        repeated = field.label == Kind.LABEL_REPEATED
        nested = self._messages[message][1].nested_type
        if any(one.options.map_entry and field.type_name.endswith(f".{one.name}") for one in nested):
            return "Mapping[str, str]"
        if field.type_name in self._messages:
            return f"Sequence[{self._python(field.type_name)} | Mapping[str, str]]" if repeated else ""
        kind = _SCALARS.get(field.type) or _MESSAGES.get(field.type_name)
        if kind is None:
            raise SystemExit(f"{message}.{field.name}: no argument has this type; add it to {__file__}")
        return f"Sequence[{kind}]" if repeated else kind

    def _python(self, name: str) -> str:
        file, message = self._messages[name]
        return f"{_module(file)}.{message.name}"


def _module(file: FileDescriptorProto) -> str:
    return file.name.rpartition("/")[2].removesuffix(".proto") + "_pb2"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _joined(comment: str) -> str:
    return " ".join(comment.split()).replace("\\", "\\\\").replace('"""', "'''")
