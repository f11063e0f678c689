"""Checks what scripts build on: formats, lists of leases, several revocations, files of roles, contexts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lessor.v1 import lease_pb2
from tests.support.clients import Lessor, until
from tests.support.command_line import CommandLine
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


@pytest.fixture
def lessor_cli(server: ServerProcess, tmp_path: Path) -> CommandLine:
    """Run commands against the server of the module."""
    return CommandLine(tmp_path, server.client_env | {"XDG_CONFIG_HOME": str(tmp_path / "config")})


async def issue(lessor: Lessor, mount: str, *seconds: int) -> list[str]:
    """Issue a lease of the role ``app`` for each of these lifetimes."""
    await lessor.put_role(mount)
    return [(await lessor.generate(mount, ttl=one)).lease_id for one in seconds]


async def test_a_script_takes_one_field_or_another_format(lessor_cli: CommandLine, mount: str) -> None:
    await lessor_cli.put_role(mount)
    key = await lessor_cli("creds", "app", "--mount", mount, "--field", "access_key")
    assert key.out.startswith("AKIA")
    assert len(key.out.splitlines()) == 1
    leases = await lessor_cli("lease", "list", mount, "--field", "lease_id")
    assert leases.out.splitlines() == (await lessor_cli("lease", "list", mount, "-q")).out.splitlines()
    document = await lessor_cli("role", "get", "app", "--mount", mount, "--field", "policy_document")
    assert json.loads(document.out)["Version"] == "2012-10-17"
    shown = await lessor_cli("role", "get", "app", "--mount", mount, LESSOR_FORMAT="yaml")
    assert yaml.safe_load(shown.out)["role"]["name"] == "app"
    for style, begin in (
        ("env", "export AWS_ACCESS_KEY_ID="),
        ("fish", "set -gx AWS_ACCESS_KEY_ID "),
        ("dotenv", "AWS_ACCESS_KEY_ID="),
        ("credentials", "[default]\n"),
    ):
        done = await lessor_cli("creds", "app", "--mount", mount, "--format", style)
        assert done.out.startswith(begin)
        assert done.out.splitlines()[-1].startswith("# lease ")


async def test_a_field_that_the_answer_does_not_have_issues_nothing(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor_cli.put_role(mount)
    done = await lessor_cli("creds", "app", "--mount", mount, "--field", "acess_key")
    assert done.code == 2
    assert "access_key" in done.err
    assert (await lessor_cli("lease", "list", mount, "--all", "--format", "json")).json == {"leases": []}


async def test_a_refusal_is_json_with_its_reason_and_violations(lessor_cli: CommandLine, mount: str) -> None:
    words = ("role", "put", "x", "--mount", mount, "--type", "iam_user", "--policy-arn", "foo")
    done = await lessor_cli(*words, "--format", "json")
    assert (done.code, done.out) == (1, "")
    error = json.loads(done.err)["error"]
    assert (error["reason"], error["code"], error["exit_code"]) == ("INVALID_REQUEST", "INVALID_ARGUMENT", 1)
    assert error["violations"][0]["field"] == "role.policy_arns[0]"
    unknown = await lessor_cli("role", "get", "x", "--mount", mount, "--format", "json")
    assert json.loads(unknown.err)["error"]["reason"] == "NOT_FOUND"


async def test_a_list_of_leases_is_narrowed_and_sorted(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    """Leases that are GONE are hidden, unless they are asked for."""
    short, long, gone = await issue(lessor, mount, 600, 7200, 3600)
    await lessor_cli("lease", "revoke", gone, "--sync")

    async def listed(*options: str) -> list[str]:
        return (await lessor_cli("lease", "list", mount, "-q", *options)).out.split()

    assert await listed() == sorted([short, long])
    assert await listed("--all") == sorted([short, long, gone])
    assert await listed("--state", "gone") == [gone]
    assert await listed("--expiring", "1h") == [short]
    assert await listed("--sort", "ttl") == [short, long]
    assert await listed("--sort", "-expire_time") == [long, short]
    assert await listed("--owner", "nobody") == []
    counts = await lessor_cli("lease", "count", f"{mount}/creds/app", "--state", "active", "--format", "json")
    assert counts.json["counts"] == [{"mount": mount, "role": "app", "state": "ACTIVE", "count": 2}]


async def test_several_leases_are_revoked_by_one_command(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    """One that the server does not know does not stop the others, and has its exit code."""
    ids = await issue(lessor, mount, 600, 600, 600)
    unknown = f"{mount}/creds/app/{'a' * 24}"
    done = await lessor_cli("lease", "revoke", ids[0], unknown, "no-id", ids[1], "--sync", "--format", "json")
    assert done.code == 1, "they fail in different ways"
    outcomes = {one["lease_id"]: one["outcome"] for one in json.loads(done.out)["leases"]}
    assert outcomes == {ids[0]: "GONE", unknown: "UNKNOWN", ids[1]: "GONE"}
    assert (await lessor_cli("lease", "revoke", unknown, ids[0])).code == 3
    piped = await lessor_cli("lease", "revoke", "-", "--sync", stdin=f"{ids[2]}\n\n")
    assert (piped.code, ids[2] in piped.out, "GONE" in piped.out) == (0, True, True)
    none = await lessor_cli("lease", "revoke", "-", "--format", "json")
    assert (none.code, none.json) == (0, {"leases": []})


async def test_revoking_several_leases_asks_at_a_terminal(
    server: ServerProcess, tmp_path: Path, lessor: Lessor, mount: str
) -> None:
    ids = await issue(lessor, mount, 600, 600)
    words = ("lease", "revoke", *ids)
    done = await at_terminal(*words, folder=tmp_path, environment=server.client_env, typed="n\n")
    assert done.code == 1
    assert "Revoke 2 leases?" in done.out
    request = lease_pb2.CountLeasesRequest(prefix=f"{mount}/", state=lease_pb2.Lease.ACTIVE)
    assert [one.count for one in (await lessor.leases.CountLeases(request)).counts] == [2]
    done = await at_terminal(*words, folder=tmp_path, environment=server.client_env, typed="y\n")
    assert done.code == 0

    async def left() -> list[int]:
        return [one.count for one in (await lessor.leases.CountLeases(request)).counts]

    await until(left, lambda counts: counts == [])


async def test_an_exported_file_makes_another_server_the_same(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    """A second run changes nothing, and no secret is in the file."""
    user = f"exported-{mount}"
    await make_user(aws, user, "/", {}, age=3600.0)
    await lessor_cli.put_role(mount, "--max-ttl", "3h", "--tag", "team=a", "--user-path", "/team/")
    static = ("static-role", "put", "build", "--username", user, "--rotation-period", "7d")
    assert (await lessor_cli(*static, "--mount", mount)).code == 0
    exported = await lessor_cli("export", "--mount", mount)
    key = await lessor_cli("static-creds", "build", "--mount", mount, "--format", "json")
    assert str(key.json["access_key"]) not in exported.out
    file = lessor_cli.folder / "engines.yaml"
    file.write_text(exported.out, encoding="utf-8")
    again = await lessor_cli("apply", "-f", "engines.yaml")
    assert (again.code, again.out, again.err) == (0, "", "lessor: no changes\n")

    other = f"{mount}-copy"
    file.write_text(exported.out.replace(f"  {mount}:", f"  {other}:"), encoding="utf-8")
    dry = await lessor_cli("apply", "-f", "engines.yaml", "--dry-run", "--format", "json")
    assert [one["kind"] for one in json.loads(dry.out)["changes"]] == ["mount", "role", "static_role"]
    assert other not in (await lessor_cli("mounts")).out
    done = await lessor_cli("apply", "-f", "-", stdin=file.read_text(encoding="utf-8"))
    assert done.code == 7, "the new engine has no root for the first key of the static role"
    assert "ROOT_NOT_SET" in done.err
    assert f"create role {other}/app" in done.out
    copied = yaml.safe_load((await lessor_cli("export", "--mount", other)).out)["mounts"][other]
    assert copied["roles"] == yaml.safe_load(exported.out)["mounts"][mount]["roles"]
    await lessor_cli("static-role", "delete", "build", "--mount", mount)


async def test_apply_reports_a_role_that_the_server_refuses_and_goes_on(
    lessor_cli: CommandLine, mount: str
) -> None:
    roles = {
        "bad": {"credential_type": "IAM_USER", "policy_arns": ["foo"]},
        "good": {"credential_type": "IAM_USER", "iam_groups": ["developers"]},
    }
    file = lessor_cli.folder / "roles.json"
    file.write_text(json.dumps({"mounts": {mount: {"roles": roles}}}), encoding="utf-8")
    dry = await lessor_cli("apply", "-f", "roles.json", "--dry-run")
    assert (dry.code, "role.policy_arns[0]" in dry.err) == (1, True)
    assert (await lessor_cli("role", "list", "--mount", mount)).err == "lessor: no roles\n"
    done = await lessor_cli("apply", "-f", "roles.json", "--format", "json")
    assert (done.code, "role.policy_arns[0]" in done.err) == (1, True)
    bad, good = json.loads(done.out)["changes"]
    assert (bad["done"], bad["error"]["reason"], good["done"]) == (False, "INVALID_REQUEST", True)
    assert "good" in (await lessor_cli("role", "list", "--mount", mount)).out


async def test_prune_asks_before_it_deletes(
    lessor_cli: CommandLine, server: ServerProcess, mount: str
) -> None:
    await lessor_cli.put_role(mount)
    (lessor_cli.folder / "empty.yaml").write_text(f"mounts: {{{mount}: {{}}}}", encoding="utf-8")
    words = ("apply", "-f", "empty.yaml", "--prune")
    environment = server.client_env
    done = await at_terminal(*words, folder=lessor_cli.folder, environment=environment, typed="n\n")
    assert (done.code, "which delete 1 role?" in done.out) == (1, True)
    assert (await lessor_cli("role", "get", "app", "--mount", mount)).code == 0
    done = await at_terminal(*words, "--yes", folder=lessor_cli.folder, environment=environment)
    assert done.code == 0
    assert (await lessor_cli("role", "get", "app", "--mount", mount)).code == 5


async def test_a_context_names_the_server_and_its_token(
    lessor_cli: CommandLine, server: ServerProcess
) -> None:
    (lessor_cli.folder / "token").write_text(server.token, encoding="utf-8")
    elsewhere = {"LESSOR_ADDR": "127.0.0.1:1", "LESSOR_TOKEN": "not-the-token-of-this-server"}
    words = ("context", "add", "lab", "--addr", server.address, "--token-file", "token")
    assert (await lessor_cli(*words)).code == 0
    assert (await lessor_cli("whoami", **elsewhere)).code == 6
    for named in (("--context", "lab", "whoami"), ("whoami", "--context", "lab")):
        assert (await lessor_cli(*named, **elsewhere)).fields["identity"] == "root"
    assert (await lessor_cli("whoami", LESSOR_CONTEXT="lab", **elsewhere)).code == 0
    assert (await lessor_cli("context", "use", "lab", LESSOR_ADDR="")).code == 0
    assert (await lessor_cli("whoami", LESSOR_ADDR="", LESSOR_TOKEN="")).fields["identity"] == "root"


async def test_a_held_static_role_is_resumed(lessor_cli: CommandLine, aws: StandIn, mount: str) -> None:
    user = f"held-{mount}"
    await make_user(aws, user, "/", {}, age=3600.0)
    words = ("build", "--mount", mount)
    options = ("--username", user, "--rotation-period", "7d", "--held")
    put = await lessor_cli("static-role", "put", *words, *options)
    assert (put.code, put.fields["held"], "access_key" in put.fields) == (0, "yes", False)
    refused = await lessor_cli("static-creds", *words)
    assert (refused.code, "STATIC_ROLE_HELD" in refused.err) == (7, True)
    assert (await lessor_cli("static-role", "rotate", *words)).code == 7
    resumed = await lessor_cli("static-role", "resume", *words)
    assert (resumed.code, resumed.fields["held"]) == (0, "no")
    assert (await lessor_cli("static-creds", *words)).fields["access_key"] == resumed.fields["access_key"]
    assert (await lessor_cli("static-role", "delete", *words)).code == 0


async def complete(cli: CommandLine, *words: str, **variables: str) -> list[str]:
    """Return what bash would offer for the last of these words."""
    line = " ".join(("lessor", *words))
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words)), "_LESSOR_COMPLETE": "bash_complete"}
    done = await cli(**asked, **variables)
    return [one.partition(",")[2] for one in done.out.splitlines() if one]


async def test_completion_knows_engines_roles_and_lease_ids(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    ids = await issue(lessor, mount, 600, 600)
    assert mount in await complete(lessor_cli, "tune", "mou")
    assert await complete(lessor_cli, "creds", "--mount", mount, "a") == ["app"]
    assert await complete(lessor_cli, "role", "get", "--mount", mount, "a") == ["app"]
    assert f"{mount}/" in await complete(lessor_cli, "lease", "list", "mou")
    assert await complete(lessor_cli, "lease", "list", f"{mount}/") == [f"{mount}/creds/app/"]
    offered = await complete(lessor_cli, "lease", "lookup", f"{mount}/creds/app/")
    assert sorted(offered) == sorted(ids)
    assert await complete(lessor_cli, "lease", "revoke", ids[0][:-1]) == [ids[0]]
    assert await complete(lessor_cli, "creds", "a", LESSOR_ADDR="127.0.0.1:1") == []
    assert await complete(lessor_cli, "creds", "a", LESSOR_TOKEN="not-the-token-of-this-server") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_the_script_of_each_shell_is_printed(shell: str, lessor_cli: CommandLine) -> None:
    done = await lessor_cli("completion", shell)
    assert (done.code, done.err) == (0, "")
    assert f"_LESSOR_COMPLETE={shell}_complete" in done.out


async def test_without_a_role_one_is_chosen_at_the_terminal(
    server: ServerProcess, tmp_path: Path, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    await lessor.put_role(mount, "other")
    words = ("creds", "--mount", mount, "--field", "lease_id")
    done = await at_terminal(*words, folder=tmp_path, environment=server.client_env, typed="oth\n")
    assert done.code == 0
    assert f"{mount}/creds/other/" in done.out.splitlines()[-1]
    left = await at_terminal(*words, folder=tmp_path, environment=server.client_env, typed="\x1b")
    assert left.code == 130
    none = await at_terminal(
        "creds", "--mount", "nomount", folder=tmp_path, environment=server.client_env, typed="\n"
    )
    assert (none.code, "no role of nomount that you may use" in none.out) == (5, True)
