"""Checks that ``lessor dev`` works without setup, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import aioboto3
import aiohttp
import grpc
import pytest
import pytest_asyncio
from botocore.exceptions import ClientError

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2, system_pb2
from tests.support.clients import Lessor, connect, struct, until
from tests.support.dev_server import ANY_PORTS, READY, SECONDS, Dev, dev, environment, failing, gone, names
from tests.support.gateways import token_file

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

TOKEN = "the-root-token-of-dev-tests"
REGIONS_ONLY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "ec2:DescribeRegions", "Resource": "*"}],
}
KEY_REFUSED = {"AuthFailure", "InvalidClientTokenId"}


@pytest.fixture(scope="module", name="tokens")
def a_folder_of_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the folder in which the shared server's web identity tokens may be."""
    return tmp_path_factory.mktemp("tokens")


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="shared")
async def one_dev(tmp_path_factory: pytest.TempPathFactory, tokens: Path) -> AsyncIterator[Dev]:
    """Run a dev server that the tests of this module share."""
    folder, variables = tmp_path_factory.mktemp("shared"), {"LESSOR_AWS_IDENTITY_TOKEN_DIRS": str(tokens)}
    async with dev(folder, *ANY_PORTS, "--token", TOKEN, **variables) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="lessor")
async def a_client(shared: Dev) -> AsyncIterator[Lessor]:
    """Call the shared server as root."""
    async with connect(shared.address, TOKEN) as client:
        await put_role(client)
        yield client


async def put_role(client: Lessor) -> None:
    """Write a role that may list the regions and nothing else."""
    await client.put_role("aws", "reader", policy_document=struct(REGIONS_ONLY))


async def call(aws: str, issued: creds_pb2.GenerateCredentialsResponse, service: str, operation: str) -> str:
    """Use a key; return "works", or the code with which AWS refuses."""
    client = aioboto3.Session().client(
        service,
        endpoint_url=aws,
        region_name="us-east-1",
        aws_access_key_id=issued.access_key,
        aws_secret_access_key=issued.secret_key,
    )
    async with client as sdk:
        try:
            await getattr(sdk, operation)()
        except ClientError as error:
            return str(error.response["Error"]["Code"])
    return "works"


async def reads(aws: str, issued: creds_pb2.GenerateCredentialsResponse) -> str:
    """Use a key for what its role allows."""
    return await call(aws, issued, "ec2", "describe_regions")


async def issue(client: Lessor) -> creds_pb2.GenerateCredentialsResponse:
    """Issue a key of the role, again while the embedded AWS is slow: its first answers take seconds."""

    async def attempt() -> creds_pb2.GenerateCredentialsResponse | None:
        try:
            return await client.generate("aws", "reader")
        except grpc.aio.AioRpcError as error:
            if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                raise
            return None

    made = await until(attempt, lambda seen: seen is not None, SECONDS)
    assert made is not None
    return made


async def until_gone(client: Lessor, lease_id: str) -> None:
    """Wait until a lease is gone."""
    await until(lambda: client.lookup(lease_id), lambda lease: lease.state == lease_pb2.Lease.GONE, SECONDS)


async def test_the_dev_server_is_ready_without_setup(shared: Dev, lessor: Lessor) -> None:
    info = await lessor.system.GetInfo(system_pb2.GetInfoRequest())
    assert info.dev_mode
    mounts = (await lessor.config.ListMounts(config_pb2.ListMountsRequest())).mounts
    assert [mount.mount for mount in mounts] == ["aws"]
    root = (await lessor.config.GetRoot(config_pb2.GetRootRequest())).config
    assert (root.iam_endpoint, root.sts_endpoint) == (shared.aws, shared.aws)


async def test_the_dev_server_prints_the_next_commands(shared: Dev) -> None:
    """The last line is for programs."""
    assert f"export LESSOR_ADDR={shared.address}\n" in shared.said
    assert f"export LESSOR_TOKEN={TOKEN}\n" in shared.said
    assert f"--endpoint-url {shared.aws} " in shared.said
    assert len(READY.findall(shared.said)) == 1
    assert TOKEN not in shared.errors()


async def test_a_key_has_the_permissions_of_its_role_until_it_is_revoked(shared: Dev, lessor: Lessor) -> None:
    issued = await issue(lessor)
    assert await reads(shared.aws, issued) == "works"
    assert await call(shared.aws, issued, "iam", "list_users") == "AccessDenied"
    revoked = await lessor.revoke(issued.lease_id)
    assert revoked.outcome == lease_pb2.RevokeLeaseResponse.GONE
    assert await reads(shared.aws, issued) in KEY_REFUSED


async def test_awss_managed_policies_are_available(shared: Dev, lessor: Lessor) -> None:
    arn = "arn:aws:iam::aws:policy/ReadOnlyAccess"
    put = await lessor.put_role("aws", "read-only", policy_arns=[arn])
    assert list(put.role.policy_arns) == [arn]
    issued = await lessor.generate("aws", "read-only")
    assert await reads(shared.aws, issued) == "works"
    assert await call(shared.aws, issued, "iam", "list_users") == "works"
    assert await call(shared.aws, issued, "ec2", "create_vpc_endpoint_service_configuration") != "works"
    await lessor.revoke(issued.lease_id)


async def test_a_root_with_a_web_identity_token_works(shared: Dev, lessor: Lessor, tokens: Path) -> None:
    admin = "arn:aws:iam::aws:policy/AdministratorAccess"
    await lessor.put_role("aws", "admin", policy_arns=[admin])
    issued = await lessor.generate("aws", "admin")
    iam = aioboto3.Session().client(
        "iam",
        endpoint_url=shared.aws,
        region_name="us-east-1",
        aws_access_key_id=issued.access_key,
        aws_secret_access_key=issued.secret_key,
    )
    async with iam as sdk:
        role = await sdk.create_role(RoleName="web", AssumeRolePolicyDocument=json.dumps(REGIONS_ONLY))
        await sdk.attach_role_policy(RoleName="web", PolicyArn=admin)
    config = config_pb2.RootConfig(
        iam_endpoint=shared.aws,
        sts_endpoint=shared.aws,
        assume_chain=[config_pb2.AssumeStep(role_arn=role["Role"]["Arn"])],
        identity_token_file=token_file(tokens / "token", aud="sts.amazonaws.com"),
    )
    await lessor.config.EnableMount(config_pb2.EnableMountRequest(mount="web"))
    await lessor.config.SetRoot(config_pb2.SetRootRequest(mount="web", config=config))
    checked = await lessor.config.CheckRoot(config_pb2.CheckRootRequest(mount="web"))
    assert checked.arn.startswith("arn:aws:sts::123456789012:assumed-role/web/")
    await lessor.put_role("web", "reader", policy_document=struct(REGIONS_ONLY))
    made = await lessor.generate("web", "reader")
    assert await reads(shared.aws, made) == "works"
    for lease in (made, issued):
        await lessor.revoke(lease.lease_id)


@pytest.mark.slow
async def test_a_key_is_refused_once_its_lease_has_expired(shared: Dev, lessor: Lessor) -> None:
    issued = await lessor.generate("aws", "reader", ttl=8)
    assert await reads(shared.aws, issued) == "works"
    await until_gone(lessor, issued.lease_id)
    assert await reads(shared.aws, issued) in KEY_REFUSED


async def test_the_embedded_aws_requires_a_key(shared: Dev) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{shared.aws}/moto-api/reset-auth", data="1000") as answer,
    ):
        assert answer.status == 403
    nobody = creds_pb2.GenerateCredentialsResponse(access_key="AKIANOBODYNOBODYNOBO", secret_key="none")
    assert await call(shared.aws, nobody, "iam", "list_users") == "InvalidClientTokenId"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_dev_server_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with dev(tmp_path, *ANY_PORTS) as running:
        aws = running.embedded_aws()
        assert [name[:11] for name in names(tmp_path)] == ["lessor-dev-"]
        assert await running.end(number) == 0
        await gone(aws)
        assert names(tmp_path) == []


@pytest.mark.slow
async def test_a_token_is_generated_and_with_until_eof_the_end_of_input_ends_it(tmp_path: Path) -> None:
    async with dev(tmp_path, *ANY_PORTS) as running:
        found = re.search(r"export LESSOR_TOKEN=([0-9a-f]{48})\n", running.said)
        assert found is not None
        async with connect(running.address, found[1]) as client:
            await client.roles.ListRoles(role_pb2.ListRolesRequest())
        running.keyboard.close()
        assert await running.ended() == 0


@pytest.mark.slow
async def test_the_embedded_aws_does_not_outlive_a_killed_dev_server(tmp_path: Path) -> None:
    async with dev(tmp_path, *ANY_PORTS) as running:
        aws = running.embedded_aws()
        await running.end(signal.SIGKILL)
        await gone(aws)


@pytest.mark.slow
async def test_the_dev_server_ends_with_its_embedded_aws(tmp_path: Path) -> None:
    async with dev(tmp_path, *ANY_PORTS) as running:
        os.kill(running.embedded_aws(), signal.SIGKILL)
        assert await running.ended() == 1
        errors = running.errors()
        assert "lessor dev: the embedded AWS has ended unexpectedly (exit code -9)" in errors
        assert "Traceback" not in errors
        assert names(tmp_path) == []


@pytest.mark.slow
async def test_a_second_start_keeps_roles_and_leases_and_its_files_are_private(tmp_path: Path) -> None:
    """The embedded AWS starts empty each time, so the root is set again.

    Files that an earlier version left readable are private again.
    """
    data = tmp_path / "data"
    words = (*ANY_PORTS, "--token", TOKEN, "--data", str(data))
    async with dev(tmp_path, *words) as running, connect(running.address, TOKEN) as client:
        await put_role(client)
        old = await issue(client)
        await ended_privately(running, data)
    (data / "lessor.db").chmod(0o644)
    async with dev(tmp_path, *words) as running, connect(running.address, TOKEN) as client:
        assert (await client.lookup(old.lease_id)).state == lease_pb2.Lease.ACTIVE
        fresh = await issue(client)
        assert await reads(running.aws, fresh) == "works"
        assert await reads(running.aws, old) in KEY_REFUSED
        await ended_privately(running, data)
    data.chmod(0o777)
    code, errors = await failing(tmp_path, *words)
    assert code == 2
    assert f"run chmod go-w {data}" in errors


def modes_in(data: Path) -> dict[str, int]:
    """Return the permissions of a folder and of its files, by name."""
    return {path.name: path.stat().st_mode & 0o777 for path in [data, *data.iterdir()]}


async def ended_privately(running: Dev, data: Path) -> None:
    """Check that nobody else can read its files and its memory, and end it."""
    modes = modes_in(data)
    assert "\nUmask:\t0077\n" in running.status()
    assert await running.end(signal.SIGTERM) == 0
    assert modes.pop("data") == 0o700
    assert {"lessor.db", "lessor.db-wal", "sealing-key"} <= modes.keys()
    assert set(modes.values()) == {0o600}


@pytest.mark.slow
async def test_flags_override_variables(tmp_path: Path) -> None:
    real, other = tmp_path / "real", "https://iam.example:8443"
    variables = {
        "LESSOR_LISTEN": "127.0.0.1:1",
        "LESSOR_ROOT_TOKEN": TOKEN,
        "LESSOR_AWS_ALLOWED_ENDPOINTS": other,
        "LESSOR_DATA_DIR": str(real),
    }
    async with (
        dev(tmp_path, *ANY_PORTS, **variables) as running,
        connect(running.address, TOKEN) as client,
    ):
        assert TOKEN not in running.said
        assert 'export LESSOR_TOKEN="$LESSOR_ROOT_TOKEN"\n' in running.said
        root = config_pb2.RootConfig(access_key="AKIAANOTHERANOTHERAN", secret_key="s", iam_endpoint=other)
        await client.config.SetRoot(config_pb2.SetRootRequest(config=root))
    assert "real" not in names(tmp_path)


@pytest.mark.parametrize("flag", ["--listen", "--aws-listen"])
@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:0",
        *(
            pytest.param(address, marks=pytest.mark.slow)
            for address in ("example.com:5000", "[::]:0", "unix:/run/lessor", "127.0.0.1")
        ),
    ],
)
async def test_an_address_other_than_loopback_is_refused(tmp_path: Path, flag: str, address: str) -> None:
    code, errors = await failing(tmp_path, flag, address)
    assert code == 2
    assert f"Invalid value for '{flag}'" in errors


@pytest.mark.slow
async def test_an_address_of_a_variable_must_be_loopback_too(tmp_path: Path) -> None:
    code, errors = await failing(
        tmp_path, "--aws-listen", "127.0.0.1:0", LESSOR_LISTEN="0.0.0.0:0", LESSOR_INSECURE_LISTEN="true"
    )
    assert code == 2
    assert errors == "lessor dev: LESSOR_LISTEN: 0.0.0.0:0 is not loopback; write 127.0.0.1:PORT\n"


@pytest.mark.slow
async def test_a_short_token_is_refused(tmp_path: Path) -> None:
    code, errors = await failing(tmp_path, "--token", "too-short-token")
    assert code == 2
    assert "has 15 characters; give at least 16" in errors
    assert "too-short-token" not in errors


@pytest.mark.slow
async def test_each_invalid_variable_is_printed(tmp_path: Path) -> None:
    code, errors = await failing(tmp_path, *ANY_PORTS, LESSOR_LOG_LEVEL="loud", LESSOR_NO_SUCH="1")
    assert code == 2
    assert [line.split(":")[1].strip() for line in errors.splitlines()] == [
        "LESSOR_LOG_LEVEL",
        "LESSOR_NO_SUCH",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("flag", "other"), [("--listen", "--aws-listen"), ("--aws-listen", "--listen")])
async def test_a_busy_port_is_one_line(tmp_path: Path, flag: str, other: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        code, errors = await failing(tmp_path, flag, address, other, "127.0.0.1:0")
    assert code == 1
    (line,) = [line for line in errors.splitlines() if not line.startswith("{")]
    assert line.startswith("lessor dev: ")
    assert address in line
    assert line.endswith(f"choose another address with {flag}")
    assert names(tmp_path) == []


@pytest.mark.slow
async def test_without_moto_the_error_says_what_to_install(tmp_path: Path) -> None:
    hidden = (
        "import sys; sys.modules['moto'] = None;"
        "from lessor_server.commands.dev.command import command; command()"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", hidden, stdin=DEVNULL, stderr=PIPE, env=environment(tmp_path, {})
    )
    async with asyncio.timeout(SECONDS):
        errors = (await process.communicate())[1].decode()
    assert process.returncode == 1
    assert errors == "lessor dev: the embedded AWS is not installed; run pip install 'lessor[dev]'\n"


async def test_what_moto_does_not_implement_is_an_error_of_aws_and_no_traceback(
    shared: Dev, lessor: Lessor
) -> None:
    """As SimulatePrincipalPolicy, which CheckRoot calls."""
    answer = await lessor.config.CheckRoot(config_pb2.CheckRootRequest(mount="aws"))
    assert any("NotImplemented" in warning for warning in answer.warnings)
    assert "Traceback" not in shared.errors()
    assert "Error on request" not in shared.errors()
