"""Edits one section of AWS's configuration files, and leaves every other line as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

_HEADER: Final = re.compile(r"\s*\[\s*([^\]]*?)\s*\]\s*(?:[#;].*)?")
_SETTING: Final = re.compile(r"([^\s=#;\[][^=]*?)\s*=\s*(.*?)\s*")


def with_section(text: str, section: str, settings: Mapping[str, str]) -> str:
    """Return a file with these settings of a section; its other settings and comments stay.

    A setting with an empty value is removed. A new section is appended.
    """
    lines = text.splitlines()
    start, end = _bounds(lines, section)
    new = [f"{name} = {value}" for name, value in settings.items() if value]
    if start < 0:
        gap = [""] if lines and lines[-1].strip() else []
        return _joined([*lines, *gap, f"[{section}]", *new])
    kept = [
        line
        for line in lines[start + 1 : end]
        if not ((found := _SETTING.fullmatch(line)) and found[1] in settings)
    ]
    return _joined([*lines[: start + 1], *new, *kept, *lines[end:]])


def without_section(text: str, section: str) -> str:
    """Return a file without a section; the comments before the next one stay."""
    lines = text.splitlines()
    start, end = _bounds(lines, section)
    if start < 0:
        return text
    before = lines[:start]
    while before and end >= len(lines) and not before[-1].strip():
        before.pop()
    return _joined([*before, *lines[end:]])


def settings_of(text: str, section: str) -> dict[str, str]:
    """Return the settings of a section; empty if there is none."""
    lines = text.splitlines()
    start, end = _bounds(lines, section)
    matches = (_SETTING.fullmatch(line) for line in lines[start + 1 : end])
    return {} if start < 0 else {found[1]: found[2] for found in matches if found}


def section_names(text: str) -> list[str]:
    """Return the names of all sections, in the order of the file."""
    return [found[1] for line in text.splitlines() if (found := _HEADER.fullmatch(line))]


def _bounds(lines: Sequence[str], section: str) -> tuple[int, int]:
    """Return the line of a section's header and the line after its last setting; -1 if there is none."""
    start = next((at for at, line in enumerate(lines) if _name(line) == section), -1)
    if start < 0:
        return -1, -1
    end = next((at for at in range(start + 1, len(lines)) if _name(lines[at]) is not None), len(lines))
    if end < len(lines):
        while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip()[0] in "#;"):
            end -= 1
    return start, end


def _name(line: str) -> str | None:
    found = _HEADER.fullmatch(line)
    return found[1] if found else None


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
