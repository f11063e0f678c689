"""Checks the command line at a terminal: its questions, and tables at different widths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from lessor.v1 import lease_pb2, role_pb2
from tests.support.clients import Lessor, until
from tests.support.command_line import CommandLine, Done
from tests.support.foreign_users import make_user
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn
from tests.support.terminal import at_terminal

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

ENDING = {
    "role delete": (
        ("role", "delete", "app", "--revoke-leases", "--mount", "{}"),
        "Delete role app and revoke 3 leases?",
    ),
    "revoke-prefix": (("lease", "revoke-prefix", "{}/"), "Revoke 3 leases under {}/?"),
    "disable": (("disable", "{}"), "Disable the engine {} and revoke 3 leases?"),
    "disable --force": (
        ("disable", "{}", "--force"),
        "Disable the engine {} and abandon 3 leases, whose users",
    ),
}
"""Commands that end, or give up, more than one lease; and what they ask at a terminal."""


class Terminal:
    """A person at a terminal of 80 columns."""

    def __init__(self, folder: Path, server: ServerProcess) -> None:
        """Work in ``folder``, with this server."""
        self._folder = folder
        self._server = server

    async def __call__(self, *arguments: str, typed: str = "", columns: int = 80) -> Done:
        """Run a command and type an answer."""
        return await at_terminal(
            *arguments, folder=self._folder, environment=self._server.client_env, typed=typed, columns=columns
        )


@pytest.fixture
def terminal(server: ServerProcess, tmp_path: Path) -> Terminal:
    """Sit down at a terminal."""
    return Terminal(tmp_path, server)


async def three_leases(lessor: Lessor, mount: str) -> list[str]:
    """Issue three leases of the role ``app``."""
    await lessor.put_role(mount)
    return [(await lessor.generate(mount)).lease_id for _ in range(3)]


async def active(lessor: Lessor, mount: str) -> int:
    """Count a mount's ACTIVE leases."""
    request = lease_pb2.CountLeasesRequest(prefix=f"{mount}/", state=lease_pb2.Lease.ACTIVE)
    return sum(one.count for one in (await lessor.leases.CountLeases(request)).counts)


@pytest.mark.parametrize("name", ENDING)
async def test_a_command_that_ends_leases_says_how_many_and_a_no_ends_none(
    name: str, terminal: Terminal, lessor: Lessor, mount: str
) -> None:
    await three_leases(lessor, mount)
    words, question = ENDING[name]
    done = await terminal(*(word.format(mount) for word in words), typed="n\n")
    assert done.code == 1
    assert question.format(mount) in done.out
    assert "nothing was done" in done.out
    assert await active(lessor, mount) == 3


async def test_a_yes_ends_them(terminal: Terminal, lessor: Lessor, mount: str) -> None:
    await three_leases(lessor, mount)
    words = ("role", "delete", "app", "--revoke-leases", "--mount", mount)
    assert (await terminal(*words, typed="y\n")).code == 0
    await until(lambda: active(lessor, mount), lambda left: left == 0)


async def test_yes_on_the_command_line_skips_the_question(
    terminal: Terminal, lessor: Lessor, mount: str
) -> None:
    await three_leases(lessor, mount)
    done = await terminal("role", "delete", "app", "--revoke-leases", "--mount", mount, "--yes")
    assert (done.code, done.out) == (0, "")
    await until(lambda: active(lessor, mount), lambda left: left == 0)


async def test_a_role_is_deleted_without_a_question_where_its_leases_stay(
    terminal: Terminal, lessor: Lessor, mount: str
) -> None:
    await three_leases(lessor, mount)
    done = await terminal("role", "delete", "app", "--mount", mount)
    assert (done.code, done.out) == (0, "")
    assert await active(lessor, mount) == 3


async def test_reconcile_asks_before_it_acts(
    terminal: Terminal, lessor: Lessor, mount: str, aws: StandIn
) -> None:
    """It compares first, and the question has the number of differences."""
    await lessor.put_role(mount)
    await lessor.generate(mount)
    instance = (await lessor.info()).instance_id
    for name in ("left-1", "left-2"):
        await make_user(aws, name, f"/lessor/{instance}/", {"lessor:instance": instance}, age=3600.0)
    done = await terminal("reconcile", "--mount", mount, "--apply", typed="n\n")
    assert done.code == 1
    assert "Repair 2 differences?" in done.out
    for name in ("left-1", "left-2"):
        await aws.forget(name)


async def test_reconcile_asks_nothing_where_account_and_leases_match(
    terminal: Terminal, lessor: Lessor, mount: str
) -> None:
    await three_leases(lessor, mount)
    done = await terminal("reconcile", "--mount", mount, "--apply")
    assert (done.code, done.out.splitlines()) == (0, ["lessor: account and leases match"])


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("lease", "revoke-prefix", "{}/"), ["accepted  0", "done      0", "failed    0", "left      0"]),
        (("lease", "abandon", "--prefix", "{}/"), ["abandoned  0"]),
        (("role", "delete", "app", "--revoke-leases", "--mount", "{}"), []),
    ],
)
async def test_without_leases_no_question_is_asked(
    words: tuple[str, ...], shown: list[str], terminal: Terminal, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    done = await terminal(*(word.format(mount) for word in words))
    assert done.code == 0
    assert done.out.splitlines() == [f"lessor: 0 leases under {_prefix(words, mount)} are affected", *shown]


def _prefix(words: tuple[str, ...], mount: str) -> str:
    return f"{mount}/creds/app/" if words[0] == "role" else f"{mount}/"


async def test_disabling_an_engine_without_leases_asks_too(
    terminal: Terminal, lessor: Lessor, mount: str
) -> None:
    """Its roles and its root are deleted."""
    done = await terminal("disable", mount, typed="n\n")
    assert done.code == 1
    assert f"Disable the engine {mount}?" in done.out
    assert "nothing was done" in done.out


async def test_disabling_an_engine_asks_about_the_keys_of_its_static_roles(
    terminal: Terminal, lessor: Lessor, mount: str, aws: StandIn
) -> None:
    """With --force the keys stay."""
    user = f"static-{mount}"
    await make_user(aws, user, "/", {}, age=3600.0)
    role = role_pb2.StaticRole(name="build", username=user, rotation_period=Duration(seconds=86_400))
    await lessor.roles.PutStaticRole(role_pb2.PutStaticRoleRequest(mount=mount, static_role=role))
    done = await terminal("disable", mount, typed="n\n")
    assert f"Disable the engine {mount} and delete the keys of its 1 static role?" in done.out
    await three_leases(lessor, mount)
    done = await terminal("disable", mount, typed="n\n", columns=200)
    assert (
        f"Disable the engine {mount}, delete the keys of its 1 static role and revoke 3 leases?" in done.out
    )
    assert "static role" not in (await terminal("disable", mount, "--force", typed="n\n")).out
    await lessor.roles.DeleteStaticRole(role_pb2.DeleteStaticRoleRequest(mount=mount, name="build"))


async def test_at_80_columns_no_id_is_broken(terminal: Terminal, lessor: Lessor, mount: str) -> None:
    ids = await three_leases(lessor, mount)
    done = await terminal("lease", "list", f"{mount}/")
    assert sorted(re.findall(r"(?m)^lease_id +(\S+)$", done.out)) == sorted(ids)
    assert max(map(len, done.out.splitlines())) <= 80
    assert len(re.findall(r"(?m)^access_key +AKIA\w+$", done.out)) == 3


async def test_a_wide_terminal_shows_a_line_a_lease(terminal: Terminal, lessor: Lessor, mount: str) -> None:
    ids = await three_leases(lessor, mount)
    done = await terminal("lease", "list", f"{mount}/", columns=220)
    header, *lines = done.out.splitlines()
    assert header.startswith("LEASE_ID ")
    assert sorted(line.split()[0] for line in lines) == sorted(ids)


@pytest.mark.parametrize("words", [("role", "list", "--mount", "{}"), ("mounts",), ("lease", "count", "{}/")])
async def test_no_list_folds_a_value_at_40_columns(
    words: tuple[str, ...], terminal: Terminal, lessor: Lessor, mount: str
) -> None:
    await three_leases(lessor, mount)
    done = await terminal(*(word.format(mount) for word in words), columns=40)
    for line in done.out.splitlines():
        assert line == "" or re.match(r"[a-zA-Z_]", line), (
            "a folded value begins with blanks, or in the middle"
        )
    assert mount in done.out.split() or "app" in done.out.split()


@pytest.fixture
def lessor_cli(server: ServerProcess, tmp_path: Path) -> CommandLine:
    """Run commands in a pipe."""
    return CommandLine(tmp_path, server.client_env)


@pytest.mark.parametrize(
    "words",
    [
        ("lease", "list", "nomount/"),
        ("lease", "count", "nomount/creds/app/"),
        ("lease", "revoke-prefix", "nomount/"),
        ("lease", "abandon", "--prefix", "nomount/"),
    ],
)
async def test_a_prefix_of_an_unknown_mount_is_not_found(
    words: tuple[str, ...], lessor_cli: CommandLine
) -> None:
    done = await lessor_cli(*words)
    assert (done.code, done.out) == (5, "")
    assert done.err.startswith("lessor: no mount 'nomount'; ")


async def test_an_empty_list_is_said_to_be_empty(lessor_cli: CommandLine, mount: str) -> None:
    for words, said in (
        (("lease", "list", f"{mount}/"), "lessor: no leases\n"),
        (("lease", "list", f"{mount}/creds/nobody/"), "lessor: no leases\n"),
        (("role", "list", "--mount", mount), "lessor: no roles\n"),
        (("static-role", "list", "--mount", mount), "lessor: no static roles\n"),
    ):
        done = await lessor_cli(*words)
        assert (done.code, done.out, done.err) == (0, "", said)
    assert (await lessor_cli("lease", "list", f"{mount}/", "--format", "json")).json == {"leases": []}


async def test_the_leases_of_a_removed_mount_can_still_be_listed(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await three_leases(lessor, mount)
    await lessor_cli("disable", mount)

    async def listed() -> Done:
        return await lessor_cli("mounts")

    await until(listed, lambda done: mount not in done.out.split())
    done = await lessor_cli("lease", "list", f"{mount}/", "--all")
    assert (done.code, done.out.count(f"{mount}/creds/app/")) == (0, 3)
    assert (await lessor_cli("lease", "list", f"{mount}/", "--state", "active")).code == 0


async def test_each_violation_is_printed_once(lessor_cli: CommandLine, mount: str) -> None:
    words = (
        "role",
        "put",
        "x",
        "--mount",
        mount,
        "--type",
        "iam_user",
        "--policy-arn",
        "foo",
        "--group",
        "a b",
    )
    done = await lessor_cli(*words)
    assert done.err.count("role.policy_arns[0]: ") == 1
    assert done.err.count("role.iam_groups[0]: ") == 1


async def test_the_reason_of_a_lease_is_shown(lessor_cli: CommandLine, lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    issued = await lessor_cli.issue(mount, "--reason", "ticket 4711")
    shown = await lessor_cli("lease", "lookup", str(issued["lease_id"]))
    assert shown.fields["reason"] == "ticket 4711"
    assert "ticket 4711" in (await lessor_cli("lease", "list", f"{mount}/")).out
