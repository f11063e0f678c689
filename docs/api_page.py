"""Writes the reference of the API from the comments of ``protos/``; docs/generate.py runs it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

PROTOS: Final = Path(__file__).parents[1] / "protos"
ORDER: Final = ("creds", "role", "lease", "config", "system")
"""The files, in the order in which a reader meets their services."""
MESSAGES, ENUMS, SERVICES, METHODS, FIELDS, VALUES, SYNTAX = 4, 5, 6, 2, 2, 2, 12
"""The numbers of fields of a descriptor, of which paths to comments consist (descriptor.proto)."""
NESTED_MESSAGES, NESTED_ENUMS = 3, 4
RULES: Final = "Rules that hold in every file of this package:"
_CODE: Final = re.compile(r"(`[^`]*`)")
_ITEM: Final = re.compile(r"^ *- ")

Comments = Mapping[tuple[int, ...], str]


def api_page() -> str:
    """Return the page."""
    found = {file.name: file for file in _read_protos().file}
    ordered = [found[f"lessor/v1/{name}.proto"] for name in ORDER]
    lines = [
        "# API",
        "",
        "Every RPC and message of `lessor.v1`. This page is made from the comments of [`protos/`](../protos)",
        "by `python docs/generate.py`. [Access](access.md) says which capabilities a call needs, and",
        "[reasons](reasons.md) what each error means.",
        "",
        "## Rules of all calls",
        "",
        _text(_comments(found["lessor/v1/config.proto"])[SYNTAX,].partition(RULES)[2]),
        "",
    ]
    for file in ordered:
        comments = _comments(file)
        for index, service in enumerate(file.service):
            lines += _service(service, (SERVICES, index), comments)
        lines += [f"## Messages of {file.service[0].name}", ""]
        for index, message in enumerate(file.message_type):
            lines += _message(message, (MESSAGES, index), comments, "")
        for index, enum in enumerate(file.enum_type):
            lines += _enum(enum, (ENUMS, index), comments, "")
    return "\n".join(lines)


def _read_protos() -> FileDescriptorSet:
    """Compile the protos, with their comments."""
    names = [f"lessor/v1/{name}.proto" for name in ORDER]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "protos"
        options = [f"-I{PROTOS}", f"-I{files('grpc_tools') / '_proto'}", "--include_source_info"]
        code: int = protoc.main(["protoc", *options, f"--descriptor_set_out={out}", *names])
        if code:
            message = "protoc refuses the protos"
            raise SystemExit(message)
        return FileDescriptorSet.FromString(out.read_bytes())


def _comments(file: FileDescriptorProto) -> Comments:
    """Return the comment before each element, by its path."""
    return {
        tuple(place.path): "".join((*place.leading_detached_comments, place.leading_comments))
        for place in file.source_code_info.location
    }


def _service(service: ServiceDescriptorProto, path: tuple[int, ...], comments: Comments) -> Iterator[str]:
    yield from (f"## {service.name}", "", _text(comments.get(path, "")), "")
    for index, method in enumerate(service.method):
        request, answer = _link(method.input_type), _link(method.output_type)
        stream = "a stream of " if method.server_streaming else ""
        text = _text(comments.get((*path, METHODS, index), ""))
        yield from (f"### {method.name}", "", text, "", f"Takes {request}, returns {stream}{answer}.", "")


def _message(
    message: DescriptorProto, path: tuple[int, ...], comments: Comments, outer: str
) -> Iterator[str]:
    """Yield the lines of a message, and of those inside of it; the entry of a map is a field's type."""
    name = f"{outer}{message.name}"
    yield from (f"### {name}", "", _text(comments.get(path, "")), "")
    if message.field:
        yield from ("| field | type | meaning |", "| --- | --- | --- |")
        for index, field in enumerate(message.field):
            meaning = _cell(comments.get((*path, FIELDS, index), ""))
            yield f"| `{field.name}` | {_type(field, message.nested_type)} | {meaning} |"
        yield ""
    for index, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from _message(nested, (*path, NESTED_MESSAGES, index), comments, f"{name}.")
    for index, enum in enumerate(message.enum_type):
        yield from _enum(enum, (*path, NESTED_ENUMS, index), comments, f"{name}.")


def _enum(enum: EnumDescriptorProto, path: tuple[int, ...], comments: Comments, outer: str) -> Iterator[str]:
    yield from (f"### {outer}{enum.name}", "", _text(comments.get(path, "")), "")
    yield from ("| value | meaning |", "| --- | --- |")
    for index, value in enumerate(enum.value):
        yield f"| `{value.name}` | {_cell(comments.get((*path, VALUES, index), ''))} |"
    yield ""


def _type(field: FieldDescriptorProto, nested: Sequence[DescriptorProto]) -> str:
    """Return the type of a field as the protos write it."""
    for entry in nested:
        if entry.options.map_entry and field.type_name.endswith(f".{entry.name}"):
            key, value = (_type(one, ()) for one in entry.field)
            return f"map of {key} to {value}"
    if field.type_name:
        name = _link(field.type_name)
    else:
        name = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    is_list = field.label == FieldDescriptorProto.LABEL_REPEATED
    return f"{'optional ' if field.proto3_optional else ''}{name}{', a list' if is_list else ''}"


def _link(type_name: str) -> str:
    """Return a link to a message or enum of this package; another's name is its last part."""
    name = type_name.removeprefix(".lessor.v1.")
    if name == type_name:
        return type_name.rpartition(".")[2]
    return f"[{name}](#{name.replace('.', '').lower()})"


def _text(comment: str) -> str:
    """Return a comment as a paragraph and a list."""
    paragraphs: list[str] = []
    for line in comment.splitlines():
        if not paragraphs or not line.strip() or _ITEM.match(line):
            begins_list = _ITEM.match(line) and paragraphs and not _ITEM.match(paragraphs[-1])
            paragraphs += ["", line.strip()] if begins_list else [line.strip()]
        else:
            paragraphs[-1] = f"{paragraphs[-1]} {line.strip()}".strip()
    return "\n".join(map(_escape, paragraphs)).strip()


def _cell(comment: str) -> str:
    """Return a comment in one cell of a table."""
    return _escape(" ".join(comment.split())).replace("|", "\\|")


def _escape(text: str) -> str:
    """Return a text without accidental markup outside of its code."""
    parts = _CODE.split(text)
    return "".join(
        part if part.startswith("`") else part.replace("<", "\\<").replace("*", "\\*") for part in parts
    )
