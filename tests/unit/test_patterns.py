"""Checks that the steps of each regular expression grow with the length of the text."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lessor
import lessor_server
from tests.support import regex_steps
from tests.support.regex_steps import TOO_MANY, Steps

ROOT = Path(__file__).resolve().parents[2]
SIZES = (24, 48, 96)
LOOKING = r"\.(?:search|sub|subn|split|findall|finditer)\("
"""Methods that look for a pattern anywhere, and so from each character on."""


def named_patterns() -> Iterator[tuple[str, re.Pattern[str], bool]]:
    """Yield each pattern of a module's own name, and whether it is looked for anywhere in a text."""
    for package in (lessor_server, lessor):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "_pb2" in module.name or module.name.endswith("__main__"):
                continue
            found = importlib.import_module(module.name)
            source = Path(found.__file__ or "").read_text(encoding="utf-8")
            for name, value in vars(found).items():
                for pattern in patterns_in(value):
                    yield f"{module.name}.{name}", pattern, bool(re.search(rf"\b{name}{LOOKING}", source))


def patterns_in(value: object) -> Iterator[re.Pattern[str]]:
    """Yield the patterns that a value is or holds."""
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict):
        yield from (pattern for inner in value.values() for pattern in patterns_in(inner))
    elif isinstance(value, tuple | list):
        yield from (pattern for inner in value for pattern in patterns_in(inner))


def growth(pattern: re.Pattern[str], looks: bool) -> list[tuple[str, str]]:
    """Return the attacks under which the steps of a pattern grow faster than the text."""
    steps = Steps(pattern)
    count = steps.search if looks else steps.fullmatch
    found = []
    for before, pump in sorted(set(regex_steps.attacks(steps.tree))):
        once, twice, four_times = (count(before + pump * size + "\x01") for size in SIZES)
        if four_times > TOO_MANY or four_times - twice > 2.5 * max(twice - once, SIZES[0]):
            found.append((before, pump))
    return found


@pytest.fixture(autouse=True, name="deep")
def allow_deep_recursion() -> Iterator[None]:
    """Let the matcher of the tests nest one call for each character."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(before)


def test_the_steps_of_every_pattern_grow_linearly_with_the_text() -> None:
    """Under each attack that is generated from the pattern."""
    patterns = {f"{name} {pattern.pattern}": (pattern, looks) for name, pattern, looks in named_patterns()}
    assert len(patterns) > 100
    slow = {name: growth(*one) for name, one in patterns.items()}
    assert {name: attacks for name, attacks in slow.items() if attacks} == {}


@pytest.mark.parametrize(
    ("pattern", "looks"),
    [
        (r"\{\{ *([^{}]*?) *\}\}", False),
        (r"(?:a+)+b", False),
        (r"[a-z]*[a-z0-9]*!", False),
        (r"secret[a-z_]*=", True),
        (r"a+b", True),
    ],
)
def test_slower_patterns_are_found(pattern: str, looks: bool) -> None:
    """Quadratic, cubic and exponential ones."""
    assert growth(re.compile(pattern), looks) != []


def trees() -> Iterator[tuple[str, ast.Module]]:
    """Yield each source of the server and the client, parsed."""
    for folder in ("server", "client"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_pb2" not in path.name:
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def test_every_pattern_has_a_name() -> None:
    """The test above sees only patterns of a module, not those that a function compiles."""
    inside = [
        f"{path}:{call.lineno}"
        for path, tree in trees()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "re"
        and call.func.attr != "escape"
    ]
    assert inside == []


def test_no_membership_test_uses_a_slice() -> None:
    """``item in items[:index]`` is quadratic, and runs in C, where no step is counted."""
    slices = [
        f"{path}:{node.lineno}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for operator, right in zip(node.ops, node.comparators, strict=True)
        if isinstance(operator, ast.In | ast.NotIn)
        and isinstance(right, ast.Subscript)
        and isinstance(right.slice, ast.Slice)
    ]
    assert slices == []
