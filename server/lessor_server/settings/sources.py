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
from typing import Annotated, ClassVar, Final, Generic, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from lessor_server.domain.errors.base import shown
from lessor_server.settings.file_checks import file_problem, kind_problem
from lessor_server.settings.parsers import InvalidValue

PREFIX: Final = "LESSOR_"
CLIENTS: Final = frozenset(
    PREFIX + name
    for name in (
        *("ADDR", "TOKEN", "TOKEN_FILE", "CACERT", "CLIENT_CERT", "CLIENT_KEY"),
        *("CONTEXT", "FORMAT", "LEASE_ID", "ROLE"),
    )
)
"""Variables of the client and of what it starts; the server ignores them."""

KUBERNETES: Final = re.compile(
    PREFIX + r"(?:[A-Z0-9_]*_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)
"""Variables that Kubernetes sets in each container for Services named ``lessor`` or ``lessor-api``.

Source: "Service", section "Environment variables", in the Kubernetes documentation.
"""

NOT_A_VALUE: Final = ("is not a setting but a table of settings", "write it as a table")
NOT_PAIRS: Final = ("is not a table", 'write it as { key = "value" }')
MAX_FILE: Final = 1 << 20
"""The maximum bytes of a file."""
MAX_DEPTH: Final = 32
"""The maximum depth of tables and lists: what walks through them calls itself for each level."""
_TOO_DEEP: Final = (f"nests tables or lists more than {MAX_DEPTH} deep", "nest them less deeply")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_AT_LINE: Final = re.compile(r"(.*) \(at line (\d+), column (\d+)\)")

Table = dict[str, object]
Key = tuple[int | str, ...]
"""The path of a value in nested tables and lists."""
Conflict = tuple[str | Key, str, str]
"""A setting, or a path with indexes; the problem; its fix."""


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

    needed: ClassVar[tuple[str, ...]] = ()
    """Keys that a table of a list needs although they have a default: without them it is still checked."""

    def find_conflicts(self, given: AbstractSet[str]) -> Iterator[Conflict]:  # noqa: ARG002
        """Yield a setting, problem and fix for each combination that can't be used.

        ``given`` has the name of each setting that was given; in an inner table, the keys of that table, and
        the setting is a path below it. ``self`` has the default in place of an invalid value, and lists lack
        their invalid items, so that conflicts are reported together with invalid values.
        """
        yield from ()


M = TypeVar("M", bound=ConfigModel)


def load_file(model: type[M], file: Path | None, environ: Mapping[str, str]) -> M:
    """Load ``model`` from ``file``, if one is given; the variables of ``environ`` override it.

    Raises:
        SettingsError: With every problem of both.
    """
    problems: list[Problem] = []
    text = read_file(file, problems) if file is not None else ""
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
        self._kept: dict[Key, list[int]] = {}
        """For each list that lost items: the indexes in the file of those that are left."""

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
        while errors and self._drop(rest, errors):
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
            key, value, cause = _value_key(error["loc"]), error["input"], error.get("ctx", {}).get("error")
            if error["type"] == "missing":
                missing.setdefault(key[:-1], []).append(self._name(key))
            elif error["type"] == "extra_forbidden":
                yield self._unknown(key)
            elif error["type"] == "model_type":
                yield self.problem(key, *NOT_A_VALUE)
            elif error["type"] == "dict_type":
                yield self.problem(key, *NOT_PAIRS)
            elif not isinstance(cause, InvalidValue):
                _, expected, text = error["msg"].rpartition("Input should be ")
                yield self.problem(key, f"is not {text}" if expected else text, "correct it")
            elif self._is_misplaced(key, value):
                yield self._unknown((*key, *list(value)[:1]))
            else:
                yield self.problem(key, cause.problem, cause.fix)
        for table, names in missing.items():
            keys = [(*table, known.rpartition(".")[2]) for known in self._names]
            key = next((key for key in keys if _find(self._table, key) is not None), table)
            yield self.problem(key, f"is set without {' and '.join(names)}", "add it, or remove the rest")

    def conflicts_of(self, model: M) -> Iterator[Problem]:
        """Yield the problem of each combination that can't be used, in the model and in its inner tables."""
        given = {".".join(path) for path in self._paths.values() if _find(self._table, path) is not None}
        for name, problem, fix in model.find_conflicts(given):
            yield self.problem(self._in_file(_key(name)), problem, fix)
        for key, table in _inner_tables(model):
            place = self._in_file(key)
            written = _find(self._table, place)
            keys = set(written) if isinstance(written, dict) else set()
            if missing := [name for name in table.needed if name not in keys]:
                yield self.problem(place, f"is set without {' and '.join(missing)}", "add it")
            for name, problem, fix in table.find_conflicts(keys):
                yield self.problem(self._in_file((*key, *_key(name))), problem, fix)

    def unknown_variables(self) -> Iterator[Problem]:
        """Yield a problem for each unknown variable, such as a misspelt one."""
        for name in sorted(self._variables.keys() - self._paths.keys()):
            if not KUBERNETES.fullmatch(name):
                yield Problem(name, "", "is not a setting", _likely(name, self._paths))

    def _is_misplaced(self, key: Key, value: object) -> bool:
        """Return whether a single setting has a table instead, whose keys are no settings either."""
        if not value or not isinstance(value, dict) or key not in self._paths.values():
            return False
        return _dotted((*key, *list(value)[:1])) not in self._names

    def _unknown(self, key: Key) -> Problem:
        return self.problem(key, "is not a setting", _likely(_dotted(key), self._names))

    def _name(self, key: Key) -> str:
        """Return the path of a value in readable form: ``policies[0](deployer).rules[2].max_ttl``."""
        text = ""
        for length, part in enumerate(key, start=1):
            text += f"[{part}]" if isinstance(part, int) else f".{part if _is_bare(part) else shown(part)}"
            name = _find(self._table, (*key[:length], "name"))
            if isinstance(part, int) and isinstance(name, str) and name:
                text += f"({shown(name)[1:-1]})"
        return text.removeprefix(".")

    def _in_file(self, key: Key) -> Key:
        """Return the place in the file of a value of a model that lacks invalid items."""
        place: Key = ()
        for part in key:
            kept = self._kept.get(place)
            place = (*place, kept[part] if kept is not None and isinstance(part, int) else part)
        return place

    def _drop(self, table: Table, errors: Sequence[ErrorDetails]) -> bool:
        """Remove invalid values, invalid items of lists, and tables that lack a key; return whether any was.

        Items are removed from the last one on, so that the indexes in ``errors`` stay true.
        """
        paths = dict.fromkeys(
            _written_key(table, _value_key(error["loc"][:-1] if error["type"] == "missing" else error["loc"]))
            for error in reversed(errors)
        )
        outer = [
            path for path in paths if path and not any(path[:end] in paths for end in range(1, len(path)))
        ]
        places = {path: self._in_file(path[:-1]) for path in outer}
        dropped = False
        for path, place in places.items():
            inner, last = _find(table, path[:-1]), path[-1]
            if isinstance(inner, list) and isinstance(last, int):
                if place not in self._kept:
                    self._kept[place] = list(range(len(inner)))
                del self._kept[place][last], inner[last]
                dropped = True
            elif isinstance(inner, dict):
                dropped |= inner.pop(last, None) is not None
        return dropped


def _validate(model: type[M], table: Table) -> tuple[M | None, list[ErrorDetails]]:
    """Return the model, or the errors; pydantic's exception has the input, so it is not raised."""
    try:
        return model.model_validate(table), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def setting_paths(model: type[ConfigModel], *, everything: bool = False) -> Iterator[tuple[str, ...]]:
    """Yield the path of each setting; with ``everything`` also of tables and of items of lists."""
    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
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


def _inner_tables(model: ConfigModel, key: Key = ()) -> Iterator[tuple[Key, ConfigModel]]:
    """Yield each table of a model at any depth, with its path."""
    for attribute, field in type(model).model_fields.items():
        value, place = getattr(model, attribute), (*key, field.alias or attribute)
        for path, one in enumerate(value) if isinstance(value, tuple) else ():
            if isinstance(one, ConfigModel):
                yield (*place, path), one
                yield from _inner_tables(one, (*place, path))
        if isinstance(value, ConfigModel):
            yield place, value
            yield from _inner_tables(value, place)


def _key(name: str | Key) -> Key:
    """Return the path of a setting that is named by its dotted name, or by its path already."""
    return tuple(name.split(".")) if isinstance(name, str) else name


def _value_key(key: Key) -> Key:
    """Return the path of a value; pydantic marks an invalid key of a table by another part."""
    return key[:-1] if key[-1:] == ("[key]",) else key


def _written_key(table: Table, key: Key) -> Key:
    """Return the path of the value that holds the one at ``key``: a text may be a list of values."""
    while key and not isinstance(_find(table, key[:-1]), dict | list):
        key = key[:-1]
    return key


def _is_bare(part: str) -> bool:
    """Return whether TOML needs no quotes around a key."""
    return _BARE_KEY.fullmatch(part) is not None


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


def read_file(file: Path, problems: list[Problem]) -> str:
    """Return the text of a file; if it cannot be read, add a problem and return an empty text."""
    try:
        if problem := kind_problem(file):
            problems.append(Problem(str(file), "", *problem))
            return ""
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE + 1)
        if problem := file_problem(file):
            problems.append(Problem(str(file), "", *problem))
        if len(content) > MAX_FILE:
            problems.append(Problem(str(file), "", "is longer than 1 MiB", "make it shorter"))
            return ""
        return content.decode("utf-8").replace("\r\n", "\n")
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
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        if place := _AT_LINE.fullmatch(str(error)):
            problem, line, column = place.groups()
            at = f"column {column}"
        else:
            problem, line = str(error).removesuffix(" (at end of document)"), str(len(text.splitlines()))
            at = "the end of the file"
        problems.append(Problem(f"{where}:{line}", "", f"{problem} at {at}", "write it as TOML"))
    except ValueError:  # Python converts no decimal number of more than 4,300 digits
        problems.append(Problem(where, "", "has a number with too many digits", "write a smaller number"))
    except RecursionError:
        problems.append(Problem(where, "", *_TOO_DEEP))
    else:
        if not _is_deep(table):
            return table
        problems.append(Problem(where, "", *_TOO_DEEP))
    return {}


def _is_deep(table: Table) -> bool:
    """Return whether tables and lists are nested too deeply; dotted keys make any depth."""
    level: list[object] = [table]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (
                outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ()
            )
            if isinstance(inner, dict | list)
        ]
    return bool(level)
