"""Replays what operators, providers and actions send to Vault, in their order and their forms.

Sources: the code of hashicorp/vault-secrets-operator, external-secrets/external-secrets,
hashicorp/terraform-provider-vault, hashicorp/vault-action and spring-projects/spring-vault.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Self

import aiohttp
import pytest
import pytest_asyncio

from tests.support.access_server import policy, program, rule, token_of
from tests.support.clients import ROOT_KEY, ROOT_SECRET, until
from tests.support.http_server import DENY, DENY_TEXT, serving_http
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

FIXED = token_of("operator")
ACCESS = (
    policy("reader", rule("read", "aws/creds/app"), rule("deny", "aws/config/*")),
    program("operator", "reader", labels={"team": "a"}),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def serve_http(tmp_path_factory: pytest.TempPathFactory, aws: StandIn) -> AsyncIterator[ServerProcess]:
    async with serving_http(tmp_path_factory.mktemp("server"), aws, *ACCESS) as process:
        async with Http(process.http_url, process.token) as root:
            await root.ok("POST", "sys/mounts/aws", {"type": "aws", "config": {"max_lease_ttl": "0s"}})
            keys = {"access_key": ROOT_KEY, "secret_key": ROOT_SECRET}
            await root.ok(
                "PUT", "aws/config/root", {**keys, "iam_endpoint": aws.url, "sts_endpoint": aws.url}
            )
            role = {"credential_type": "iam_user", "policy_document": DENY_TEXT, "default_ttl": 3600}
            await root.ok("POST", "aws/roles/app", role)
        yield process


class Http:
    """A client that sends a token in one of the two headers, or none."""

    def __init__(self, url: str, token: str = "", *, bearer: bool = False) -> None:
        headers = {"Authorization": f"Bearer {token}"} if bearer else {"X-Vault-Token": token}
        self._session = aiohttp.ClientSession(url, headers=headers if token else {})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def send(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, object]]:
        """Return the status and the JSON of an answer."""
        data = None if body is None else json.dumps(body).encode()
        async with self._session.request(method, f"/v1/{path}", data=data, headers=headers or {}) as answer:
            read = await answer.read()
            assert not read or answer.headers["Content-Type"] == "application/json"
            return answer.status, json.loads(read) if read else {}

    async def ok(self, method: str, path: str, body: object = None) -> dict[str, object]:
        """Return the JSON of an answer that is no error."""
        status, found = await self.send(method, path, body)
        assert status < 300, found
        return found


async def test_external_secrets_logs_in_checks_its_token_and_reads(server: ServerProcess) -> None:
    async with Http(server.http_url) as stranger:
        login = {"role_id": "operator", "secret_id": FIXED}
        auth = (await stranger.ok("PUT", "auth/approle/login", login))["auth"]
    assert isinstance(auth, dict)
    assert auth["token_type"] == "service"
    async with Http(server.http_url, auth["client_token"]) as client:
        data = (await client.ok("GET", "auth/token/lookup-self"))["data"]
        assert isinstance(data, dict)
        assert data["type"] == "service"
        assert isinstance(data["ttl"], int)
        assert data["ttl"] > 60
        assert data["expire_time"].endswith("Z")
        assert (await client.ok("GET", "aws/creds/app"))["lease_id"]
        await client.ok("PUT", "auth/token/revoke-self")
        assert (await client.send("GET", "auth/token/lookup-self"))[0] == 403


async def test_a_login_may_be_larger_than_the_messages_of_strangers(server: ServerProcess) -> None:
    """A JWT with many claims may be."""
    async with Http(server.http_url) as stranger:
        login = {"role_id": "operator", "secret_id": FIXED, "more": "x" * 60_000}
        assert (await stranger.ok("PUT", "auth/approle/login", login))["auth"]


async def test_the_secrets_operator_renews_by_the_first_duration_and_gets_all_of_it(
    server: ServerProcess,
) -> None:
    async with Http(server.http_url, FIXED) as client, Http(server.http_url, server.token) as root:
        secret = await client.ok("GET", "aws/creds/app")
        assert secret["lease_duration"] == 3600
        body = {"lease_id": secret["lease_id"], "increment": secret["lease_duration"]}
        renewed = await client.ok("PUT", "/sys/leases/renew", body)
        assert (renewed["lease_duration"], renewed["data"]) == (3600, None)
        await root.ok("PUT", "sys/leases/revoke", {"lease_id": secret["lease_id"], "sync": True})
        status, refused = await client.send("PUT", "/sys/leases/renew", body)
        assert (status, refused["errors"][0]) == (400, "lease not found")  # type: ignore[index]


async def test_terraform_makes_a_child_token_and_reads_back_what_it_writes(
    server: ServerProcess, aws: StandIn
) -> None:
    async with Http(server.http_url, server.token) as parent:
        assert (await parent.ok("GET", "sys/seal-status"))["version"]
        await parent.ok("GET", "auth/token/lookup-self")
        child = {"display_name": "terraform", "ttl": "1200s", "explicit_max_ttl": "1200s", "renewable": False}
        auth = (await parent.ok("POST", "auth/token/create", child))["auth"]
    assert isinstance(auth, dict)
    assert (auth["lease_duration"], auth["renewable"]) == (1200, False)
    async with Http(server.http_url, auth["client_token"]) as client:
        status, missing = await client.send("GET", "sys/mounts/terra")
        assert (status, missing["errors"]) == (400, ["No secret engine mount at terra/"])
        config = {"default_lease_ttl": "3600s", "max_lease_ttl": "86400s", "options": None}
        await client.ok("POST", "sys/mounts/terra", {"type": "aws", "description": "", "config": config})
        assert (await client.ok("GET", "sys/mounts/terra/tune"))["max_lease_ttl"] == 86_400
        root = {"access_key": ROOT_KEY, "secret_key": ROOT_SECRET, "region": "us-east-1", "role_arn": ""}
        await client.ok("PUT", "terra/config/root", {**root, "iam_endpoint": aws.url, "max_retries": -1})
        role = {
            "credential_type": "iam_user",
            "policy_document": DENY_TEXT,
            "role_arns": [],
            "iam_groups": [],
        }
        await client.ok("PUT", "terra/roles/app", {**role, "default_sts_ttl": "", "iam_tags": {"a": "b"}})
        data = (await client.ok("GET", "terra/roles/app"))["data"]
        assert isinstance(data, dict)
        assert json.loads(data["policy_document"]) == DENY
        assert data["iam_tags"] == {"a": "b"}
        await client.ok("DELETE", "terra/roles/app")
        await client.ok("DELETE", "sys/mounts/terra")
        await client.ok("PUT", "auth/token/revoke-self")


async def test_vault_action_reads_with_the_token_of_its_login(server: ServerProcess) -> None:
    async with Http(server.http_url) as stranger:
        login = {"role_id": "operator", "secret_id": FIXED}
        auth = (await stranger.ok("POST", "auth/approle/login", login))["auth"]
        assert isinstance(auth, dict)
        status, refused = await stranger.send("POST", "auth/approle/login", {**login, "secret_id": "wrong"})
        assert status == 400
        assert refused["errors"]
    async with Http(server.http_url, auth["client_token"], bearer=True) as client:
        data = (await client.ok("GET", "aws/creds/app"))["data"]
        assert isinstance(data, dict)
        assert data["access_key"]


async def test_spring_renews_with_the_duration_as_a_text(server: ServerProcess) -> None:
    async with Http(server.http_url, FIXED) as client:
        secret = await client.ok("GET", "aws/creds/app")
        body = {"lease_id": secret["lease_id"], "increment": "3600"}
        assert (await client.ok("PUT", "sys/leases/renew", body))["lease_duration"] == 3600
        await client.ok("PUT", f"sys/leases/revoke/{secret['lease_id']}", {"sync": False})


async def test_a_caller_with_two_tokens_is_refused(server: ServerProcess) -> None:
    async with Http(server.http_url, FIXED) as client:
        same = {"Authorization": f"Bearer {FIXED}"}
        assert (await client.send("GET", "auth/token/lookup-self", None, same))[0] == 200
        other = {"Authorization": f"Bearer {server.token}"}
        assert await client.send("GET", "aws/creds/app", None, other) == (
            403,
            {"errors": ["permission denied"]},
        )


async def test_capabilities_are_those_of_the_callers_policies(server: ServerProcess) -> None:
    paths = ["aws/creds/app", "aws/creds/other", "aws/config/root", "auth/token/lookup-self"]
    async with Http(server.http_url, FIXED) as client:
        data = (await client.ok("POST", "sys/capabilities-self", {"paths": paths}))["data"]
    assert data == {
        "aws/creds/app": ["read"],
        "aws/creds/other": ["deny"],
        "aws/config/root": ["deny"],
        "auth/token/lookup-self": ["read", "update"],
    }


async def test_a_templating_client_finds_the_mount_of_a_path_that_it_may_read(server: ServerProcess) -> None:
    async with Http(server.http_url, FIXED) as client:
        found = await client.ok("GET", "sys/internal/ui/mounts/aws/creds/app")
        assert found["data"]["path"] == "aws/"  # type: ignore[index]
        assert (await client.send("GET", "sys/internal/ui/mounts/other/creds/app"))[0] == 403


async def test_a_retry_with_the_same_request_id_gets_the_same_lease(server: ServerProcess) -> None:
    header = {"X-Lessor-Request-Id": "7d444840-9dc0-11d1-b245-5ffdce74fad2"}
    async with Http(server.http_url, FIXED) as client:
        first = await client.send("GET", "aws/creds/app", None, header)
        again = await client.send("GET", "aws/creds/app", None, header)
    assert first[1]["lease_id"] == again[1]["lease_id"]


async def test_a_full_role_says_when_there_is_room(server: ServerProcess) -> None:
    async with Http(server.http_url, server.token) as root:
        role = {
            "credential_type": "iam_user",
            "policy_document": DENY_TEXT,
            "max_leases": 1,
            "default_ttl": "20s",
        }
        await root.ok("POST", "aws/roles/small", role)
        secret = await root.ok("GET", "aws/creds/small")
        async with root._session.get("/v1/aws/creds/small") as full:
            assert full.status == 429
            assert 1 <= int(full.headers["Retry-After"]) <= 20
        await root.ok("PUT", "sys/leases/revoke", {"lease_id": secret["lease_id"]})


async def test_a_key_whose_caller_hangs_up_is_revoked(server: ServerProcess, aws: StandIn) -> None:
    host, _, port = server.http_url.removeprefix("http://").partition(":")
    before = await aws.users("/lessor/")
    await aws.latency(0.3)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /v1/aws/creds/app HTTP/1.1\r\nHost: {host}\r\nX-Vault-Token: {FIXED}\r\n\r\n".encode())
    await writer.drain()
    await until(lambda: aws.users("/lessor/"), lambda users: len(users) > len(before))
    writer.close()
    await aws.latency(0)
    await until(lambda: aws.users("/lessor/"), lambda users: users.keys() <= before.keys())
    assert not await reader.read()


async def test_no_token_and_no_key_is_logged(server: ServerProcess) -> None:
    async with Http(server.http_url, FIXED) as client:
        data = (await client.ok("GET", "aws/creds/app"))["data"]
        await client.send("GET", "aws/creds/app", None, {"X-Vault-Token": "a-wrong-token-of-the-test"})
    log = server.log_file.read_text()
    assert data["secret_key"] not in log  # type: ignore[index]
    assert FIXED not in log
    assert "a-wrong-token-of-the-test" not in log
