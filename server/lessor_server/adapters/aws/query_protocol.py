"""Requests and answers of AWS's query protocol, by botocore's models of the services.

Functions that are made once from an operation's shapes write requests and read answers, in a fifth of the
time that botocore takes; the tests compare both. Parameters that are not simply valid are left to botocore,
which reports what is wrong with them.
Source: "Smithy, AWS query protocol", and botocore's ``QueryParser``.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final
from urllib.parse import quote_plus

import botocore.exceptions as sdk
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.serialize import create_serializer

from lessor_server.adapters.aws.http_connection import HttpAnswer
from lessor_server.adapters.aws.xml_check import find_error, parse_answer

Node = Any
"""An element, or the list of several with one name, of which botocore's parser makes the same."""
Read = Callable[[Node, str], Any]
"""Reads a node of an answer with a namespace: that of its root, written as in tags, or nothing."""
_ESCAPES: Final = {code: quote_plus(chr(code)) for code in range(128)}


Write = Callable[[Any, str, list[str]], None]
"""Adds a value to the fields of a form, under a name, or raises ``_NotSimple``."""


class _NotSimple(Exception):
    """A parameter is invalid, or of a kind that only botocore writes."""


@dataclass(frozen=True, slots=True)
class QueryOperation:
    """One operation by AWS's name: what writes its parameters, and what reads the result in its answer."""

    action: str
    model: Any
    start: str
    write: Write
    wrapper: str
    read: Read


class QueryService:
    """The operations of one service."""

    def __init__(self, service: str) -> None:
        """Load the model of ``service``, which takes a moment."""
        self._model = ServiceModel(loader().load_service_model(service, "service-2"), service)
        self._serializer = create_serializer("query", True)
        self._operations: dict[str, QueryOperation] = {}

    def operation(self, action: str) -> QueryOperation:
        """Return an operation by AWS's name."""
        found = self._operations.get(action)
        if found is None:
            model = self._model.operation_model(action)
            shape = model.output_shape
            wrapper = shape.serialization.get("resultWrapper", "") if shape else ""
            start = f"Action={action}&Version={model.metadata['apiVersion']}"
            write = _structure_writer(model.input_shape) if model.input_shape else _write_otherwise
            read = _result_reader(shape) if shape else _read_nothing
            found = QueryOperation(action, model, start, write, wrapper, read)
            self._operations[action] = found
        return found

    def write(self, operation: QueryOperation, params: dict[str, Any]) -> bytes:
        """Return the form of a request, or raise ``ParamValidationError``."""
        fields = [operation.start]
        try:
            operation.write(params, "", fields)
        except _NotSimple:
            form = self._serializer.serialize_to_request(params, operation.model)["body"]
            fields = [f"{name}={_escape(str(value))}" for name, value in form.items()]
        return "&".join(fields).encode()

    def read(self, operation: QueryOperation, answer: HttpAnswer) -> dict[str, Any]:
        """Return the result in an answer, as botocore's client does.

        Raises:
            ClientError: AWS refused.
            NotAnAnswer: It is not an answer of AWS.
            Exception: The result cannot be read.
        """
        root = parse_answer(operation.action, answer.status, answer.body)
        about: dict[str, Any] = {"HTTPStatusCode": answer.status, "HTTPHeaders": answer.headers}
        if answer.status != 200:
            code, message, request_id = find_error(root)
            told = {"Error": {"Code": code, "Message": message}}
            raise sdk.ClientError(
                {**told, "ResponseMetadata": {**about, "RequestId": request_id}}, operation.action
            )
        namespace = root.tag.removesuffix(f"{operation.action}Response")
        result = _child(root, namespace + operation.wrapper) if operation.wrapper else root
        metadata = root.find(f"{namespace}ResponseMetadata")
        said = {} if metadata is None else {name: one.text for name, one in _children(metadata).items()}
        return {**operation.read(result, namespace), "ResponseMetadata": {**said, **about}}


@cache
def loader() -> Loader:
    """Return the process's only loader of the SDK's models, which caches them."""
    return Loader()


@cache
def query_service(service: str) -> QueryService:
    """Return a service, loaded once, and exclude its large model from later collections of garbage."""
    loaded = QueryService(service)
    gc.collect()
    gc.freeze()
    return loaded


def _escape(text: str) -> str:
    """Return a text as ``quote_plus`` does, in half of its time."""
    return text.translate(_ESCAPES) if text.isascii() else quote_plus(text)


# --- parameters -------------------------------------------------------------------------------------------


def _writer(shape: Any) -> Write:
    """Return what writes a shape; its limits are those that botocore checks."""
    make = _WRITERS.get(shape.type_name)
    return make(shape) if make is not None else _write_otherwise


def _write_otherwise(value: Any, _name: str, _fields: list[str]) -> None:
    if value != {}:
        raise _NotSimple


def _structure_writer(shape: Any) -> Write:
    members = {
        name: (member.serialization.get("name", name), _writer(member))
        for name, member in shape.members.items()
    }
    required = tuple(shape.required_members)

    def write(value: Any, name: str, fields: list[str]) -> None:
        if type(value) is not dict:
            raise _NotSimple
        for key in required:
            if key not in value:
                raise _NotSimple
        start = f"{name}." if name else ""
        for key, item in value.items():
            if key not in members:
                raise _NotSimple
            written, write_member = members[key]
            write_member(item, start + written, fields)

    return write


def _list_writer(shape: Any) -> Write:
    write_item, least = _writer(shape.member), max(1, shape.metadata.get("min", 1))
    item_name = shape.member.serialization.get("name", "member")

    def write(value: Any, name: str, fields: list[str]) -> None:
        if type(value) is not list or len(value) < least:
            raise _NotSimple
        start = f"{name}.{item_name}."
        for number, item in enumerate(value, 1):
            write_item(item, f"{start}{number}", fields)

    return write


def _string_writer(shape: Any) -> Write:
    least = shape.metadata.get("min", 0)

    def write(value: Any, name: str, fields: list[str]) -> None:
        if type(value) is not str or len(value) < least:
            raise _NotSimple
        fields.append(f"{name}={_escape(value)}")

    return write


def _integer_writer(shape: Any) -> Write:
    least = shape.metadata.get("min", 0)

    def write(value: Any, name: str, fields: list[str]) -> None:
        if type(value) is not int or value < least:
            raise _NotSimple
        fields.append(f"{name}={value}")

    return write


_WRITERS: Final[dict[str, Callable[[Any], Write]]] = {
    "structure": _structure_writer,
    "list": _list_writer,
    "string": _string_writer,
    "integer": _integer_writer,
}


# --- answers ----------------------------------------------------------------------------------------------


def _children(node: Node) -> dict[str, Node]:
    """Return the children of an element by name; those with the same name as a list."""
    found: dict[str, Node] = {}
    for child in node[0] if isinstance(node, list) else node:
        name = child.tag.rpartition("}")[2]
        if name not in found:
            found[name] = child
        elif isinstance(found[name], list):
            found[name].append(child)
        else:
            found[name] = [found[name], child]
    return found


def _child(element: Node, tag: str) -> Node:
    """Return the child with a tag, or the list of several, or raise ``KeyError``."""
    found = element.findall(tag)
    if not found:
        raise KeyError(tag)
    return found[0] if len(found) == 1 else found


class _Structure(Mapping[str, Any]):
    """A structure in an answer; a member is read when it is asked for, since few of AWS's are needed."""

    __slots__ = ("_element", "_members", "_namespace")

    def __init__(self, element: Node, namespace: str, members: Mapping[str, tuple[str, Read]]) -> None:
        """Read the members of an element, each given by its name in XML and what reads it."""
        self._element = element
        self._namespace = namespace
        self._members = members

    def __getitem__(self, name: str) -> Any:
        """Read a member."""
        tag, read = self._members[name]
        return read(_child(self._element, self._namespace + tag), self._namespace)

    def __iter__(self) -> Iterator[str]:
        """Return the names of the members that are there."""
        for name, (tag, _) in self._members.items():
            if self._element.find(self._namespace + tag) is not None:
                yield name

    def __len__(self) -> int:
        """Count the members that are there."""
        return sum(1 for _ in self)


def _reader(shape: Any) -> Read:
    """Return what reads a shape; the models of IAM and STS have no flattened lists and no attributes."""
    make = _READERS.get(shape.type_name)
    return make(shape) if make is not None else _read_text


def _read_nothing(_node: Node, _space: str) -> Any:
    return {}


def _structure(shape: Any) -> Read:
    members = {
        name: (member.serialization.get("name", name), _reader(member))
        for name, member in shape.members.items()
    }
    return lambda node, space: _Structure(node[0] if type(node) is list else node, space, members)


def _result_reader(shape: Any) -> Read:
    """Return what reads the result of an answer: the members that are there, each of them once."""
    members = [
        (name, member.serialization.get("name", name), _reader(member))
        for name, member in shape.members.items()
    ]

    def read(node: Node, space: str) -> dict[str, Any]:
        element, result = node[0] if type(node) is list else node, {}
        for name, tag, read_member in members:
            if found := element.findall(space + tag):
                result[name] = read_member(found[0] if len(found) == 1 else found, space)
        return result

    return read


def _list(shape: Any) -> Read:
    read_item = _reader(shape.member)
    return lambda node, space: [read_item(item, space) for item in node]


def _map(shape: Any) -> Read:
    key_name = shape.key.serialization.get("name", "key")
    value_name = shape.value.serialization.get("name", "value")
    read_key, read_value = _reader(shape.key), _reader(shape.value)

    def read(node: Node, space: str) -> dict[str, Any]:
        return {
            read_key(_child(entry, space + key_name), space): read_value(
                _child(entry, space + value_name), space
            )
            for entry in node
        }

    return read


def _read_text(node: Node, _space: str = "") -> Any:
    """Return a text; or a list if there are several; AWS writes one."""
    return node if isinstance(node, list) else node.text or ""


_READERS: Final[dict[str, Callable[[Any], Read]]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "boolean": lambda _: lambda node, _space: _read_text(node) == "true",
    "integer": lambda _: lambda node, _space: int(_read_text(node)),
    "timestamp": lambda _: lambda node, _space: datetime.fromisoformat(_read_text(node)),
}
