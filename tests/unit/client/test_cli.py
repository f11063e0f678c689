"""Checks the command line without a server: imports, help, output and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta

import click
import grpc
import pytest
from google.protobuf.message import Message

from lessor import errors
from lessor.cli import output
from lessor.cli.call import Call, Failed, describe
from lessor.cli.formats import as_mapping, show_structured
from lessor.cli.key_formats import written_key
from lessor.cli.main import OWN, root, run
from lessor.cli.params import fill, mask
from lessor.cli.styles import ENV, JSON, TABLE
from lessor.v1 import config_pb2, creds_pb2, role_pb2

NOWHERE = "127.0.0.1:1"


def commands(group: click.Group, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], click.Command]]:
    """Return every command below a group, with its path."""
    context = click.Context(group)
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name in OWN if group is root else group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["role", "list", "--help"], ["grpc", "asyncio", "rich", "lessor_server"]),
        (["role", "list", "--address", NOWHERE], ["rich", "lessor_server"]),
        (["--help"], ["grpc", "asyncio", "rich", "lessor_server.commands.server", "uvloop"]),
    ],
)
def test_a_command_imports_only_what_it_needs(arguments: list[str], absent: list[str]) -> None:
    """Otherwise each command starts more slowly."""
    script = (
        "import sys, json; from lessor.cli.main import run; run(sys.argv[1:]);"
        "sys.stdout.write('\\n' + json.dumps(list(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    modules = json.loads(done.stdout.splitlines()[-1])
    assert "lessor.cli.main" in modules
    assert [name for name in absent if name in modules] == []


@pytest.mark.parametrize(("path", "command"), commands(root, ()), ids=str)
def test_every_command_says_what_it_does(path: tuple[str, ...], command: click.Command) -> None:
    assert command.get_short_help_str()
    silent = [
        parameter.name
        for parameter in command.params
        if isinstance(parameter, click.Option)
        if not parameter.help and not parameter.hidden and parameter.name != "style"
    ]
    assert silent == []


def test_help_lists_own_and_joined_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for word in (*OWN, "server", "Exit codes", "unknown lease", "lessor completion bash"):
        assert word in shown


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["nonsense"], 2),
        (["role", "put", "app", "--policy-document", '{"a": 1, "a": 2}'], 2),
        (["role", "put", "app", "--update", "--address", NOWHERE], 2),
        (["role", "put", "app", "--tag", "a=1", "--tag", "a=2", "--address", NOWHERE], 2),
        (["config", "root", "set", "--update", "--address", NOWHERE], 2),
        (["config", "root", "set", "--secret-key", "not-a-real-key"], 2),
        (["tune", "--address", NOWHERE], 2),
        (["mounts", "--address", "ftp://nowhere"], 2),
        (["mounts", "--timeout", "soon"], 2),
        (["mounts", "--address", NOWHERE, "--token-file", "/not-there"], 2),
        (["mounts", "--address", NOWHERE], 6),
        (["creds", "app", "--wait-usable", "soon", "--address", NOWHERE], 2),
        (["reconcile", "--address", NOWHERE], 6),
        (["lease", "revoke-prefix", "aws/", "--address", NOWHERE], 6),
        (["health", "--address", NOWHERE], 1),
    ],
)
def test_an_error_before_a_server_answers_has_its_exit_code(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == code
    shown = capsys.readouterr()
    assert (shown.err == "") is (code == 0)
    assert "Traceback" not in shown.err
    assert "not-a-real-key" not in shown.out + shown.err


def test_without_a_terminal_a_missing_secret_key_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["config", "root", "set", "--access-key", "AKIAEXAMPLE", "--address", NOWHERE]
    assert run(arguments) == 2
    assert "--secret-key is missing" in capsys.readouterr().err


def test_an_error_shows_all_its_details() -> None:
    violations = (
        errors.Violation("a", "is bad", "fix it"),
        errors.Violation("b", "is worse", "fix it too"),
    )
    error = errors.Invalid(
        "a: is bad; fix it",
        grpc.StatusCode.INVALID_ARGUMENT,
        "WHY",
        violations,
        timedelta(seconds=1.5),
        "",
        "Code",
    )
    assert describe(error).splitlines() == [
        "a: is bad; fix it",
        "  b: is worse; fix it too",
        "  reason: WHY",
        "  AWS's code: Code",
        "  try again in 1.5s",
    ]


def test_a_single_violation_is_shown_once() -> None:
    error = errors.Invalid("a: is bad; fix it", violations=(errors.Violation("a", "is bad", "fix it"),))
    assert describe(error) == "a: is bad; fix it"


def test_all_pages_of_a_list_become_one_answer(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    def list_mounts(request: Message, timeout: float, metadata: object) -> Message:
        assert isinstance(request, config_pb2.ListMountsRequest)
        asked.append(request.page_token)
        number = len(asked)
        token = str(number) if number < 12 else ""
        mount = config_pb2.Mount(mount=f"m{number}")
        return config_pb2.ListMountsResponse(mounts=[mount], next_page_token=token)

    with Call(NOWHERE, None, 1.0, TABLE) as call:
        whole = call.all(list_mounts, config_pb2.ListMountsRequest())  # type: ignore[arg-type]
    assert asked == ["", *map(str, range(1, 12))]
    assert [mount.mount for mount in whole.mounts] == [f"m{number}" for number in range(1, 13)]
    assert whole.next_page_token == ""
    assert capsys.readouterr().err == "lessor: 10 pages so far\n"


def test_a_failed_call_is_a_message_with_an_exit_code() -> None:
    with Call(NOWHERE, None, 5.0, TABLE) as call, pytest.raises(Failed) as failed:
        call(call.config.ListMounts, config_pb2.ListMountsRequest())
    assert failed.value.exit_code == 6
    assert failed.value.message.startswith(f"can't reach a server at {NOWHERE}")


def test_options_fill_the_fields_of_their_names() -> None:
    role = role_pb2.Role()
    step = config_pb2.AssumeStep(role_arn="arn")
    fill(
        role,
        {
            "credential_type": "IAM_USER",
            "policy_arns": ("one", "two"),
            "iam_tags": (("k", "v"),),
            "max_ttl": timedelta(hours=1),
            "max_leases": 3,
            "user_path": "",
            "iam_groups": ("",),
        },
    )
    assert role.credential_type == role_pb2.Role.IAM_USER
    assert list(role.policy_arns) == ["one", "two"]
    assert dict(role.iam_tags) == {"k": "v"}
    assert (role.max_ttl.seconds, role.max_leases) == (3600, 3)
    assert (role.user_path, list(role.iam_groups), role.HasField("default_ttl")) == ("", [], False)
    config = config_pb2.RootConfig()
    fill(config, {"assume_chain": (step,), "max_retries": 0})
    assert list(config.assume_chain) == [step]
    assert config.HasField("max_retries")


def test_a_mask_names_what_was_given_but_not_the_etag() -> None:
    """A command that changes nothing is refused, since an empty mask would mean the whole role."""
    request = role_pb2.PutRoleRequest()
    mask(request.update_mask, {"max_ttl": "", "etag": "x"})
    assert list(request.update_mask.paths) == ["max_ttl"]
    with pytest.raises(click.UsageError):
        mask(request.update_mask, {"etag": "x"})


def test_a_table_shows_readable_values(capsys: pytest.CaptureFixture[str]) -> None:
    role = role_pb2.Role(name="app", credential_type=role_pb2.Role.IAM_USER, iam_tags={"b": "2", "a": "1"})
    role.max_ttl.FromSeconds(5400)
    role.policy_document.update({"Version": "x", "Statement": ["s"]})
    output.show_fields(role)
    assert capsys.readouterr().out.splitlines() == [
        "name             app",
        "credential_type  IAM_USER",
        'policy_document  {"Version": "x", "Statement": ["s"]}',
        "iam_tags         a=1",
        "                 b=2",
        "max_ttl          1h30m",
    ]
    output.show_fields(config_pb2.RootConfig(max_retries=0))
    assert capsys.readouterr().out == "max_retries  0\n"


def test_text_of_a_server_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_rows([config_pb2.Mount(mount="aws", description="\x1b[2J[red]x")], ("mount", "description"))
    assert capsys.readouterr().out.splitlines()[1] == "aws    \\x1b[2J[red]x"


def test_json_has_the_field_names_of_the_protos(capsys: pytest.CaptureFixture[str]) -> None:
    answer = creds_pb2.GenerateCredentialsResponse(lease_id="l", lease_renewable=True)
    answer.lease_duration.FromSeconds(90)
    show_structured(as_mapping(answer), JSON)
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"lease_id": "l", "lease_renewable": True, "lease_duration": "90s"}


def test_exports_are_safe_to_evaluate() -> None:
    """They also unset the session token of earlier credentials."""
    assert written_key(ENV, "A", "a'b $c").splitlines() == [
        "export AWS_ACCESS_KEY_ID=A",
        "export AWS_SECRET_ACCESS_KEY='a'\"'\"'b $c'",
        "unset AWS_SESSION_TOKEN",
    ]
    assert "export AWS_SESSION_TOKEN=t" in written_key(ENV, "A", "s", "t")
