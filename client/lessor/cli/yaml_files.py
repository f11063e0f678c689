"""Reads a YAML file by the core schema of YAML 1.2, of which JSON is a part.

YAML 1.1 reads ``2012-10-17`` as a date and ``no`` as false: here they are texts, as is a number with a
leading zero, such as an account's. A key that is given twice is an error, as are references (``*name``),
because a small file with them can be a large document.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import click
import yaml
from yaml.constructor import ConstructorError
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node

from lessor.values import JsonValue

MAX_BYTES: Final = 16 << 20
_TAG: Final = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Resolves only null, booleans and numbers; everything else without quotes is a text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as the base class

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Refuse references."""
        if self.check_event(AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise ConstructorError(None, None, "a reference is not supported; write the value out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping; keys are texts, and each is given once."""
        found: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ConstructorError(
                    None, None, "a key is not a text; put it in quotes", key_node.start_mark
                )
            if key in found:
                problem = f"the key {key!r} is given twice; keep one of them"
                raise ConstructorError(None, None, problem, key_node.start_mark)
            found.add(key)
        return super().construct_mapping(node, deep=deep)


class CoreDumper(yaml.SafeDumper):
    """Writes texts that either version of YAML would not read as texts in quotes."""


for _name, _pattern, _first in (
    ("null", r"null|Null|NULL|~|", [*"nN~", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    for _each in (_Loader, CoreDumper):
        _each.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"(?:{_pattern})\Z"), _first)


def read_yaml(file: str) -> tuple[JsonValue, str]:
    """Return the content of a YAML file, or of standard input for ``-``, and the name for errors.

    Raises:
        UsageError: It can't be read, is too large, or is not valid.
    """
    where = "standard input" if file == "-" else file
    try:
        if file == "-":
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise click.UsageError(f"{where} can't be read: {error.strerror}; name a readable file") from None
    if len(content) > MAX_BYTES:
        raise click.UsageError(f"{where} has more than {MAX_BYTES >> 20} MiB; split it")
    return parse_yaml(content, where), where


def parse_yaml(content: bytes, where: str) -> JsonValue:
    """Return the document in ``content``; raises ``UsageError``."""
    try:
        return yaml.load(content.decode("utf-8-sig"), Loader=_Loader)  # type: ignore[no-any-return]  # noqa: S506
    except UnicodeDecodeError:
        raise click.UsageError(f"{where} is not UTF-8; save it as UTF-8") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise click.UsageError(f"{where} is not valid YAML: {_problem(error)}") from None


def _problem(error: Exception) -> str:
    """Return what is wrong, and where, without a copy of the file's lines."""
    problem = getattr(error, "problem", None) or "it is nested too deeply, or has an invalid value"
    mark = getattr(error, "problem_mark", None)
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark else str(problem)
