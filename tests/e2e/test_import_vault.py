"""Checks the import of an AWS engine of Vault, and of ACL policies from a real OpenBao."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.clients import POLICY, Lessor
from tests.support.command_line import CommandLine, Done
from tests.support.foreign_users import make_user
from tests.support.openbao import openbao
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn
from tests.support.vault_source import TOKEN, VaultModel, role_data, vault_source

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

ARN = "arn:aws:iam::123456789012:role/deploy"


def engine(mount: str, user: str) -> dict[str, dict[str, Any]]:
    """Return what Vault answers about an engine with roles of each kind, and two that can't be taken."""
    return {
        f"sys/mounts/{mount}/tune": {
            "default_lease_ttl": 3600,
            "max_lease_ttl": 86400,
            "description": "of Vault",
            "force_no_cache": False,
        },
        f"{mount}/config/lease": {"lease": "30m0s", "lease_max": "12h0m0s"},
        f"{mount}/roles/reader": role_data(
            "iam_user", policy_document=json.dumps(POLICY), iam_groups=["developers"]
        ),
        f"{mount}/roles/deploy": role_data("assumed_role", role_arns=[ARN], max_sts_ttl=7200),
        f"{mount}/roles/both": role_data("iam_user,federation_token", policy_document=json.dumps(POLICY)),
        f"{mount}/roles/typo": role_data("iam_user", policy_document='{"Version": "2023-11-12"}'),
        f"{mount}/static-roles/billing": {
            "name": "billing",
            "id": "AIDAEXAMPLE",
            "username": user,
            "rotation_period": 86400,
        },
    }


@pytest_asyncio.fixture(loop_scope="module")
async def source(mount: str) -> AsyncIterator[VaultModel]:
    """Serve an engine of Vault with the name of the test's mount, and its neighbour of another name."""
    data = engine(mount, f"vault-{mount}") | engine(f"{mount}-new", f"vault-{mount}")
    async with vault_source(VaultModel(data)) as model:
        yield model


@pytest.fixture
def lessor_cli(server: ServerProcess, tmp_path: Path, source: VaultModel) -> CommandLine:
    """Run commands against the server of the module, with a token for Vault."""
    return CommandLine(tmp_path, server.client_env | {"VAULT_ADDR": source.url, "VAULT_TOKEN": TOKEN})


async def run_import(cli: CommandLine, mount: str, *options: str, **variables: str) -> Done:
    """Import an engine; assert that the token is in no output."""
    done = await cli("import", "vault", "--mount", mount, *options, **variables)
    assert TOKEN not in done.out + done.err
    return done


async def test_a_plan_changes_nothing_and_names_what_is_different(
    lessor_cli: CommandLine, source: VaultModel, mount: str
) -> None:
    done = await run_import(lessor_cli, mount)
    assert done.code == 0
    for words in (
        f"change mount {mount}\n",
        f"create role {mount}/reader\n",
        f"create role {mount}/deploy\n",
        f"create static role {mount}/billing\n",
        "  description: (none) -> of Vault\n",
        "note: iam_user: `ttl` of a request counts here",
        "can't be taken: role both: it has the types iam_user and federation_token",
    ):
        assert words in done.out
    assert f"role {mount}/typo is refused" in done.err, "the server checks what Vault did not"
    assert (await lessor_cli("role", "list", "--mount", mount)).err == "lessor: no roles\n"
    assert {asked.split()[0] for asked in source.asked} == {"GET"}


async def test_an_import_is_complete_and_a_second_one_changes_nothing(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    user = f"vault-{mount}"
    await make_user(aws, user, "/", {}, age=3600.0)
    done = await run_import(lessor_cli, mount, "--apply")
    assert done.code == 1, "two roles can't be taken"
    exported = await lessor_cli("export", "--mount", mount, "--format", "json")
    found: Any = exported.json["mounts"][mount]
    assert (found["description"], found["max_lease_ttl"]) == ("of Vault", "24h")
    assert found["lease_defaults"] == {"lease": "30m", "lease_max": "12h"}
    assert sorted(found["roles"]) == ["deploy", "reader"]
    assert found["roles"]["reader"]["policy_document"] == POLICY
    assert found["static_roles"]["billing"]["held"] is True
    assert (await aws.users())[user]["keys"] == []

    await lessor_cli("role", "put", "reader", "--mount", mount, "--update", "--max-leases", "7")
    again = await run_import(lessor_cli, mount, "--apply", "--format", "json")
    changes = json.loads(again.out)["changes"]
    assert [(one["name"], one["done"]) for one in changes] == [(f"{mount}/typo", False)]
    kept = await lessor_cli("role", "get", "reader", "--mount", mount)
    assert kept.fields["max_leases"] == "7", "Vault does not know this field"
    assert json.loads(again.out)["refused"][0]["name"] == "role both"

    resumed = await lessor_cli("static-role", "resume", "billing", "--mount", mount)
    assert resumed.code == 0
    await run_import(lessor_cli, mount, "--apply")
    assert (await lessor_cli("static-role", "get", "billing", "--mount", mount)).fields["held"] == "no"
    await lessor_cli("static-role", "delete", "billing", "--mount", mount)


async def test_a_missing_engine_is_enabled_under_the_same_name_and_needs_no_root(
    lessor_cli: CommandLine, mount: str
) -> None:
    new = f"{mount}-new"
    planned = await run_import(lessor_cli, new)
    assert (planned.code, f"create mount {new}\n" in planned.out) == (0, True)
    assert new not in (await lessor_cli("mounts")).out
    assert (await run_import(lessor_cli, new, "--apply")).code == 1
    assert (await lessor_cli("role", "get", "deploy", "--mount", new)).fields["max_sts_ttl"] == "2h"
    assert (await lessor_cli("static-role", "get", "billing", "--mount", new)).fields["held"] == "yes"
    assert (await lessor_cli("config", "root", "get", "--mount", new)).code == 7
    other = await run_import(lessor_cli, new, "--to", f"{new}-2", "--format", "json")
    assert json.loads(other.out)["changes"][0]["name"] == f"{new}-2"


async def test_without_a_right_or_an_answer_nothing_is_changed(
    lessor_cli: CommandLine, source: VaultModel, mount: str
) -> None:
    source.denied.add(f"{mount}/config/lease")
    denied = await run_import(lessor_cli, mount, "--apply")
    assert (denied.code, f"{mount}/config/lease" in denied.err) == (4, True)
    source.denied.clear()
    assert (await run_import(lessor_cli, mount, VAULT_TOKEN="another")).code == 4
    assert (await run_import(lessor_cli, mount, VAULT_TOKEN="")).code == 2
    assert (await run_import(lessor_cli, mount, VAULT_TOKEN="", BAO_TOKEN=TOKEN)).code == 0
    assert (await run_import(lessor_cli, mount, "--addr", "http://127.0.0.1:1")).code == 6
    assert (await run_import(lessor_cli, mount, "--addr", "127.0.0.1:1")).code == 2
    assert (await run_import(lessor_cli, "nomount")).code == 5
    assert (await lessor_cli("role", "list", "--mount", mount)).err == "lessor: no roles\n"


ACL = {
    "app": """
        path "{mount}/creds/reader" {{ capabilities = ["read"] }}
        path "secret/data/app" {{ capabilities = ["read"] }}
    """,
    "operator": """
        # whatever concerns roles, but no user's credentials
        path "{mount}/*" {{ capabilities = ["create", "read", "update", "delete", "list"] }}
        path "{mount}/creds/*" {{ capabilities = ["deny"] }}
        path "{mount}/roles/prod" {{
          capabilities = ["update"]
          allowed_parameters = {{ "iam_groups" = [] }}
        }}
    """,
    "other": 'path "secret/*" {{ capabilities = ["read"] }}',
}


async def test_acl_policies_of_openbao_become_rules_of_an_access_file(
    lessor_cli: CommandLine, source: VaultModel, mount: str
) -> None:
    """They decide as OpenBao does, and the server accepts them."""
    async with openbao() as bao:
        for name, text in ACL.items():
            await bao.ask("PUT", f"sys/policies/acl/{name}", {"policy": text.format(mount=mount)})
            answer = await bao.ask("GET", f"sys/policies/acl/{name}", None)
            source.data[f"sys/policies/acl/{name}"] = answer["data"]
        source.data["sys/policies/acl/root"] = {"name": "root", "policy": ""}
        done = await run_import(lessor_cli, mount, "--policies", "access.toml")
        assert done.code == 0
        assert "policy other: is left out" in done.out
        assert "policy app: left out secret/data/app" in done.out
        file = lessor_cli.folder / "access.toml"
        names = json.dumps(["app", "operator"])
        file.write_text(
            f'{file.read_text(encoding="utf-8")}\n[[identities]]\nname = "x"\npolicies = {names}\n'
            f'token_sha256 = ["{"0" * 64}"]\n',
            encoding="utf-8",
        )
        assert (await lessor_cli("access", "check", "access.toml")).code == 0
        token = await bao.ask("POST", "auth/token/create", {"policies": ["app", "operator"]})
        paths = [f"{mount}/{path}" for path in ("creds/reader", "creds/x", "roles/a", "config/root")]
        found = await bao.ask(
            "POST", "sys/capabilities", {"token": token["auth"]["client_token"], "paths": paths}
        )
        for path in paths:
            for capability in ("read", "update", "delete"):
                words = ("policy", "test", "--file", "access.toml", "--identity", "x", path, capability)
                allowed = (await lessor_cli(*words)).code == 0
                assert allowed is (capability in found["data"][path]), (path, capability)
    words = ("policy", "test", "--file", "access.toml", "--identity", "x", f"{mount}/roles/prod", "update")
    assert (await lessor_cli(*words)).code == 1, "a restriction without an equivalent denies"


async def test_a_file_of_somebody_else_is_not_replaced(lessor_cli: CommandLine, mount: str) -> None:
    file = lessor_cli.folder / "access.toml"
    file.write_text("# mine\n", encoding="utf-8")
    done = await run_import(lessor_cli, mount, "--policies", "access.toml")
    assert (done.code, file.read_text(encoding="utf-8")) == (2, "# mine\n")
