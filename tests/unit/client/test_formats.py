"""Checks the formats for programs: JSON, YAML, one field, keys for shells and files, and errors."""

from __future__ import annotations

import configparser
import json
import shutil
import subprocess

import click
import pytest
import yaml

from lessor.cli.call import Call
from lessor.cli.formats import as_mapping, field_of, show_structured, yaml_text
from lessor.cli.json_errors import wants_json
from lessor.cli.key_formats import written_key
from lessor.cli.main import run
from lessor.cli.styles import CREDENTIALS, DOTENV, FISH, JSON, TABLE, YAML, chosen_style
from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2

NOWHERE = "127.0.0.1:1"
SECRET = "a/b+c='d \\ e"


def test_an_empty_list_is_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    with Call(NOWHERE, None, 1.0, JSON) as call:
        call.show_list(lease_pb2.ListLeasesResponse(), "leases", ("lease_id",))
        assert json.loads(capsys.readouterr().out) == {"leases": []}
        call.show_list(lease_pb2.CountLeasesResponse(), "counts", ("mount",))
        assert json.loads(capsys.readouterr().out) == {"counts": []}
        call.show_many([], "leases", ("lease_id",))
        assert json.loads(capsys.readouterr().out) == {"leases": []}


def test_numbers_are_in_json_also_when_they_are_0(capsys: pytest.CaptureFixture[str]) -> None:
    with Call(NOWHERE, None, 1.0, JSON) as call:
        call.show_numbers(config_pb2.DisableMountResponse(mount=config_pb2.Mount(mount="aws")), "mount")
    assert json.loads(capsys.readouterr().out) == {"mount": {"mount": "aws"}, "leases_left": 0}


def test_yaml_holds_what_json_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """Also a policy's version, which YAML would read as a date without quotes."""
    role = role_pb2.Role(name="app", credential_type=role_pb2.Role.IAM_USER, iam_tags={"on": "no"})
    role.policy_document.update({"Version": "2012-10-17", "Statement": []})
    content = as_mapping(role_pb2.GetRoleResponse(role=role))
    show_structured(content, YAML)
    assert yaml.safe_load(capsys.readouterr().out) == content


def test_a_field_is_printed_as_a_script_takes_it() -> None:
    lease = lease_pb2.Lease(lease_id="aws/creds/app/x", state=lease_pb2.Lease.ACTIVE)
    lease.ttl.FromSeconds(5400)
    lease.expire_time.FromSeconds(0)
    assert field_of("lease_id", lease) == "aws/creds/app/x"
    assert field_of("state", lease) == "ACTIVE"
    assert field_of("ttl", lease) == "5400s"
    assert field_of("expire_time", lease) == "1970-01-01T00:00:00Z"
    assert (field_of("stuck", lease), field_of("attempts", lease), field_of("owner", lease)) == (
        "false",
        "0",
        "",
    )
    assert field_of("max_expire_time", lease) == ""
    role = role_pb2.Role(policy_arns=["one", "two"])
    role.policy_document.update({"Version": "x"})
    assert field_of("policy_arns", role) == "one\ntwo"
    assert field_of("policy_document", role) == '{"Version": "x"}'


def test_an_unknown_field_is_refused_before_credentials_are_issued() -> None:
    with Call(NOWHERE, None, 1.0, TABLE, "acces_key") as call, pytest.raises(click.UsageError) as refused:
        call.require_field(creds_pb2.GenerateCredentialsResponse)
    assert "access_key" in str(refused.value)


def test_fish_gets_the_key_as_it_is() -> None:
    lines = written_key(FISH, "A", SECRET).splitlines()
    assert lines == [
        "set -gx AWS_ACCESS_KEY_ID 'A'",
        "set -gx AWS_SECRET_ACCESS_KEY 'a/b+c=\\'d \\\\ e'",
        "set -e AWS_SESSION_TOKEN",
    ]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_itself_reads_the_lines() -> None:
    script = f'{written_key(FISH, "A", SECRET)}\nprintf "%s" "$AWS_SECRET_ACCESS_KEY"'
    done = subprocess.run(["fish", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == SECRET


def test_a_credentials_file_has_the_default_profile() -> None:
    parser = configparser.RawConfigParser()
    parser.read_string(written_key(CREDENTIALS, "A", "s/+=", "t"))
    assert dict(parser["default"]) == {
        "aws_access_key_id": "A",
        "aws_secret_access_key": "s/+=",
        "aws_session_token": "t",
    }
    assert "session" not in written_key(CREDENTIALS, "A", "s")


def test_dotenv_has_no_line_for_a_session_token_that_there_is_not() -> None:
    assert written_key(DOTENV, "A", "s").splitlines() == ["AWS_ACCESS_KEY_ID=A", "AWS_SECRET_ACCESS_KEY=s"]


def test_the_variable_chooses_the_format_of_commands_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESSOR_FORMAT", "fish")
    assert chosen_style(None, (TABLE, JSON, FISH)) == FISH
    assert chosen_style(None, (TABLE, JSON)) == TABLE
    assert chosen_style(JSON, (TABLE, JSON, FISH)) == JSON
    monkeypatch.setenv("LESSOR_FORMAT", "jsn")
    assert run(["mounts", "--address", NOWHERE]) == 2


@pytest.mark.parametrize(
    ("arguments", "variable", "wanted"),
    [
        (["mounts", "--format", "json"], "", True),
        (["mounts", "--format=json"], "", True),
        (["mounts"], "json", True),
        (["mounts", "--format", "table"], "json", False),
        (["exec", "app", "--", "aws", "--format", "json"], "", False),
        (["mounts"], "", False),
    ],
)
def test_errors_have_the_format_of_the_output(arguments: list[str], variable: str, wanted: bool) -> None:
    assert wants_json(arguments, {"LESSOR_FORMAT": variable}) is wanted


@pytest.mark.parametrize(
    ("arguments", "code", "member"),
    [
        (["mounts", "--address", NOWHERE], 6, ("code", "UNAVAILABLE")),
        (["mounts", "--address", "ftp://nowhere"], 2, ("exit_code", 2)),
        (["mounts", "--nonsense"], 2, ("exit_code", 2)),
        (["role", "lst"], 2, ("exit_code", 2)),
    ],
)
def test_an_error_is_one_line_of_json(
    arguments: list[str], code: int, member: tuple[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--format", "json"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    error = json.loads(line)["error"]
    assert error["exit_code"] == code
    assert error[member[0]] == member[1]
    assert error["message"]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["rol", "list"], "`role`"),
        (["leese", "list"], "`lease`"),
        (["role", "lst"], "list"),
        (["config", "root", "gett"], "get"),
        (["role", "list", "--mont", "aws"], "--mount"),
        (["sealing", "rewrapp"], "`rewrap`"),
    ],
)
def test_a_mistyped_word_gets_the_likely_one(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    shown = capsys.readouterr().err
    assert "Did you mean" in shown
    assert hint in shown


def test_version_needs_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == 0
    text = capsys.readouterr().out
    assert run(["version", "--format", "json"]) == 0
    assert text == f"lessor {json.loads(capsys.readouterr().out)['version']}\n"


def test_texts_that_yaml_1_2_reads_as_numbers_are_in_quotes() -> None:
    """YAML 1.1, which has no exponent without a point, would write them plain."""
    assert yaml_text({"0E0": "12e4"}) == "'0E0': '12e4'\n"
