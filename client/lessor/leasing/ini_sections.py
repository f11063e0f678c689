"""Edits one section of AWS's configuration files, and leaves every other line as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

_NO_SETTING: Final = "=#;["
"""What begins a line that is not a setting; a blank begins one that continues a setting."""


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
        line for line in lines[start + 1 : end] if not ((found := _setting(line)) and found[0] in settings)
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
    return {} if start < 0 else dict(filter(None, map(_setting, lines[start + 1 : end])))


def section_names(text: str) -> list[str]:
    """Return the names of all sections, in the order of the file."""
    return [name for line in text.splitlines() if (name := _name(line)) is not None]


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
    """Return the name of a section, if the line is its header; a comment may follow."""
    name, bracket, rest = line.strip().partition("]")
    if not name.startswith("[") or not bracket or rest.lstrip()[:1] not in ("", "#", ";"):
        return None
    return name[1:].strip()


def _setting(line: str) -> tuple[str, str] | None:
    """Return the name and the value of a setting, if the line has one."""
    name, sign, value = line.partition("=")
    if not sign or not name or name[0] in _NO_SETTING or name[0].isspace():
        return None
    return name.rstrip(), value.strip()


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
