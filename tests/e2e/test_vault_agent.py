"""Checks that OpenBao's agent and proxy, unchanged, render, renew and replace credentials of Lessor."""

from __future__ import annotations

import asyncio
import json
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.support.access_server import policy, program, rule, token_of
from tests.support.bao import BINARY, Bao
from tests.support.clients import ROOT_KEY, ROOT_SECRET, until
from tests.support.http_server import DENY_TEXT, serving_http
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

AGENT_TOKEN = token_of("agent")
MOUNT = "agents"
LIFE_SECONDS, LONGEST_SECONDS = 4, 9
"""A lease is renewed after two thirds of its life, and replaced near its maximum."""
ACCESS = (
    policy(
        "reader",
        rule("read", f"{MOUNT}/creds/app"),
        rule("update", f"sys/leases/renew/{MOUNT}/creds/app/*"),
    ),
    program("agent", "reader"),
)
AGENT = """
vault {{ address = "{url}" }}
auto_auth {{
  method "token_file" {{ config = {{ token_file_path = "{home}/token" }} }}
  sink "file" {{ config = {{ path = "{home}/sink" }} }}
}}
template {{
  contents = "{{{{ with secret \\"{mount}/creds/app\\" }}}}{{{{ .Data.access_key }}}}{{{{ end }}}}"
  destination = "{home}/rendered"
}}
"""
APPROLE_AGENT = """
vault {{ address = "{url}" }}
auto_auth {{
  method "approle" {{
    config = {{
      role_id_file_path = "{home}/role"
      secret_id_file_path = "{home}/token"
      remove_secret_id_file_after_reading = false
    }}
  }}
  sink "file" {{ config = {{ path = "{home}/sink" }} }}
}}
template {{
  contents = "{{{{ with secret \\"{mount}/creds/app\\" }}}}{{{{ .Data.access_key }}}}{{{{ end }}}}"
  destination = "{home}/rendered"
}}
"""
PROXY = """
vault {{ address = "{url}" }}
auto_auth {{ method "token_file" {{ config = {{ token_file_path = "{home}/token" }} }} }}
cache {{}}
api_proxy {{ use_auto_auth_token = true }}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  tls_disable = true
}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def serve_http(tmp_path_factory: pytest.TempPathFactory, aws: StandIn) -> AsyncIterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    async with serving_http(folder, aws, *ACCESS) as process:
        bao = Bao(process.http_url, process.token, folder)
        await bao.ok("secrets", "enable", f"-path={MOUNT}", "aws")
        root = (f"access_key={ROOT_KEY}", f"secret_key={ROOT_SECRET}")
        await bao.ok(
            "write", f"{MOUNT}/config/root", *root, f"iam_endpoint={aws.url}", f"sts_endpoint={aws.url}"
        )
        await bao.ok(
            *(
                "write",
                f"{MOUNT}/roles/app",
                "credential_type=iam_user",
                f"policy_document={DENY_TEXT}",
            ),
            *(f"default_ttl={LIFE_SECONDS}s", f"max_ttl={LONGEST_SECONDS}s"),
        )
        yield process


@asynccontextmanager
async def running(kind: str, config: str, home: Path) -> AsyncIterator[Process]:
    """Run the agent or the proxy until the end of the block."""
    file = home / "config.hcl"
    file.write_text(config)
    with (home / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(str(BINARY), kind, f"-config={file}", "-log-level=debug"),
            env={"PATH": "/usr/bin:/bin", "HOME": str(home)},
            stdin=DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.terminate()
            await process.wait()


async def rendered(home: Path, different_from: str = "") -> str:
    """Wait for a key in the agent's file, different from an earlier one."""

    async def read() -> str:
        file = home / "rendered"
        return file.read_text() if file.exists() else ""

    return await until(read, lambda text: text not in ("", different_from), 40.0)


async def renewals(server: ServerProcess) -> int:
    """Return how often leases were renewed."""
    return [line["event"] for line in server.log()].count("renewed")


async def test_an_agent_renders_a_key_and_replaces_it_when_its_lease_is_revoked_or_ends(
    server: ServerProcess, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(AGENT_TOKEN)
    root = Bao(server.http_url, server.token, tmp_path)
    config = AGENT.format(url=server.http_url, home=tmp_path, mount=MOUNT)
    async with running("agent", config, tmp_path):
        first = await rendered(tmp_path)
        assert (tmp_path / "sink").read_text() == AGENT_TOKEN
        await until(lambda: renewals(server), bool, 20.0)
        second = await rendered(tmp_path, first)  # near the maximum of the first lease
        await root.ok("lease", "revoke", "-sync", "-prefix", f"{MOUNT}/creds/app")
        third = await rendered(tmp_path, second)
    assert len({first, second, third}) == 3


async def test_an_agent_logs_in_and_its_token_is_a_login_token(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "role").write_text("agent")
    (tmp_path / "token").write_text(AGENT_TOKEN)
    config = APPROLE_AGENT.format(url=server.http_url, home=tmp_path, mount=MOUNT)
    async with running("agent", config, tmp_path):
        await rendered(tmp_path)
        token = (tmp_path / "sink").read_text()
    assert token.startswith("lst_")
    looked = await Bao(server.http_url, token, tmp_path).run("token", "lookup", "-format=json")
    assert looked.json()["data"]["display_name"] == "agent"


async def test_a_proxy_serves_a_second_read_from_its_cache(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(AGENT_TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    config = PROXY.format(url=server.http_url, home=tmp_path, port=port)
    async with running("proxy", config, tmp_path), aiohttp.ClientSession(url) as session:

        async def read() -> tuple[str, str]:
            try:
                async with session.get(f"/v1/{MOUNT}/creds/app") as answer:
                    body = json.loads(await answer.read())
                    return answer.headers.get("X-Cache", ""), body.get("lease_id", "")
            except aiohttp.ClientError:
                return "", ""

        _, lease = await until(read, lambda found: bool(found[1]), 20.0)
        assert await read() == ("HIT", lease)
