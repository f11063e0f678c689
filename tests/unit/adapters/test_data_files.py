"""Checks the error at a start when something else is where a file of the data directory should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.stores import HandClock

from lessor_server.adapters.sqlite.lock import LockUnusable, directory_lock
from lessor_server.adapters.sqlite.migrate import DatabaseUnusable
from lessor_server.adapters.sqlite.store import FILE, open_store
from lessor_server.app import DataDirUnusable, create_data_dir
from lessor_server.commands.cli_errors import report_errors

KINDS = ("pipe", "folder", "loop", "link to nowhere")


def put(path: Path, kind: str) -> None:
    """Put something that is not a regular file at a path."""
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case _:
            path.symlink_to("/nonexistent/file")


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_that_is_not_a_regular_file_is_named_with_the_fix(tmp_path: Path, kind: str) -> None:
    put(tmp_path / "lessor.lock", kind)
    with pytest.raises(LockUnusable, match=r"lessor\.lock") as caught, directory_lock(tmp_path):
        pass
    assert "LESSOR_DATA_DIR" in caught.value.fix


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [FILE, f"{FILE}-wal", f"{FILE}-shm"])
async def test_a_database_that_is_not_a_regular_file_is_named_with_the_fix(
    tmp_path: Path, name: str, kind: str
) -> None:
    put(tmp_path / name, kind)
    with pytest.raises(DatabaseUnusable, match=f"{name} is not a regular file") as caught:
        async with open_store(tmp_path, HandClock()):
            pass
    assert "LESSOR_DATA_DIR" in caught.value.fix


async def test_a_database_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database" * 500)
    with pytest.raises(DatabaseUnusable, match=str(tmp_path / FILE)):
        async with open_store(tmp_path, HandClock()):
            pass


def test_a_data_directory_that_cannot_be_created_names_its_setting() -> None:
    with pytest.raises(DataDirUnusable, match="/proc/lessor cannot be created") as caught:
        create_data_dir(Path("/proc/lessor"))
    assert "LESSOR_DATA_DIR" in caught.value.fix


def test_an_error_of_the_system_is_one_line_with_the_file_and_the_fix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught, report_errors("server", (OSError,)):
        tmp_path.read_bytes()
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lessor server: {tmp_path} cannot be used: Is a directory; ")
    assert "LESSOR_DATA_DIR" in line
