"""Checks questions, counts and progress of the command line without a server."""

from __future__ import annotations

import io
import json
import random
import uuid
from types import SimpleNamespace
from typing import cast

import click
import pytest

from lessor.calls import draw_request_id
from lessor.cli import output
from lessor.cli.call import Call
from lessor.cli.command import LIVE, confirm, confirm_leases
from lessor.cli.main import run
from lessor.cli.mounts import keys_of_static_roles
from lessor.cli.styles import JSON, TABLE
from lessor.v1 import config_pb2, lease_pb2, role_pb2, system_pb2

NOWHERE = "127.0.0.1:1"


class Terminal(io.StringIO):
    """A text that is taken for a terminal."""

    def isatty(self) -> bool:
        """Say that a person sits there."""
        return True


@pytest.mark.parametrize(("typed", "agreed"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_person_at_a_terminal_is_asked(
    typed: str, agreed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The question goes to standard error, so that standard output can be piped."""
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    if agreed:
        confirm("Do it?", yes=False)
    else:
        with pytest.raises(click.ClickException, match="nothing was done"):
            confirm("Do it?", yes=False)
    shown = capsys.readouterr()
    assert shown.err.startswith("Do it?")
    assert "Do it?" not in shown.out


@pytest.mark.parametrize(("stdin", "yes"), [(Terminal("n\n"), True), (io.StringIO("n\n"), False)])
def test_with_yes_or_without_a_terminal_no_question_is_asked(
    stdin: io.StringIO, yes: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", stdin)
    confirm("Do it?", yes=yes)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["lease", "abandon", "aws/creds/app/x"],
        ["static-role", "delete", "app"],
    ],
)
def test_after_a_no_nothing_is_called(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert run([*arguments, "--address", NOWHERE]) == 1
    assert "nothing was done" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["aws/creds/app/x", "--prefix", "aws/"]])
def test_abandon_takes_either_a_lease_or_a_prefix(arguments: list[str]) -> None:
    assert run(["lease", "abandon", *arguments, "--address", NOWHERE]) == 2


def test_an_automatic_request_id_is_a_random_uuid() -> None:
    rng = random.Random(1)
    first, second = draw_request_id(rng), draw_request_id(rng)
    assert uuid.UUID(first).version == 4
    assert first != second
    assert first == draw_request_id(random.Random(1))


def test_a_zero_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_pairs(output.numbers(lease_pb2.RevokePrefixResponse(accepted=2, done=2)))
    assert capsys.readouterr().out.splitlines() == [
        "accepted  2",
        "done      2",
        "failed    0",
        "left      0",
    ]
    answer = config_pb2.DisableMountResponse(mount=config_pb2.Mount(mount="aws"))
    assert output.numbers(answer) == {"leases_left": "0"}


def test_a_reload_shows_zeros(capsys: pytest.CaptureFixture[str]) -> None:
    with Call(NOWHERE, None, 1.0, TABLE) as call:
        call.show_numbers(system_pb2.ReloadAccessResponse(identities=3))
    assert capsys.readouterr().out.splitlines() == [
        "identities       3",
        "policies         0",
        "orphaned_leases  0",
    ]


def test_a_caller_is_shown_with_its_labels_and_the_end_of_its_credential(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = system_pb2.WhoAmIResponse(
        identity="ci",
        policies=["deployer", "reader"],
        labels={"team": "payments", "line": "a\nb\x1b[2J"},
        auth_method="token",
    )
    answer.expire_time.FromSeconds(1_900_000_000)
    output.show_fields(answer)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["identity", "ci"],
        ["policies", "deployer"],
        ["reader"],
        ["labels", "line=a\\nb\\x1b[2J"],
        ["team=payments"],
        ["auth_method", "token"],
        ["expire_time", "2030-03-17", "17:46:40", "UTC"],
    ]


class CountsLeases:
    """A call to a server that counts leases of an owner."""

    leases = SimpleNamespace(CountLeases=None)

    def __init__(self, count: int) -> None:
        """Count so many ACTIVE ones."""
        self._count = count
        self.asked: list[lease_pb2.CountLeasesRequest] = []

    def __call__(self, _: None, request: lease_pb2.CountLeasesRequest) -> lease_pb2.CountLeasesResponse:
        """Return the count."""
        self.asked.append(request)
        counted = lease_pb2.LeaseCount(state=lease_pb2.Lease.ACTIVE, count=self._count)
        return lease_pb2.CountLeasesResponse(counts=[counted] if self._count else [])


@pytest.mark.parametrize(
    ("count", "owner", "said"),
    [
        (0, "ci", "lessor: 0 leases of ci under aws/ are affected"),
        (1, "ci", "Revoke 1 lease of ci under aws/?"),
        (2, "k8s/{x}", "Revoke 2 leases of k8s/{x} under aws/?"),
        (2, "", "Revoke 2 leases under aws/?"),
    ],
)
def test_a_question_counts_the_leases_of_the_owner(
    count: int,
    owner: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    call = CountsLeases(count)
    asked = confirm_leases(cast("Call", call), "Revoke {} under aws/?", "aws/", LIVE, yes=False, owner=owner)
    assert asked is bool(count)
    assert said in capsys.readouterr().err
    assert call.asked == [lease_pb2.CountLeasesRequest(prefix="aws/", owner=owner)]


@pytest.mark.parametrize("command", ["list", "count", "revoke-prefix"])
def test_an_empty_owner_is_not_taken_for_every_owner(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a variable that is not set would be."""
    assert run(["lease", command, "aws/", "--owner", "", "--address", NOWHERE]) == 2
    assert "leave the option out to mean every owner" in capsys.readouterr().err


def test_a_finding_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    finding = lease_pb2.ReconcileResponse(kind=lease_pb2.ReconcileResponse.UNKNOWN_USER, user_name="u")
    with Call(NOWHERE, None, 1.0, JSON) as call:
        call.show_streamed(finding)
        call.show_streamed(finding)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [{"kind": "UNKNOWN_USER", "user_name": "u"}] * 2


def test_progress_is_lines_in_a_log_and_one_line_at_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with output.progress() as tell:
        tell("1 of 2")
        tell("2 of 2")
    assert capsys.readouterr().err == "lessor: 1 of 2\nlessor: 2 of 2\n"
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with output.progress() as tell:
        tell("1 of 2")
        tell("2 of 2")
    assert terminal.getvalue() == "\r\x1b[Klessor: 1 of 2\r\x1b[Klessor: 2 of 2\n"


class ListsStaticRoles:
    """A call to a server whose engine has as many static roles."""

    roles = SimpleNamespace(ListStaticRoles=None)

    def __init__(self, number: int) -> None:
        """Have ``number`` of them."""
        self._number = number

    def all(self, method: None, request: role_pb2.ListStaticRolesRequest) -> role_pb2.ListStaticRolesResponse:
        """Return them all."""
        return role_pb2.ListStaticRolesResponse(static_roles=[role_pb2.StaticRole()] * self._number)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, ""),
        (1, "delete the keys of its 1 static role"),
        (2, "delete the keys of its 2 static roles"),
    ],
)
def test_disabling_an_engine_says_whose_static_keys_it_deletes(number: int, words: str) -> None:
    assert keys_of_static_roles(cast("Call", ListsStaticRoles(number)), "aws") == words
