"""Loads a model from a TOML file and ``LESSOR_`` variables, and reports every problem of both together.

A setting ``a.b`` is ``b`` of table ``[a]`` in the file and ``LESSOR_A_B`` in the environment, which wins.
pydantic validates the merged sources; each of its errors gets its place and its fix, without the input.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from copy import deepcopy
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import UnionType
from typing import Annotated, Final, Generic, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from lessor_server.settings.file_checks import file_problem, kind_problem
from lessor_server.settings.parsers import InvalidValue

PREFIX: Final = "LESSOR_"
CLIENTS: Final = frozenset(
    PREFIX + name for name in ("ADDR", "TOKEN", "TOKEN_FILE", "CACERT", "CLIENT_CERT", "CLIENT_KEY")
)
"""Variables of the client; the server ignores them."""

KUBERNETES: Final = re.compile(
    PREFIX + r"(?:[A-Z0-9_]*_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)
"""Variables that Kubernetes sets in each container for Services named ``lessor`` or ``lessor-api``.

Source: "Service", section "Environment variables", in the Kubernetes documentation.
"""

NOT_A_VALUE: Final = ("is not a setting but a table of settings", "write it as a table")
_AT_LINE: Final = re.compile(r"(.*) \(at line (\d+), column (\d+)\)")

Table = dict[str, object]
Key = tuple[int | str, ...]
"""The path of a value in nested tables and lists."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of the settings: ``where`` is a file, ``file:line`` or the name of a variable."""

    where: str
    setting: str
    problem: str
    fix: str

    def __str__(self) -> str:
        """Return it in one line."""
        return ": ".join(part for part in (self.where, self.setting, self.problem) if part) + f"; {self.fix}"


class SettingsError(Exception):
    """The settings are invalid; ``problems`` lists every reason."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        """Keep every problem; the text has one a line."""
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class ConfigModel(BaseModel):
    """A table of settings: immutable, without unknown keys, and with errors that don't show the input."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def find_conflicts(self, given: AbstractSet[str]) -> Iterator[tuple[str, str, str]]:  # noqa: ARG002
        """Yield a setting, problem and fix for each combination that can't be used.

        ``given`` has the name of each setting that was given. ``self`` has the default in place of an invalid
        value, so that conflicts are reported together with invalid values.
        """
        yield from ()


M = TypeVar("M", bound=ConfigModel)


def load_file(model: type[M], file: Path | None, environ: Mapping[str, str]) -> M:
    """Load ``model`` from ``file``, if one is given; the variables of ``environ`` override it.

    Raises:
        SettingsError: With every problem of both.
    """
    problems: list[Problem] = []
    text = _read(file, problems) if file is not None else ""
    return load_text(model, text, environ, str(file or ""), problems)


def load_text(
    model: type[M], text: str, environ: Mapping[str, str], where: str = "", problems: Sequence[Problem] = ()
) -> M:
    """Load ``model`` from TOML and the variables of ``environ``; ``where`` names the text in problems.

    Raises:
        SettingsError: With every problem of both, after those in ``problems``.
    """
    found = list(problems)
    sources = _Sources(model, _parse(text, where, found), where, environ)
    found += sources.merge()
    loaded, errors = sources.validate()
    found += sources.problems_of(errors)
    if loaded is not None:
        found += sources.conflicts_of(loaded)
    found += sources.unknown_variables()
    if found or loaded is None:
        raise SettingsError(tuple(found))
    return loaded


class _Sources(Generic[M]):
    """Both sources of a model, and the place of each value."""

    def __init__(self, model: type[M], table: Table, where: str, environ: Mapping[str, str]) -> None:
        self._model = model
        self._table = table
        self._where = where
        self._names = [".".join(path) for path in setting_paths(model, everything=True)]
        self._paths = {_variable(path): path for path in setting_paths(model)}
        self._variables = {
            name: value for name, value in environ.items() if name.startswith(PREFIX) and name not in CLIENTS
        }
        self._used = self._paths.keys() & self._variables.keys()

    def merge(self) -> Iterator[Problem]:
        """Put the variables into the file's tables; yield a problem if the file has another structure."""
        for variable in sorted(self._used):
            *above, name = self._paths[variable]
            table = self._table
            for depth, part in enumerate(above, start=1):
                inner = table.setdefault(part, {})
                if not isinstance(inner, dict):
                    yield self.problem(tuple(above[:depth]), *NOT_A_VALUE)
                    table[part] = inner = {}
                table = inner
            if (old := table.get(name)) and isinstance(old, dict):
                yield self._unknown((*above, name, *list(old)[:1]))
            table[name] = self._variables[variable]

    def validate(self) -> tuple[M | None, list[ErrorDetails]]:
        """Return the model of all valid values, if it can be built, and the errors of the others."""
        rest = deepcopy(self._table)
        model, first = _validate(self._model, rest)
        errors = first
        while errors and _drop(rest, errors):
            model, errors = _validate(self._model, rest)
        return model, first

    def problem(self, key: Key, problem: str, fix: str) -> Problem:
        """Return a problem with the name of a value, and its place if it was given."""
        path = _path(key)
        where = self._where if _find(self._table, path) is not None else ""
        variable = _variable(path)
        return Problem(variable if variable in self._used else where, self._name(key), problem, fix)

    def problems_of(self, errors: Sequence[ErrorDetails]) -> Iterator[Problem]:
        """Yield a problem for each error of pydantic, and one for all missing keys of a table."""
        missing: dict[Key, list[str]] = {}
        for error in errors:
            key, value, cause = error["loc"], error["input"], error.get("ctx", {}).get("error")
            if error["type"] == "missing":
                missing.setdefault(key[:-1], []).append(self._name(key))
            elif error["type"] == "extra_forbidden":
                yield self._unknown(key)
            elif error["type"] == "model_type":
                yield self.problem(key, *NOT_A_VALUE)
            elif not isinstance(cause, InvalidValue):
                _, expected, text = error["msg"].rpartition("Input should be ")
                yield self.problem(key, f"is not {text}" if expected else text, "correct it")
            elif value and isinstance(value, dict) and key in self._paths.values():
                yield self._unknown((*key, *list(value)[:1]))
            else:
                yield self.problem(key, cause.problem, cause.fix)
        for table, names in missing.items():
            keys = [(*table, known.rpartition(".")[2]) for known in self._names]
            key = next((key for key in keys if _find(self._table, key) is not None), table)
            yield self.problem(key, f"is set without {' and '.join(names)}", "add it, or remove the rest")

    def conflicts_of(self, model: M) -> Iterator[Problem]:
        """Yield the problem of each combination that can't be used."""
        given = {".".join(path) for path in self._paths.values() if _find(self._table, path) is not None}
        for name, problem, fix in model.find_conflicts(given):
            yield self.problem(tuple(name.split(".")), problem, fix)

    def unknown_variables(self) -> Iterator[Problem]:
        """Yield a problem for each unknown variable, such as a misspelt one."""
        for name in sorted(self._variables.keys() - self._paths.keys()):
            if not KUBERNETES.fullmatch(name):
                yield Problem(name, "", "is not a setting", _likely(name, self._paths))

    def _unknown(self, key: Key) -> Problem:
        return self.problem(key, "is not a setting", _likely(_dotted(key), self._names))

    def _name(self, key: Key) -> str:
        """Return the path of a value in readable form: ``policies[0](deployer).rules[2].max_ttl``."""
        text = ""
        for length, part in enumerate(key, start=1):
            text += f".{part}" if isinstance(part, str) else f"[{part}]"
            name = _find(self._table, (*key[:length], "name"))
            text += f"({name})" if isinstance(part, int) and isinstance(name, str) else ""
        return text.removeprefix(".")


def _validate(model: type[M], table: Table) -> tuple[M | None, list[ErrorDetails]]:
    """Return the model, or the errors; pydantic's exception has the input, so it is not raised."""
    try:
        return model.model_validate(table), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _drop(table: Table, errors: Sequence[ErrorDetails]) -> bool:
    """Remove invalid values, whole lists, and tables that lack a key; return whether there was one."""
    dropped = False
    for error in errors:
        path = _path(error["loc"][:-1] if error["type"] == "missing" else error["loc"])
        inner = _find(table, path[:-1])
        if path and isinstance(inner, dict):
            dropped |= inner.pop(path[-1], None) is not None
    return dropped


def setting_paths(model: type[ConfigModel], *, everything: bool = False) -> Iterator[tuple[str, ...]]:
    """Yield the path of each setting; with ``everything`` also of tables and of items of lists."""
    for name, field in model.model_fields.items():
        inner = _inner(field.annotation, in_lists=everything)
        if inner is None or everything:
            yield (name,)
        if inner is not None:
            yield from ((name, *path) for path in setting_paths(inner, everything=everything))


def _inner(annotation: object, *, in_lists: bool) -> type[ConfigModel] | None:
    """Return the model of a table, or None for a single value."""
    if isinstance(annotation, type) and issubclass(annotation, ConfigModel):
        return annotation
    if in_lists or get_origin(annotation) in {Union, UnionType, Annotated}:
        found = (_inner(part, in_lists=in_lists) for part in get_args(annotation))
        return next(filter(None, found), None)
    return None


def _path(key: Key) -> tuple[str, ...]:
    """Return the part of a key before its first index."""
    return tuple(str(part) for part in takewhile(lambda part: isinstance(part, str), key))


def _dotted(key: Key) -> str:
    """Return a key without its indexes: the name that a setting has in the model."""
    return ".".join(part for part in key if isinstance(part, str))


def _variable(path: tuple[str, ...]) -> str:
    """Return the variable of a setting: ``aws.rate`` is ``LESSOR_AWS_RATE``."""
    return PREFIX + "_".join(path).upper()


def _find(value: object, key: Key) -> object:
    """Return the value at a place in nested tables and lists, or None."""
    for part in key:
        if isinstance(value, dict) and isinstance(part, str):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value


def _likely(name: str, known: Iterable[str]) -> str:
    """Suggest the most similar name."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else "remove it"


def _read(file: Path, problems: list[Problem]) -> str:
    """Return the text of a file; if it cannot be read, add a problem and return an empty text."""
    try:
        if problem := kind_problem(file):
            problems.append(Problem(str(file), "", *problem))
            return ""
        text = file.read_text(encoding="utf-8")
        if problem := file_problem(file):
            problems.append(Problem(str(file), "", *problem))
        return text
    except OSError as error:
        problems.append(
            Problem(str(file), "", f"can't be read: {error.strerror}", "name a readable TOML file")
        )
    except UnicodeDecodeError:
        problems.append(Problem(str(file), "", "is not UTF-8", "write it as UTF-8"))
    return ""


def _parse(text: str, where: str, problems: list[Problem]) -> Table:
    """Parse TOML; a syntax error becomes a problem with its line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        if place := _AT_LINE.fullmatch(str(error)):
            problem, line, column = place.groups()
            at = f"column {column}"
        else:
            problem, line = str(error).removesuffix(" (at end of document)"), str(len(text.splitlines()))
            at = "the end of the file"
        problems.append(Problem(f"{where}:{line}", "", f"{problem} at {at}", "write it as TOML"))
        return {}
