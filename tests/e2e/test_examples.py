"""Runs the examples whose tools the tests have; ``make examples`` runs those in Go and Java as well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.slow]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ("python", "shell", "node")
SECONDS = 300


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    """Run the examples once, against one dev server; return what is said of each."""
    words = [sys.executable, str(EXAMPLES / "run.py"), *NAMES]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS)
    found = dict(line.partition(": ")[::2] for line in done.stdout.splitlines())
    assert set(NAMES) <= set(found), done.stdout + done.stderr
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_example_walks_the_tutorial(printed: dict[str, str], name: str) -> None:
    if printed[name].startswith("not run: "):
        pytest.skip(printed[name])
    assert printed[name] == "ok"


def test_each_folder_of_examples_can_be_run() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    source = (EXAMPLES / "run.py").read_text(encoding="utf-8")
    assert folders == {name for name in folders if f'"{name}": run_{name}' in source}
    assert len(folders) == 5
