"""Checks the size of files, functions and constructors, and the words of texts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("client", "server", "bench", "examples", "tests")
FILE_LINES = 500
FUNCTION_LINES = 50
CONSTRUCTOR_ARGUMENTS = 8
PROSE = ("client", "server")
"""Folders whose strings and docstrings are held to plain words: users read them."""
PAGES = (
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)
PRIVATE_WORDS = re.compile(
    r"\b(told|mend|anew|whoever|unasked|untaken|(?<!there )is no(?! longer)|looks running"
    r"|bears?(?: \w+)? out|let be)\b",
    re.IGNORECASE,
)
"""Words of no other project: log, report or return; fix; again; the noun; undelivered; is not a valid;
consecutive checks; confirm; leave alone. "There is no X" and "is no longer" are plain."""
HOMONYMS = {
    "command": "each command of the command line has one, which is loaded by its module's name",
    "retire": "a pure step of a lease and one of a rotation, always called by their modules' names",
    "text": "a reader of columns and a parser of settings are named by the type that they return",
    "violations": "each module of rules has one, always called by its module's name",
}
"""Public names of the server that are defined in more than one module, and why that is no confusion."""
NO_ACTION = re.compile(
    r"(after|at|before|behind|beside|by|during|for|from|in|of|on|over|per|since|to|under|unless|until|while"
    r"|with|within|without|begun|bound|built|done|found|given|gone|held|kept|known|left|made|said|sent|taken"
    r"|told|written|(?!(bring|embed|exceed|feed|need|proceed|seed|shed|succeed)$)[a-z]+(ed|ing))"
)
"""First words that are prepositions or participles, but not verbs that end like one."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> Iterator[Path]:
    """Yield each Python file that people of the project write."""
    for folder in FOLDERS:
        yield from (path for path in sorted((ROOT / folder).rglob("*.py")) if "_pb2" not in path.name)
    yield from sorted((ROOT / "protos").glob("*.py"))


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


def public_names(tree: ast.Module) -> Iterator[str]:
    """Yield each public class and function that a module defines at its top."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, Function)) and not node.name.startswith("_"):
            yield node.name


def is_action(name: str) -> bool:
    """Return whether a name begins with a word that may be a verb in the imperative."""
    return NO_ACTION.fullmatch(name.strip("_").split("_")[0]) is None


def private_words(text: str) -> list[str]:
    """Return the banned words of a text, also where a line ends inside one."""
    return [found.group() for found in PRIVATE_WORDS.finditer(re.sub(r"\s+", " ", text))]


def strings(path: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield each string and docstring of a module with its line; a column's name stays as it is stored."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            stored = "adapters/sqlite/" in path
            yield node.lineno, node.value.replace("untaken", "") if stored else node.value


@pytest.fixture(scope="module", name="trees")
def parsed() -> dict[str, ast.Module]:
    """Parse every source once, under its path from the root."""
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in sources()}


def test_every_folder_is_checked() -> None:
    """Otherwise a moved folder would pass unnoticed."""
    names = {path.relative_to(ROOT).parts[0] for path in sources()}
    assert {"client", "server", "tests", "protos"} <= names


def test_no_file_is_longer_than_500_lines() -> None:
    sizes = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert [f"{path}: {size} lines" for path, size in sizes.items() if size > FILE_LINES] == []


def test_no_function_is_longer_than_50_lines(trees: dict[str, ast.Module]) -> None:
    long = [
        f"{path}:{function.lineno}: {function.name} has {lines(function)} lines"
        for path, tree in trees.items()
        for function in functions(tree)
        if lines(function) > FUNCTION_LINES
    ]
    assert long == []


def test_no_constructor_takes_more_than_eight_arguments(trees: dict[str, ast.Module]) -> None:
    """A class that needs more takes a frozen value."""
    wide = [
        f"{path}:{function.lineno}: __init__ takes {arguments(function)} arguments"
        for path, tree in trees.items()
        for function in functions(tree)
        if function.name == "__init__" and arguments(function) > CONSTRUCTOR_ARGUMENTS
    ]
    assert wide == []


def test_a_public_name_of_the_server_has_one_meaning(trees: dict[str, ast.Module]) -> None:
    places: dict[str, list[str]] = {}
    for path, tree in trees.items():
        for name in public_names(tree) if path.startswith("server/") else ():
            places.setdefault(name, []).append(path)
    assert {name: where for name, where in places.items() if len(where) > 1 and name not in HOMONYMS} == {}
    assert [name for name in HOMONYMS if len(places.get(name, [])) < 2] == []


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("create_user", True),
        ("_seed", True),
        ("made", False),
        ("_until_due", False),
        ("rotated_away", False),
        ("running", False),
    ],
)
def test_a_participle_or_a_preposition_is_not_an_action(name: str, action: bool) -> None:
    assert is_action(name) is action


def test_the_name_of_an_async_function_begins_with_a_verb(trees: dict[str, ast.Module]) -> None:
    """A participle is for a pure function that returns a changed copy."""
    odd = [
        f"{path}:{node.lineno}: {node.name}"
        for path, tree in trees.items()
        if path.startswith("server/")
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef) and not is_action(node.name)
    ]
    assert odd == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"x" is no name', ["is no"]),
        ("Three looks\n    running", ["looks running"]),
        ("if AWS bears it out", ["bears it out"]),
        ("a name that is no longer used, as there is no other", []),
        ("mended, recommend", []),
    ],
)
def test_private_words_are_found_also_across_lines(text: str, found: list[str]) -> None:
    assert private_words(text) == found


def test_texts_have_no_private_words(trees: dict[str, ast.Module]) -> None:
    """Help, errors, logs and docstrings."""
    odd = [
        f"{path}:{line}: {', '.join(words)}"
        for path, tree in trees.items()
        if path.startswith(PROSE)
        for line, text in strings(path, tree)
        if (words := private_words(text))
    ]
    assert odd == []


@pytest.mark.parametrize("page", PAGES)
def test_pages_have_no_private_words(page: str) -> None:
    """Names in code, such as a column's, are not checked."""
    text = re.sub(r"`[^`\n]*`", "", (ROOT / page).read_text(encoding="utf-8"))
    assert private_words(text) == []
