"""Checks that generated pages are current, and that files named on pages exist."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_generated_pages_are_current() -> None:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for name, text in generate.pages().items():
        assert (DOCS / name).read_text() == text, f"run python docs/generate.py for {name}"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    """A path is relative to the root, the server, or any folder of the server."""
    text = (ROOT / page).read_text(encoding="utf-8")
    server = ROOT / "server" / "lessor_server"
    below = [folder for folder in server.rglob("*") if folder.is_dir() and folder.name != "__pycache__"]
    bases = (ROOT, DOCS, ROOT / "client" / "lessor", ROOT / "tests", server, *below)
    named = set(re.findall(r"`([\w./]+(?:\.py|\.proto|\.md|/))`", text))
    named |= set(re.findall(r"\]\(([\w./-]+)\)", text))
    assert len(named) > 10
    assert {path for path in named if not any((base / path).exists() for base in bases)} == set()


def test_the_page_of_faults_has_each_check_and_each_alert() -> None:
    way, around, running = (DOCS / "faults.md").read_text(encoding="utf-8").split("\n## ")[1:]
    client, server = ROOT / "client" / "lessor" / "cli", ROOT / "server" / "lessor_server" / "commands"
    assert set(re.findall(r"`(\w+)`", column(way))) == checks([client / "examination.py"])
    assert set(re.findall(r"`(\w+)`", column(around))) == checks((server / "deep_check").glob("*.py"))
    rules = (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"Lessor\w+", column(running))) == set(re.findall(r"alert: (\w+)", rules))


def column(section: str) -> str:
    """Return the last column of the table of a section."""
    return "\n".join(line.split(" | ")[-1] for line in section.splitlines() if line.startswith("| "))


def checks(files: Iterable[Path]) -> set[str]:
    """Return the names of the checks in sources."""
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    called = r'(?:Finding\.(?:good|doubtful|bad|of_error)|_silent|_of_call|_warning)\(\s*"(\w+)"'
    return set(re.findall(called, text))
