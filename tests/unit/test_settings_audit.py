"""Checks the settings of audit sinks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lessor_server.settings.model import load
from tests.unit.test_settings import problem_of, written


def test_without_a_sink_there_is_no_audit() -> None:
    assert not load(None, {}).audit.is_on
    assert not load(None, {"LESSOR_AUDIT_SYNC": "true", "LESSOR_AUDIT_STDOUT": "false"}).audit.is_on


def test_several_sinks_may_be_set(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    file = written(
        tmp_path, f'[audit]\nfile = "{path}"\nstdout = true\nsync = true\nsocket = "{tmp_path}/s"\n'
    )
    audit = load(file, {}).audit
    assert (audit.file, audit.stdout, audit.sync, audit.socket) == (path, True, True, tmp_path / "s")
    assert audit.is_on


def test_a_file_may_be_there_or_not_and_its_folder_may_be_of_a_group(tmp_path: Path) -> None:
    """Folders of logs are often open to a group."""
    tmp_path.chmod(0o775)
    path = tmp_path / "audit.log"
    assert load(None, {"LESSOR_AUDIT_FILE": str(path)}).audit.file == path
    assert not path.exists()
    path.write_text("")
    path.chmod(0o640)
    assert load(None, {"LESSOR_AUDIT_FILE": str(path)}).audit.file == path


def test_a_file_that_others_can_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_text("")
    path.chmod(0o666)
    assert "chmod go-w" in problem_of(LESSOR_AUDIT_FILE=str(path))


@pytest.mark.parametrize("name", ["none/audit.log", "folder", "pipe", ""])
def test_a_place_that_is_not_a_file_in_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    value = str(tmp_path / name) if name else ""
    assert "audit.file" in problem_of(LESSOR_AUDIT_FILE=value)


@pytest.mark.parametrize("path", ["socket", "/" + "x" * 200])
def test_a_socket_needs_an_absolute_path_that_a_socket_can_have(path: str) -> None:
    assert "audit.socket" in problem_of(LESSOR_AUDIT_SOCKET=path)


@pytest.mark.parametrize(
    "name",
    [
        "lessor.db",
        "lessor.db-wal",
        "lessor.lock",
        "root-token",
        "sealing-key",
        "rows-sealed",
        "audit-key",
        "audit-state",
        "Rows-Sealed",
    ],
)
def test_a_file_of_the_data_directory_is_no_audit_file(tmp_path: Path, name: str) -> None:
    """Whether it exists yet or not, and also by another name."""
    problem = problem_of(LESSOR_DATA_DIR=str(tmp_path), LESSOR_AUDIT_FILE=str(tmp_path / name))
    assert f"audit.file: {tmp_path / name} is also used by the server itself, in data_dir" in problem
    (tmp_path / name).touch(0o600)
    (tmp_path / "audit.log").hardlink_to(tmp_path / name)
    assert name in problem_of(LESSOR_DATA_DIR=str(tmp_path), LESSOR_AUDIT_FILE=str(tmp_path / "audit.log"))


def test_an_audit_file_may_lie_beside_the_files_of_the_data_directory(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    assert load(None, {"LESSOR_DATA_DIR": str(tmp_path), "LESSOR_AUDIT_FILE": str(path)}).audit.file == path


@pytest.mark.parametrize("setting", ["ROOT_TOKEN_FILE", "SEALING_KEY", "ACCESS_FILE"])
def test_a_file_that_another_setting_names_is_no_audit_file(tmp_path: Path, setting: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"k" * 32)
    path.chmod(0o600)
    (tmp_path / "link").symlink_to(path)
    value = f"file:{path}" if setting == "SEALING_KEY" else str(path)
    line = problem_of(**{f"LESSOR_{setting}": value, "LESSOR_AUDIT_FILE": str(tmp_path / "link")})
    assert (
        f"is also used by {setting.lower().replace('_', '.', 1 if setting != 'ROOT_TOKEN_FILE' else 0)}"
        in line
    )


def test_the_settings_file_is_no_audit_file(tmp_path: Path) -> None:
    file = written(tmp_path, "")
    assert "is the settings file itself" in problem_of(file, LESSOR_AUDIT_FILE=str(file))


def test_the_audit_socket_is_no_listener_of_the_server(tmp_path: Path) -> None:
    path = tmp_path / "s"
    line = problem_of(LESSOR_LISTEN=f"unix:{path}", LESSOR_AUDIT_SOCKET=str(path))
    assert f"audit.socket: {path} is also used by listen" in line


def test_the_audit_file_is_not_the_audit_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    assert "is also audit.file" in problem_of(LESSOR_AUDIT_FILE=path, LESSOR_AUDIT_SOCKET=path)
