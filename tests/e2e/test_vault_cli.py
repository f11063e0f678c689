"""Checks that OpenBao's command line, unchanged, does with Lessor what it does with its own AWS engine."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.bao import Bao
from tests.support.clients import POLICY, ROOT_KEY, ROOT_SECRET, Lessor, works_again
from tests.support.http_server import DENY, serving_http
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def serve_http(tmp_path_factory: pytest.TempPathFactory, aws: StandIn) -> AsyncIterator[ServerProcess]:
    async with serving_http(tmp_path_factory.mktemp("server"), aws) as process:
        yield process


@pytest.fixture(name="bao")
def command_line(server: ServerProcess, tmp_path: Path) -> Bao:
    return Bao(server.http_url, server.token, tmp_path)


@pytest_asyncio.fixture(loop_scope="module", name="engine")
async def enabled(bao: Bao, mount: str) -> str:
    """Return a mount with a root and a role."""
    await bao.ok("write", f"{mount}/config/lease", "lease=30m", "lease_max=1h")
    await bao.ok(
        "write", f"{mount}/roles/app", "credential_type=iam_user", f"policy_document={json.dumps(DENY)}"
    )
    return mount


async def issue(bao: Bao, engine: str) -> str:
    """Return the id of a new lease."""
    return str((await bao.run("read", "-format=json", f"{engine}/creds/app")).json()["lease_id"])


async def test_an_engine_is_enabled_listed_tuned_and_disabled(bao: Bao) -> None:
    assert await bao.ok("secrets", "enable", "-path=cloud", "aws") == (
        "Success! Enabled the aws secrets engine at: cloud/"
    )
    assert "path is already in use at cloud/" in await bao.fails("secrets", "enable", "-path=cloud", "aws")
    assert "type: kv is not served here" in await bao.fails("secrets", "enable", "-path=other", "kv")
    assert re.search(r"^cloud/ +aws ", await bao.ok("secrets", "list"), re.MULTILINE)
    assert (await bao.run("secrets", "list", "-format=json")).json()["cloud/"]["type"] == "aws"
    limits = ("-default-lease-ttl=30m", "-max-lease-ttl=2h")
    assert await bao.ok("secrets", "tune", *limits, "cloud") == "Success! Tuned the secrets engine at: cloud/"
    await bao.ok("secrets", "tune", "-description=for tests", "cloud")
    tuned = (await bao.run("read", "-format=json", "sys/mounts/cloud/tune")).json()["data"]
    assert (tuned["default_lease_ttl"], tuned["max_lease_ttl"]) == (1800, 7200)
    assert tuned["description"] == "for tests"
    await bao.ok("write", "sys/mounts/cloud/tune", "default_lease_ttl=system", "max_lease_ttl=system")
    tuned = (await bao.run("read", "-format=json", "sys/mounts/cloud/tune")).json()["data"]
    assert tuned["max_lease_ttl"] == 2_764_800
    for _ in range(2):
        assert "Success! Disabled the secrets engine" in await bao.ok("secrets", "disable", "cloud")
    assert "cloud/" not in await bao.ok("secrets", "list", "-detailed")


async def test_a_root_is_written_in_parts_and_its_secret_is_never_read(bao: Bao, aws: StandIn) -> None:
    await bao.ok("secrets", "enable", "-path=rooted", "aws")
    assert "No value found at rooted/config/root" in await bao.fails("read", "rooted/config/root")
    assert "No value found at rooted/config/lease" in await bao.fails("read", "rooted/config/lease")
    written = await bao.ok(
        "write",
        "rooted/config/root",
        *(f"access_key={ROOT_KEY}", f"secret_key={ROOT_SECRET}", "region=us-east-1"),
        *(f"iam_endpoint={aws.url}", f"sts_endpoint={aws.url}"),
    )
    assert written == "Success! Data written to: rooted/config/root"
    await bao.ok("write", "rooted/config/root", "region=eu-west-1", "max_retries=3")
    root = (await bao.run("read", "-format=json", "rooted/config/root")).json()["data"]
    assert (root["access_key"], root["region"], root["max_retries"]) == (ROOT_KEY, "eu-west-1", 3)
    assert root["iam_endpoint"] == aws.url
    assert "secret_key" not in root
    await bao.ok("write", "rooted/config/root", "max_retries=-1")
    root = (await bao.run("read", "-format=json", "rooted/config/root")).json()["data"]
    assert root["max_retries"] == -1
    await bao.ok("write", "rooted/config/lease", "lease=30m", "lease_max=1h")
    assert re.search(r"^lease_max +1h0m0s$", await bao.ok("read", "rooted/config/lease"), re.MULTILINE)
    await bao.ok("secrets", "disable", "rooted")


async def test_a_refused_role_is_not_stored_and_a_written_one_changes_in_parts(bao: Bao, mount: str) -> None:
    refused = await bao.fails(
        "write", f"{mount}/roles/app", "credential_type=iam_user", 'policy_document={"Version": "2012-10-18"}'
    )
    assert "policy_document.Version: " in refused
    assert f"No value found at {mount}/roles" in await bao.fails("list", f"{mount}/roles")
    written = await bao.ok(
        "write",
        f"{mount}/roles/app",
        *("credential_type=iam_user", "policy_document=-", "iam_tags=team=a", "iam_tags=stage=b"),
        typed=json.dumps(DENY),
    )
    assert written == f"Success! Data written to: {mount}/roles/app"
    await bao.ok("write", f"{mount}/roles/app", "max_ttl=2h", "iam_groups=developers")
    role = (await bao.run("read", "-format=json", f"{mount}/roles/app")).json()["data"]
    assert role["iam_tags"] == {"team": "a", "stage": "b"}
    assert role["iam_groups"] == ["developers"]
    assert role["max_ttl"] == 7200
    assert json.loads(role["policy_document"]) == DENY
    await bao.ok("write", f"{mount}/roles/app", "iam_groups=")
    assert (await bao.run("read", "-format=json", f"{mount}/roles/app")).json()["data"]["iam_groups"] == []
    assert await bao.ok("list", f"{mount}/roles") == "Keys\n----\napp"
    for _ in range(2):
        assert "Success! Data deleted" in await bao.ok("delete", f"{mount}/roles/app")


async def test_warnings_of_a_write_are_shown(bao: Bao, mount: str) -> None:
    wide = f"policy_document={json.dumps(POLICY)}"
    printed = await bao.run("write", f"{mount}/roles/wide", "credential_type=iam_user", wide, "spelling=x")
    assert printed.code == 0
    assert "Endpoint ignored these unrecognized parameters: [spelling]" in printed.errors


async def test_credentials_are_read_as_a_table_as_json_and_as_one_field(bao: Bao, engine: str) -> None:
    table = await bao.ok("read", f"{engine}/creds/app")
    assert re.search(r"^lease_duration +30m$", table, re.MULTILINE)
    assert re.search(r"^security_token +<nil>$", table, re.MULTILINE)
    read = (await bao.run("read", "-format=json", f"{engine}/creds/app", "ttl=20m")).json()
    assert (read["lease_duration"], read["renewable"]) == (1200, True)
    assert set(read["data"]) == {"access_key", "secret_key", "security_token", "session_token"}
    assert re.fullmatch(r"[A-Z0-9]{16,}", await bao.ok("read", "-field=access_key", f"{engine}/creds/app"))
    assert "no role" in await bao.fails("read", f"{engine}/creds/missing")


async def test_a_wrapped_answer_and_a_namespace_are_refused_without_a_key(bao: Bao, engine: str) -> None:
    assert "can't be wrapped" in await bao.fails("read", "-wrap-ttl=60s", f"{engine}/creds/app")
    await bao.fails("read", "-namespace=ns1", f"{engine}/creds/app")
    assert "No value found" in await bao.fails("list", f"sys/leases/lookup/{engine}/creds/app")


async def test_a_lease_is_looked_up_renewed_and_revoked(bao: Bao, engine: str) -> None:
    lease = await issue(bao, engine)
    shown = await bao.ok("lease", "lookup", lease)
    assert re.search(r"^renewable +true$", shown, re.MULTILINE)
    assert re.search(r"^last_renewal +<nil>$", shown, re.MULTILINE)
    renewed = (await bao.run("lease", "renew", "-format=json", "-increment=45m", lease)).json()
    assert (renewed["lease_id"], renewed["lease_duration"]) == (lease, 2700)
    capped = await bao.run("lease", "renew", "-increment=9h", lease)
    assert capped.code == 0
    assert "9h was capped to" in capped.errors
    assert "queued successfully" in await bao.ok("lease", "revoke", lease)
    for _ in range(2):
        assert await bao.ok("lease", "revoke", "-sync", lease) == f"Success! Revoked lease: {lease}"
    assert "invalid lease" in await bao.fails("lease", "lookup", lease)
    assert "lease not found" in await bao.fails("lease", "renew", lease)
    assert "not a valid lease id" in await bao.fails("lease", "revoke", lease[:-1])


async def test_leases_are_listed_by_folder_and_revoked_by_prefix(bao: Bao, engine: str) -> None:
    ids = sorted([await issue(bao, engine), await issue(bao, engine)])
    assert (await bao.run("list", "-format=json", f"sys/leases/lookup/{engine}")).json() == ["creds/"]
    assert (await bao.run("list", "-format=json", f"sys/leases/lookup/{engine}/creds/")).json() == ["app/"]
    keys = (await bao.run("list", "-format=json", f"sys/leases/lookup/{engine}/creds/app")).json()
    assert keys == [one.rpartition("/")[2] for one in ids]
    assert "Success! Revoked any leases with prefix" in await bao.ok(
        "lease", "revoke", "-sync", "-prefix", f"{engine}/creds/app"
    )
    assert "No value found" in await bao.fails("list", f"sys/leases/lookup/{engine}/creds/app")


async def test_leases_that_aws_does_not_let_go_are_given_up_by_force(
    bao: Bao, engine: str, aws: StandIn, lessor: Lessor
) -> None:
    lease = await issue(bao, engine)
    await aws.down()
    forced = await bao.ok("lease", "revoke", "-force", "-prefix", f"{engine}/creds/app")
    assert "Success! Force revoked any leases with prefix" in forced
    await aws.up()
    looked = (await bao.run("lease", "lookup", "-format=json", lease)).json()["data"]
    assert looked["state"] == "abandoned"
    assert not looked["renewable"]
    await works_again(lessor, engine)


async def test_a_session_of_sts_has_a_life_and_no_renewal(bao: Bao, mount: str, aws: StandIn) -> None:
    arn = await aws.role("deploy")
    await bao.ok("write", f"{mount}/roles/sts", "credential_type=assumed_role", f"role_arns={arn}")
    read = (await bao.run("write", "-format=json", f"{mount}/sts/sts", "ttl=15m")).json()
    assert (read["lease_duration"], read["renewable"], read["data"]["ttl"]) == (900, False, 900)
    assert read["data"]["security_token"] == read["data"]["session_token"] != ""
    assert "assumed-role" in read["data"]["arn"]
    assert "lease is not renewable" in await bao.fails("lease", "renew", read["lease_id"])
    by_query = (await bao.run("read", "-format=json", f"{mount}/creds/sts", "ttl=20m")).json()
    assert by_query["lease_duration"] == 1200


async def test_a_static_role_is_written_read_and_its_key_has_the_time_of_its_rotation(
    bao: Bao, mount: str, aws: StandIn
) -> None:
    await aws.call("CreateUser", UserName="legacy")
    written = (
        await bao.run(
            "write", "-format=json", f"{mount}/static-roles/legacy", "username=legacy", "rotation_period=24h"
        )
    ).json()["data"]
    assert (written["username"], written["rotation_period"]) == ("legacy", 86_400)
    key = (await bao.run("read", "-format=json", f"{mount}/static-creds/legacy")).json()
    assert key["lease_id"] == ""
    assert key["data"]["rotation_period"] == 86_400
    assert 86_000 < key["data"]["ttl"] <= 86_400
    assert {"expiration", "last_vault_rotation", "access_key", "secret_key"} <= set(key["data"])
    assert await bao.ok("list", f"{mount}/static-roles") == "Keys\n----\nlegacy"
    await bao.ok("delete", f"{mount}/static-roles/legacy")
    assert "No value found" in await bao.fails("read", f"{mount}/static-creds/legacy")


async def test_the_server_describes_itself_and_its_paths(bao: Bao, server: ServerProcess) -> None:
    shown = await bao.ok("status")
    assert re.search(r"^Sealed +false$", shown, re.MULTILINE)
    assert await bao.ok("token", "capabilities", "aws/creds/app") == "root"
    assert "Issues credentials of a role" in await bao.ok("path-help", "aws/creds/app")
    assert "no handler for route" in await bao.fails("write", "kv/data/x", "a=b")


async def test_a_wrong_token_is_refused_with_vaults_words(bao: Bao) -> None:
    printed = await bao.run("secrets", "list", BAO_TOKEN="wrong", VAULT_TOKEN="wrong")
    assert printed.code == 2
    assert "Code: 403. Errors:\n\n* permission denied" in printed.errors
