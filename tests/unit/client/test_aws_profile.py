"""``lessor aws-profile`` changes its own profiles in AWS's file, and nothing else in it."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

import pytest

from lessor.cli.main import run
from lessor.leasing.ini_sections import settings_of, with_section, without_section

OTHERS = """# a comment
[default]
region = eu-west-1   # where we are
s3 =
    max_concurrent_requests = 20

; about the next one
[profile work]
sso_session = work
output=json
"""


@pytest.fixture(name="config")
def aws_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return AWS's file with profiles of others."""
    path = tmp_path / "config"
    path.write_text(OTHERS)
    path.chmod(0o640)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    return path


def test_a_profile_is_added_listed_changed_and_removed(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["aws-profile", "add", "dev", "--role", "reader", "--region", "eu-west-1"]) == 0
    assert config.read_text().startswith(OTHERS)
    assert config.stat().st_mode & 0o777 == 0o640
    parser = configparser.RawConfigParser()
    parser.read(config)
    words = shlex.split(parser["profile dev"]["credential_process"])
    assert Path(words[0]).is_absolute()
    assert words[1:] == ["credential-process", "reader"]
    assert parser["profile dev"]["region"] == "eu-west-1"
    options = ["--mount", "prod", "--ttl", "2h", "--address", "https://lessor.example"]
    assert run(["aws-profile", "add", "dev", "--role", "writer", *options]) == 0
    capsys.readouterr()
    assert run(["aws-profile", "list"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    command = "--address https://lessor.example credential-process writer --mount prod --ttl 2h"
    assert line.startswith("dev  ")
    assert line.endswith(command)
    assert run(["aws-profile", "remove", "dev"]) == 0
    assert config.read_text() == OTHERS


def test_profiles_of_others_are_left_alone(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["aws-profile", "add", "work", "--role", "reader"]) == 1
    assert run(["aws-profile", "remove", "work"]) == 1
    assert run(["aws-profile", "remove", "missing"]) == 1
    assert config.read_text() == OTHERS
    assert "choose another name" in capsys.readouterr().err


def test_a_default_profile_keeps_its_settings(config: Path) -> None:
    assert run(["aws-profile", "add", "default", "--role", "reader"]) == 0
    assert "max_concurrent_requests = 20" in config.read_text()
    assert settings_of(config.read_text(), "default")["region"].startswith("eu-west-1")
    assert run(["aws-profile", "remove", "default"]) == 0
    assert config.read_text() == OTHERS


@pytest.mark.parametrize("name", ["a]b", "a b", "", "a\nb", "x" * 200])
def test_a_name_that_would_break_the_file_is_refused(config: Path, name: str) -> None:
    assert run(["aws-profile", "add", name, "--role", "reader"]) == 2
    assert config.read_text() == OTHERS


def test_a_short_lifetime_is_refused(config: Path) -> None:
    assert run(["aws-profile", "add", "dev", "--role", "reader", "--ttl", "20m"]) == 2
    assert config.read_text() == OTHERS


def test_the_file_behind_a_link_is_changed(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link"
    link.symlink_to(config)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(link))
    assert run(["aws-profile", "add", "dev", "--role", "reader"]) == 0
    assert link.is_symlink()
    assert "profile dev" in config.read_text()


def test_a_missing_file_is_created_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    assert run(["aws-profile", "add", "dev", "--role", "reader"]) == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert run(["aws-profile", "remove", "dev"]) == 0
    assert path.read_text() == ""


def test_a_section_is_changed_in_its_place() -> None:
    text = "[a]\nx = 1\n# kept\ny = 2\n\n# of b\n[b]\nx = 3\n"
    assert with_section(text, "a", {"x": "9", "y": ""}) == "[a]\nx = 9\n# kept\n\n# of b\n[b]\nx = 3\n"
    assert without_section(text, "a") == "\n# of b\n[b]\nx = 3\n"
    assert without_section(text, "c") == text
