"""A row that can't be measured is skipped with the fix; one that fails does not end the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.__main__ import Row, run
from bench.children import BenchError, Child
from bench.figures import Figure
from bench.world import QUICK, Size, World


@pytest.fixture(name="world")
def without_processes(tmp_path: Path) -> World:
    return World(tmp_path, Child(None, tmp_path / "log"), "http://127.0.0.1:1")  # type: ignore[arg-type]


def measure(_world: World, size: Size) -> Iterator[Figure]:
    yield Figure("rounds", size.rounds, "rounds")
    raise BenchError("the second figure is wrong")


def test_a_row_without_its_tool_is_skipped_and_says_the_fix(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row(measure, ((lambda: True, "not this"), (lambda: False, "needs a tool: install it")))
    assert run(world, QUICK, "row", row) == []
    assert capsys.readouterr().out == "\nrow\n  skipped: needs a tool: install it\n"


def test_a_row_that_fails_has_no_figures(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, QUICK, "row", Row(measure, ())) is None
    assert "failed: the second figure is wrong" in capsys.readouterr().out
