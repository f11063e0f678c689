"""Adds a field of a role to a copy of the tree as CONTRIBUTING.md says, without one step at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PARTS = ("client", "server", "protos", "tests/support", "tests/conformance")
FILES = ("pyproject.toml", "tests/__init__.py", "tests/conftest.py")
SERVER = "server/lessor_server"
EDITS: dict[str, tuple[str, str, str]] = {
    "protocol": ("protos/lessor/v1/role.proto", "  string etag = 20;", "  string probe = 99;"),
    "domain": (f"{SERVER}/domain/role.py", '    etag: str = ""', '    probe: str = ""'),
    "request": (
        f"{SERVER}/services/role.py",
        "        external_id=message.external_id,",
        "        probe=message.probe,",
    ),
    "response": (
        f"{SERVER}/services/role.py",
        "        external_id=role.external_id,",
        "        probe=role.probe,",
    ),
    "store": (f"{SERVER}/adapters/sql/rows.py", '    "external_id",', '    "probe",'),
    "command": (
        "client/lessor/cli/role.py",
        '    click.option("--etag",',
        '    click.option("--probe", help="A probe."),',
    ),
}
"""By step: a file, a line that it has, and the line that goes before it."""


def copied(folder: Path, left_out: str) -> Path:
    """Return a copy of the tree in which all steps but one were taken."""
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    for step, (name, line, new) in EDITS.items():
        if step == left_out:
            continue
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count(line) == 1, f"{name} has another line than {line!r}: this test needs a new one"
        (folder / name).write_text(text.replace(line, f"{new}\n{line}"), encoding="utf-8")
    _run(folder, "protos/build.py", check=True)
    return folder


def _run(folder: Path, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(folder / part) for part in ("client", "server"))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=check,
        timeout=120,
    )


@pytest.mark.parametrize(
    "left_out",
    ["", *(pytest.param(step, marks=() if step == "store" else pytest.mark.fire) for step in EDITS)],
)
def test_a_step_that_is_left_out_fails_the_suite(tmp_path: Path, left_out: str) -> None:
    folder = copied(tmp_path, left_out)
    ran = _run(folder, "-m", "pytest", "-q", "-p", "no:xdist", "tests/conformance/test_role_fields.py")
    assert "probe" in ran.stdout or not left_out, ran.stdout[-2000:]
    assert ran.returncode == (1 if left_out else 0), ran.stdout[-2000:]
