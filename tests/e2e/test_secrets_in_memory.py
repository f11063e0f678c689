"""Searches the memory of a server for secrets whose answers are sent, and for tokens."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from lessor.v1 import creds_pb2, role_pb2
from tests.support.access_server import policy, program, rule, token_of, who, write
from tests.support.clients import Lessor, connect, until
from tests.support.inspected_server import masked
from tests.support.server_process import TOKEN, bare_environment
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True, slots=True)
class Inspected:
    """A server that can be asked what its objects hold, and a caller of it."""

    process: Process
    lessor: Lessor
    address: str

    async def holders(self, *texts: str) -> list[list[str]]:
        """Return for each text what holds it in the server."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{json.dumps(list(map(masked, texts)))}\n".encode())
        found = json.loads(await self.process.stdout.readline())
        assert isinstance(found, list)
        return found

    async def until_free_of(self, *texts: str) -> None:
        """Wait until nothing in the server holds any of the texts: a call may end just after its answer."""
        await until(lambda: self.holders(*texts), lambda held: held == [[]] * len(texts), 30)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def inspected(tmp_path_factory: pytest.TempPathFactory, aws: StandIn) -> AsyncIterator[Inspected]:
    """Run such a server, with an engine and two roles."""
    folder = tmp_path_factory.mktemp("inspected")
    write(folder / "access.toml", policy("nothing", rule("deny", "*")), program("program", "nothing"))
    environment = {
        **bare_environment(),
        "AWS_EC2_METADATA_DISABLED": "true",
        "LESSOR_LISTEN": f"unix:{folder}/socket",
        "LESSOR_DATA_DIR": str(folder / "data"),
        "LESSOR_ROOT_TOKEN": TOKEN,
        "LESSOR_TOKEN": TOKEN,
        "LESSOR_ACCESS_FILE": str(folder / "access.toml"),
        "LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url,
    }
    words = (sys.executable, "-m", "tests.support.inspected_server")
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *words, env=environment, stdin=PIPE, stdout=PIPE, stderr=log
        )
    try:
        async with connect(f"unix:{folder}/socket", TOKEN) as lessor:
            await asyncio.wait_for(lessor.channel.channel_ready(), 30)
            await lessor.enable("aws", aws.url)
            await lessor.put_role("aws", "user")
            await lessor.put_role("aws", "session", credential_type=role_pb2.Role.FEDERATION_TOKEN)
            yield Inspected(process, lessor, f"unix:{folder}/socket")
    finally:
        process.kill()
        await process.wait()


async def test_no_token_stays(inspected: Inspected) -> None:
    """Neither root's nor that of an identity; a control value that does stay is found."""
    await inspected.lessor.info()
    async with connect(inspected.address, token_of("program")) as lessor:
        assert (await who(lessor)).identity == "program"
    (service,) = await inspected.holders("lessor.v1.CredsService")
    assert service
    await inspected.until_free_of(TOKEN, token_of("program"))


async def test_no_secret_stays_after_its_answer(inspected: Inspected) -> None:
    generate = inspected.lessor.creds.GenerateCredentials
    issued = [
        await generate(creds_pb2.GenerateCredentialsRequest(role="user")),
        await generate(creds_pb2.GenerateCredentialsRequest(role="session")),
        await generate(creds_pb2.GenerateCredentialsRequest(role="user", wait_usable=Duration(seconds=10))),
    ]
    repeated = creds_pb2.GenerateCredentialsRequest(role="user", request_id=str(uuid4()))
    issued += [await generate(repeated), await generate(repeated)]
    stream = inspected.lessor.creds.WatchCredentials(creds_pb2.WatchCredentialsRequest(role="user"))
    streamed = await anext(aiter(stream))
    secrets = [*(made.secret_key for made in issued), issued[1].security_token, streamed.secret_key]
    assert all(secrets)
    await inspected.until_free_of(*secrets)
    stream.cancel()


async def test_no_secret_of_a_static_role_stays(inspected: Inspected, aws: StandIn) -> None:
    await aws.call("CreateUser", UserName="build")
    role = role_pb2.StaticRole(name="build", username="build", rotation_period=Duration(seconds=86400))
    await inspected.lessor.roles.PutStaticRole(role_pb2.PutStaticRoleRequest(static_role=role))
    got = await inspected.lessor.creds.GetStaticCredentials(
        creds_pb2.GetStaticCredentialsRequest(role="build")
    )
    assert got.secret_key
    await inspected.until_free_of(got.secret_key)
