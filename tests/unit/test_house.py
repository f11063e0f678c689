"""Keeps the code in small pieces: a file, a function and a constructor that fit on a screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("client", "server", "bench", "tests")
FILE_LINES = 500
FUNCTION_LINES = 50
CONSTRUCTOR_ARGUMENTS = 8
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> Iterator[Path]:
    """Yield each Python file that people of the project write."""
    for folder in FOLDERS:
        yield from (path for path in sorted((ROOT / folder).rglob("*.py")) if "_pb2" not in path.name)
    yield ROOT / "protos" / "build.py"


def functions(tree: ast.AST) -> Iterator[Function]:
    """Yield each function of a module, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def lines(function: Function) -> int:
    """Count the lines of a whole def, its signature and docstring included, decorators not."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def arguments(function: Function) -> int:
    """Count what a caller can pass, ``self`` not included."""
    spec = function.args
    return len(spec.posonlyargs) + len(spec.args) + len(spec.kwonlyargs) - 1


@pytest.fixture(scope="module", name="trees")
def parsed() -> dict[str, ast.Module]:
    """Parse every source once, under its path from the root."""
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in sources()}


def test_the_measure_reaches_every_folder() -> None:
    """The other tests here look at real files, so an emptied or moved folder can't pass them unseen."""
    names = {path.relative_to(ROOT).parts[0] for path in sources()}
    assert {"client", "server", "tests", "protos"} <= names


def test_no_file_is_longer_than_500_lines() -> None:
    """A file that outgrows its one purpose is split."""
    sizes = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert [f"{path}: {size} lines" for path, size in sizes.items() if size > FILE_LINES] == []


def test_no_function_is_longer_than_50_lines(trees: dict[str, ast.Module]) -> None:
    """A function fits on a screen, so that it can be seen whole."""
    long = [
        f"{path}:{function.lineno}: {function.name} has {lines(function)} lines"
        for path, tree in trees.items()
        for function in functions(tree)
        if lines(function) > FUNCTION_LINES
    ]
    assert long == []


def test_no_constructor_takes_more_than_eight_arguments(trees: dict[str, ast.Module]) -> None:
    """A part that needs more is given one frozen value instead."""
    wide = [
        f"{path}:{function.lineno}: __init__ takes {arguments(function)} arguments"
        for path, tree in trees.items()
        for function in functions(tree)
        if function.name == "__init__" and arguments(function) > CONSTRUCTOR_ARGUMENTS
    ]
    assert wide == []
