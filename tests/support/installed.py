"""Programs of other makers that tests run: installed once under build/, and again after a change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
NODE_SOURCES: Final = ROOT / "tests" / "node"
SECONDS: Final = 240


def node_modules() -> Path:
    """Return a folder with the packages of npm; skip the test if there is no Node or no registry."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node is not installed")
    wanted = (NODE_SOURCES / "package.json").read_text(encoding="utf-8")

    def install(folder: Path) -> None:
        (folder / "package.json").write_text(wanted, encoding="utf-8")
        _run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", folder=folder)

    return _installed("node", wanted, install)


def aws_cli() -> Path:
    """Return the path of the AWS CLI; skip the test if the registry can't be reached."""
    requirements = ROOT / "requirements" / "aws-cli.txt"

    def install(folder: Path) -> None:
        _install(folder, "--require-hashes", "--only-binary", ":all:", "-r", str(requirements))

    return _installed("aws-cli", requirements.read_text(encoding="utf-8"), install) / "venv" / "bin" / "aws"


def python_with(name: str, *packages: str) -> Path:
    """Return the path of a Python that has these packages; skip the test if the registry can't be reached."""

    def install(folder: Path) -> None:
        _install(folder, *packages)

    return _installed(name, "\n".join(packages), install) / "venv" / "bin" / "python"


def _install(folder: Path, *words: str) -> None:
    """Create the environment ``venv`` in a folder with what pip is asked for, uncompiled."""
    _run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder / "venv"), folder=folder)
    _run(
        sys.executable, "-m", "pip", "--python", str(folder / "venv"), "install", "--no-compile", "--quiet",
        "--disable-pip-version-check", *words, folder=folder,
    )  # fmt: skip


def _installed(name: str, wanted: str, install: Callable[[Path], None]) -> Path:
    folder = ROOT / "build" / name
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "done"
    with _locked(folder.with_suffix(".lock")):
        if not done.is_file() or done.read_text(encoding="utf-8") != wanted:
            try:
                install(folder)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                pytest.skip(f"the registry can't be reached: {error}")
            done.write_text(wanted, encoding="utf-8")
    return folder


def _run(*words: str, folder: Path) -> None:
    subprocess.run(words, cwd=folder, check=True, capture_output=True, timeout=SECONDS)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process install at a time."""
    with path.open("w", encoding="utf-8") as file:
        flock(file, LOCK_EX)
        yield
