"""Checks that lock files fit pyproject.toml, and that nothing is installed without a hash."""

from __future__ import annotations

import re

import pytest
from packaging.utils import canonicalize_name

from tests.support.lock_files import FOLDER, ROOT, locked, needed

NAMES = ("aws-cli", "build", "dev", "server", "test", "tools")
INSTALLERS = ("Makefile", "Dockerfile", "docs/hardening.md")


def commands(path: str) -> list[str]:
    """Return the commands of a file, each on one line, with variables of make filled in."""
    text = (ROOT / path).read_text(encoding="utf-8").replace("\\\n", " ")
    values = dict(re.findall(r"^(\w+) :?= (.*)$", text, re.MULTILINE))
    filled = re.sub(r"\$\((\w+)\)", lambda found: values.get(found.group(1), found.group()), text)
    begin = r"\t|RUN " if not path.endswith(".md") else r"\S+/pip "
    return [line for line in filled.splitlines() if re.match(begin, line)]


def test_every_lock_file_is_checked() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_has_one_version_and_hashes(name: str) -> None:
    """A registry, a path or an option in a lock file is no requirement, and can't be read as one."""
    pins = locked(name)
    assert len(pins) >= 10
    assert [
        str(pin.requirement) for pin in pins if not pin.version or not pin.hashes or pin.requirement.url
    ] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_file_has_what_pyproject_needs(name: str) -> None:
    """Where it does not, run `make lock`."""
    pins = locked(name)
    unmet = [
        str(one)
        for one in needed(name)
        if not (found := [pin for pin in pins if pin.name == canonicalize_name(one.name)])
        or not all(one.specifier.contains(pin.version) for pin in found)
    ]
    assert unmet == []


@pytest.mark.parametrize("name", ["build", "dev", "server"])
def test_what_ships_is_what_was_tested(name: str) -> None:
    """Versions and hashes are those of the lock file for tests."""
    tested = {(pin.name, pin.version, pin.hashes) for pin in locked("test")}
    assert {(pin.name, pin.version, pin.hashes) for pin in locked(name)} <= tested


@pytest.mark.parametrize("path", INSTALLERS)
def test_nothing_is_installed_without_a_hash(path: str) -> None:
    """An install takes hashes and wheels, or it takes the project itself and fetches nothing for it."""
    installs = [line for line in commands(path) if re.search(r"\bpip (install|wheel)\b", line)]
    assert len(installs) >= 3
    for line in installs:
        hashed = "--require-hashes" in line and "--only-binary :all:" in line
        own = "--no-deps" in line and (line.endswith(".whl") or "--no-build-isolation" in line)
        assert hashed or own, line
        assert "--no-binary" not in line or "--no-build-isolation" in line, line


def test_the_image_starts_from_a_digest() -> None:
    """A tag may name another image tomorrow."""
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:[\w.-]+@sha256:[0-9a-f]{64}", bases[0])
