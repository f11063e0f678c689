"""Checks that generated pages are current, and that files named on pages exist."""

from __future__ import annotations

import importlib.util
import re
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
