"""Checks that every test that docs/parity.md names exists, and that no row is empty."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "parity.md"
NAMED = re.compile(r"`([a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")
TESTS_THERE = 63
"""How many tests of that engine there are to speak of."""


def rows() -> Iterator[tuple[str, str]]:
    """Yield the two cells of each row: the test there, and what the page says of it."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 2 and cells[0] not in {"Vault", "behaviour", "---"}:
            yield cells[0], cells[1]


def test_every_test_that_is_named_exists() -> None:
    named = [found for _, said in rows() for found in NAMED.findall(said)]
    assert len(named) > TESTS_THERE
    texts = {
        path: (ROOT / "tests" / path).read_text(encoding="utf-8") for path in {path for path, _ in named}
    }
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in texts[path]]
    assert missing == []


def test_every_row_names_a_test_or_says_why_not() -> None:
    silent = [there for there, said in rows() if not NAMED.search(said) and not said.startswith("–")]
    assert silent == []
    assert sum(there.startswith("Test") for there, _ in rows()) == TESTS_THERE
