"""The settings an operator gave, each with its place: a TOML file and the environment as one set.

Problems are collected, not raised one by one, so that a start reports all of them together.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from lessor_server.settings.access import file_problem, kind_problem

T = TypeVar("T")
D = TypeVar("D")

PREFIX: Final = "LESSOR_"
CLIENTS: Final = frozenset(
    PREFIX + name for name in ("ADDR", "TOKEN", "TOKEN_FILE", "CACERT", "CLIENT_CERT", "CLIENT_KEY")
)
"""The variables of the client, which may be set where a server runs and mean nothing to it."""

KUBERNETES: Final = re.compile(
    PREFIX + r"(?:[A-Z0-9_]*_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)
"""Variables that Kubernetes sets in each container for Services named ``lessor`` or ``lessor-api``.

Source: "Service", section "Environment variables", in the Kubernetes documentation.
"""

_BARE: Final = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED: Final = rf"({_BARE}(?:\s*\.\s*{_BARE})*)"
_HEADER: Final = re.compile(rf"\s*\[\[?\s*{_DOTTED}\s*\]")
_KEY: Final = re.compile(rf"\s*{_DOTTED}\s*=")
_AT_LINE: Final = re.compile(r"(.*) \(at line (\d+), column (\d+)\)")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the settings: ``where`` is ``file:line`` or the name of a variable."""

    where: str
    setting: str
    problem: str
    fix: str

    def __str__(self) -> str:
        """Say it in one line."""
        return ": ".join(part for part in (self.where, self.setting, self.problem) if part) + f"; {self.fix}"


class SettingsError(Exception):
    """The settings can't be used; ``problems`` lists every reason."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        """Carry every problem; the text has one a line."""
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class InvalidValue(ValueError):
    """A value breaks the rule of its setting."""

    def __init__(self, problem: str, fix: str) -> None:
        """Name the problem and its fix, never with the text of a secret."""
        super().__init__(f"{problem}; {fix}")
        self.problem = problem
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Found:
    """A value as it was given, and where."""

    value: object
    where: str


class RawSettings:
    """Returns given values by the name of their setting and collects their problems."""

    def __init__(
        self, filed: Mapping[str, Found], variables: Mapping[str, str], problems: list[Problem]
    ) -> None:
        """Take the values of the file, by dotted name, and in the environment, by variable."""
        self._filed = filed
        self._variables = variables
        self._problems = problems
        self._asked: list[str] = []

    @classmethod
    def read(cls, file: Path | None, environ: Mapping[str, str]) -> RawSettings:
        """Read ``file``, if one is named, and the ``LESSOR_`` variables that are not the client's."""
        problems: list[Problem] = []
        filed = _read_file(file, problems) if file is not None else {}
        variables = {
            name: value for name, value in environ.items() if name.startswith(PREFIX) and name not in CLIENTS
        }
        return cls(filed, variables, problems)

    def take(self, name: str, read: Callable[[object], T], default: D) -> T | D:
        """Return the setting as ``read`` understands it, or ``default``; an error becomes a problem."""
        self._asked.append(name)
        found = self._find(name)
        if found is None:
            return default
        try:
            return read(found.value)
        except InvalidValue as wrong:
            self.problem(name, wrong.problem, wrong.fix)
            return default

    def has(self, name: str) -> bool:
        """Return whether the setting was given at all, valid or not."""
        return self._find(name) is not None

    def problem(self, name: str, problem: str, fix: str) -> None:
        """Record a problem at the place where the setting was given; without a place if it was not."""
        found = self._find(name)
        self._problems.append(Problem(found.where if found else "", name, problem, fix))

    def refuse_unknown(self) -> None:
        """Record a problem for each unknown setting, so that a typing error does not pass."""
        variables = {_variable(name): name for name in self._asked}
        for variable in sorted(self._variables.keys() - variables.keys()):
            if KUBERNETES.fullmatch(variable):
                continue
            self._problems.append(
                Problem(variable, "", "is not a setting", _likely(variable, list(variables)))
            )
        for name, found in self._filed.items():
            known = name in self._asked or (
                found.value == {} and any(asked.startswith(f"{name}.") for asked in self._asked)
            )
            if not known:
                self._problems.append(
                    Problem(found.where, name, "is not a setting", _likely(name, self._asked))
                )

    def raise_faults(self) -> None:
        """Raise ``SettingsError`` if there is any problem."""
        if self._problems:
            raise SettingsError(tuple(self._problems))

    def _find(self, name: str) -> Found | None:
        """Return the value of a setting; the environment wins over the file."""
        variable = _variable(name)
        if variable in self._variables:
            return Found(self._variables[variable], variable)
        return self._filed.get(name)


def _variable(name: str) -> str:
    """Return the variable of a setting: ``aws.rate`` is ``LESSOR_AWS_RATE``."""
    return PREFIX + name.replace(".", "_").upper()


def _likely(name: str, known: list[str]) -> str:
    """Return what was probably meant."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else "remove it"


def _read_file(file: Path, problems: list[Problem]) -> dict[str, Found]:
    """Read a TOML file into its values by dotted name; an unreadable file becomes a problem."""
    if problem := kind_problem(file):
        problems.append(Problem(str(file), "", *problem))
        return {}
    try:
        content = file.read_text(encoding="utf-8")
        if problem := file_problem(file):
            problems.append(Problem(str(file), "", *problem))
        return _parse(file, content, problems)
    except OSError as error:
        problems.append(
            Problem(str(file), "", f"can't be read: {error.strerror}", "name a readable TOML file")
        )
    except UnicodeDecodeError:
        problems.append(Problem(str(file), "", "is not UTF-8", "write it as UTF-8"))
    return {}


def _parse(file: Path, text: str, problems: list[Problem]) -> dict[str, Found]:
    """Parse the text of ``file``; if it is not valid TOML that becomes a problem."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(_toml_problem(file, text, str(error)))
        return {}
    lines = _lines(text)
    return {
        name: Found(value, f"{file}:{lines[name]}" if name in lines else str(file))
        for name, value in _flat("", table)
    }


def _toml_problem(file: Path, text: str, message: str) -> Problem:
    """Turn the parser's message into a problem with its line."""
    if place := _AT_LINE.fullmatch(message):
        problem, line, column = place.groups()
        return Problem(f"{file}:{line}", "", f"{problem} at column {column}", "write it as TOML")
    problem = message.removesuffix(" (at end of document)")
    return Problem(
        f"{file}:{len(text.splitlines())}", "", f"{problem} at the end of the file", "write it as TOML"
    )


def _flat(prefix: str, table: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield each value of nested tables under its dotted name; an empty table stands for itself."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _flat(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value


def _lines(text: str) -> dict[str, int]:
    """Return the line on which each dotted name is given: tomllib reports none."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _bare(header[1])
            lines.setdefault(table, number)
            table += "."
        elif key := _KEY.match(line):
            lines.setdefault(table + _bare(key[1]), number)
    return lines


def _bare(dotted: str) -> str:
    """Return a dotted name without quotes and blanks."""
    return ".".join(part.strip().strip("\"'") for part in dotted.split("."))
