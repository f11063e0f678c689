"""Reads the requirements of pyproject.toml, and the lock files that `make lock` writes from them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "requirements"
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """One entry of a lock file."""

    requirement: Requirement
    hashes: tuple[str, ...]
    """SHA-256 of each of its files, in hex."""

    @property
    def name(self) -> str:
        """The name as registries compare it."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> Version:
        """The one version that it admits; AssertionError if there are others."""
        found = re.fullmatch(r"==([^*,]+)", str(self.requirement.specifier))
        assert found, f"{self.requirement} is not pinned"
        return Version(found.group(1))

    @property
    def is_for_this_machine(self) -> bool:
        """Whether an install on this platform and Python takes it."""
        return self.requirement.marker is None or self.requirement.marker.evaluate()


def locked(name: str) -> list[Pin]:
    """Return the entries of ``requirements/NAME.txt``; packaging's error if a line is none."""
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return [Pin(Requirement(_HASH.sub("", line).strip()), tuple(_HASH.findall(line))) for line in lines]


def needed(name: str) -> list[Requirement]:
    """Return what ``requirements/NAME.txt`` must have: the needs of the build, a group or an extra."""
    table = _pyproject()
    if name == "build":
        return [Requirement(one) for one in table["build-system"]["requires"]]
    if name in table["dependency-groups"]:
        return [Requirement(one) for one in table["dependency-groups"][name]]
    return [*map(Requirement, table["project"]["dependencies"]), *_of_extra(table["project"], name)]


def _of_extra(project: dict[str, Any], extra: str) -> Iterator[Requirement]:
    """Yield the requirements of an extra, and of the project's other extras that it names."""
    for one in map(Requirement, project["optional-dependencies"][extra]):
        if one.name != project["name"]:
            yield one
        for other in one.extras if one.name == project["name"] else ():
            yield from _of_extra(project, other)


@cache
def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
