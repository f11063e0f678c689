"""Checks that hvac, a Python client of Vault, works unchanged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import hvac
import pytest
import pytest_asyncio
import requests

from lessor_server.adapters.clock import SystemClock
from tests.support.access_server import policy, rule, table, who
from tests.support.clients import ROOT_KEY, ROOT_SECRET, connect
from tests.support.http_server import DENY, serving_http
from tests.support.json_web_tokens import SigningKey
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

KEY = SigningKey()


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def serve_http(tmp_path_factory: pytest.TempPathFactory, aws: StandIn) -> AsyncIterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    jwks = folder / "jwks"
    jwks.write_text(json.dumps({"keys": [KEY.jwk()]}))
    access = (
        policy("reader", rule("read", "aws/creds/app")),
        table(
            "issuers",
            name="cluster",
            issuer="https://issuer.example",
            audiences=["lessor"],
            jwks_file=str(jwks),
        ),
        table(
            "identities",
            name="pod",
            policies=["reader"],
            jwt={"issuer": "cluster", "claims": {"sub": "pod"}},
        ),
    )
    async with serving_http(folder, aws, *access) as process:
        yield process


async def with_client(server: ServerProcess, use: Callable[[hvac.Client], None], token: str = "") -> None:
    """Use a client on a thread, as its calls block."""

    def run() -> None:
        with requests.Session() as session:
            session.trust_env = False
            use(hvac.Client(server.http_url, token or server.token, session=session))

    await asyncio.to_thread(run)


async def test_an_engine_is_set_up_used_and_disabled(server: ServerProcess, aws: StandIn) -> None:
    def use(client: hvac.Client) -> None:
        engine = client.secrets.aws
        client.sys.enable_secrets_engine("aws", path="cloud")
        with pytest.raises(hvac.exceptions.InvalidRequest) as again:
            client.sys.enable_secrets_engine("aws", path="cloud")
        assert again.value.errors == ["path is already in use at cloud/"]
        assert client.sys.list_mounted_secrets_engines()["data"]["cloud/"]["type"] == "aws"
        assert "cloud/" in client.sys.list_mounted_secrets_engines()
        client.sys.tune_mount_configuration("cloud", default_lease_ttl="30m", max_lease_ttl="2h")
        assert client.sys.read_mount_configuration("cloud")["data"]["max_lease_ttl"] == 7200
        engine.configure_root_iam_credentials(
            ROOT_KEY, ROOT_SECRET, "us-east-1", aws.url, aws.url, mount_point="cloud"
        )
        engine.configure_lease("30m", "1h", mount_point="cloud")
        assert engine.read_lease_config(mount_point="cloud")["data"]["lease"] == "30m0s"
        with pytest.raises(hvac.exceptions.InvalidPath):
            engine.list_roles(mount_point="cloud")
        engine.create_or_update_role("app", "iam_user", policy_document=DENY, mount_point="cloud")
        assert engine.list_roles(mount_point="cloud")["data"]["keys"] == ["app"]
        role = engine.read_role("app", mount_point="cloud")["data"]
        assert json.loads(role["policy_document"]) == DENY
        with pytest.raises(hvac.exceptions.InvalidRequest) as unknown:
            engine.generate_credentials("missing", mount_point="cloud")
        assert unknown.value.errors[0].startswith("no role 'cloud/missing'")
        made = engine.generate_credentials("app", mount_point="cloud")
        assert made["data"]["security_token"] is None
        _use_lease(client, made["lease_id"])
        engine.delete_role("app", mount_point="cloud")
        client.sys.disable_secrets_engine("cloud")
        assert "cloud/" not in client.sys.list_mounted_secrets_engines()["data"]

    await with_client(server, use)


def _use_lease(client: hvac.Client, lease: str) -> None:
    looked = client.sys.read_lease(lease)["data"]
    assert (looked["id"], looked["renewable"]) == (lease, True)
    assert client.sys.renew_lease(lease, increment=2700)["lease_duration"] == 2700
    assert client.sys.renew_lease(lease)["lease_duration"] == 1800
    prefix = lease.rpartition("/")[0]
    assert client.sys.list_leases(prefix)["data"]["keys"] == [lease.rpartition("/")[2]]
    client.sys.revoke_lease(lease)
    with pytest.raises(hvac.exceptions.InvalidRequest) as ended:
        client.sys.read_lease(lease)
    assert ended.value.errors == ["invalid lease"]
    client.sys.revoke_prefix(prefix)
    client.sys.revoke_force(prefix)


async def test_the_state_of_the_server_is_read_without_a_token(server: ServerProcess) -> None:
    def use(client: hvac.Client) -> None:
        assert not client.sys.is_sealed()
        assert client.sys.read_health_status(method="GET")["initialized"]
        assert client.sys.read_health_status(method="HEAD").status_code == 200
        assert client.sys.read_leader_status() == {"ha_enabled": False}
        assert client.sys.read_seal_status()["version"].startswith("1.")

    await with_client(server, use, "no token at all")


async def test_a_wrong_token_is_forbidden(server: ServerProcess) -> None:
    def use(client: hvac.Client) -> None:
        with pytest.raises(hvac.exceptions.Forbidden) as refused:
            client.secrets.aws.list_roles()
        assert refused.value.errors == ["permission denied"]

    await with_client(server, use, "wrong")


async def test_what_the_caller_may_do_is_read_by_path(server: ServerProcess) -> None:
    def use(client: hvac.Client) -> None:
        found = client.sys.get_capabilities(["aws/creds/app", "sys/mounts/"])
        assert found["data"]["aws/creds/app"] == found["sys/mounts/"] == ["root"]

    await with_client(server, use)


@pytest.mark.parametrize("method", ["jwt", "kubernetes"])
async def test_a_jwt_buys_a_token_that_is_renewed_used_over_grpc_and_revoked(
    server: ServerProcess, method: str
) -> None:
    now = int(SystemClock().wall())
    claims = {"iss": "https://issuer.example", "aud": "lessor", "sub": "pod", "iat": now, "exp": now + 600}
    jwt, tokens = KEY.sign(claims), list[str]()

    def log_in(client: hvac.Client) -> None:
        login = {"role": "pod", "jwt": jwt}
        if method == "jwt":
            auth = client.auth.jwt.jwt_login(**login, path="cluster")["auth"]
        else:
            auth = client.auth.kubernetes.login(**login, mount_point="cluster")["auth"]
        assert (auth["lease_duration"], auth["renewable"], auth["policies"]) == (3600, True, ["reader"])
        tokens.append(auth["client_token"])
        assert client.is_authenticated()
        assert client.auth.token.renew_self(increment="30m")["auth"]["lease_duration"] == 1800
        assert client.lookup_token()["data"]["display_name"] == "pod"

    def log_out(client: hvac.Client) -> None:
        client.auth.token.revoke_self()
        assert not client.is_authenticated()

    await with_client(server, log_in, "none")
    async with connect(server.address, tokens[0]) as lessor:
        assert (await who(lessor)).identity == "pod"
    await with_client(server, log_out, tokens[0])
