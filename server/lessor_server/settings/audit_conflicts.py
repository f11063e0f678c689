"""Finds an audit sink in a place that the server uses for something else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lessor_server.domain.own_files import is_own_file


def find_collision(path: Path, named: Iterable[tuple[str, Path | None]], data_dir: Path) -> str:
    """Return what else uses a path, empty if nothing does.

    ``named`` are the other settings that name a file or socket. Links to the same file count.
    """
    for setting, other in named:
        if other is not None and _are_same(path, other):
            return setting
    own = _resolved(path)
    if own.parent == _resolved(data_dir) and is_own_file(own.name):
        return f"the server itself, in data_dir ({own.name})"
    try:
        files = [one for one in data_dir.iterdir() if is_own_file(one.name)]
    except OSError:
        return ""
    return next((f"the server itself, in data_dir ({one.name})" for one in files if _are_same(path, one)), "")


def _are_same(one: Path, other: Path) -> bool:
    try:
        if one.samefile(other):
            return True
    except OSError:
        pass
    return _resolved(one) == _resolved(other)


def _resolved(path: Path) -> Path:
    try:
        return path.absolute().resolve()
    except (OSError, RuntimeError):  # a loop of links
        return path.absolute()
