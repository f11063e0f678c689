"""Checks what a root with a web identity token issues, without any key of its own."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from lessor.v1 import config_pb2, role_pb2
from lessor.v1.creds_pb2 import GenerateCredentialsRequest
from tests.support.clients import Lessor, connect, refused
from tests.support.gateways import token_file
from tests.support.server_process import serving
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

AUDIENCE = "sts.amazonaws.com"


def variables(aws: StandIn, *folders: Path) -> dict[str, str]:
    """Return the settings of a server whose roots' tokens lie in these folders, the default's without one."""
    named = {"LESSOR_AWS_IDENTITY_TOKEN_DIRS": ",".join(map(str, folders))} if folders else {}
    return {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url} | named


def root_of(aws: StandIn, role: str, path: str | Path) -> config_pb2.SetRootRequest:
    """Ask for a root by the token in a file."""
    config = config_pb2.RootConfig(
        iam_endpoint=aws.url,
        sts_endpoint=aws.url,
        assume_chain=[config_pb2.AssumeStep(role_arn=role)],
        identity_token_file=str(path),
    )
    return config_pb2.SetRootRequest(config=config)


@pytest.mark.slow
async def test_a_web_identity_root_issues_sessions_of_an_hour_and_no_tokens(
    tmp_path: Path, aws: StandIn
) -> None:
    web, deploy = await aws.role("web", audience=AUDIENCE), await aws.role("deploy")
    config = config_pb2.RootConfig(
        iam_endpoint=aws.url,
        sts_endpoint=aws.url,
        assume_chain=[config_pb2.AssumeStep(role_arn=web)],
        identity_token_file=token_file(tmp_path / "token", aud=AUDIENCE),
        identity_token_audience=AUDIENCE,
    )
    async with (
        serving(tmp_path, variables(aws, tmp_path)) as server,
        connect(server.address, server.token) as lessor,
    ):
        await lessor.config.EnableMount(config_pb2.EnableMountRequest())
        await lessor.config.SetRoot(config_pb2.SetRootRequest(config=config))
        await lessor.put_role(
            "", credential_type=role_pb2.Role.ASSUMED_ROLE, role_arns=[deploy], policy_document=None
        )
        request = GenerateCredentialsRequest(role="app")
        request.ttl.FromSeconds(7200)
        made = await lessor.creds.GenerateCredentials(request)
        assert made.arn.startswith("arn:aws:sts::123456789012:assumed-role/deploy/")
        assert made.security_token
        assert 3590 <= made.lease_duration.seconds <= 3600  # AWS tells its end in whole seconds
        assert made.warnings
        await lessor.put_role("", "tokens", credential_type=role_pb2.Role.FEDERATION_TOKEN)
        refusal = await refused(lessor.generate("", "tokens", ttl=900))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ROOT_KIND")


async def test_a_token_file_must_be_in_the_directories_of_the_setting(tmp_path: Path, aws: StandIn) -> None:
    await aws.forget_calls()
    web, folder = await aws.role("web", audience=AUDIENCE), tmp_path / "tokens"
    folder.mkdir()
    outside = token_file(tmp_path / "outside", aud=AUDIENCE)
    config = config_pb2.RootConfig(
        iam_endpoint=aws.url, sts_endpoint=aws.url, assume_chain=[config_pb2.AssumeStep(role_arn=web)]
    )
    async with (
        serving(tmp_path, variables(aws, folder)) as server,
        connect(server.address, server.token) as lessor,
    ):
        await lessor.config.EnableMount(config_pb2.EnableMountRequest())
        config.identity_token_file = outside
        refusal = await refused(lessor.config.SetRoot(config_pb2.SetRootRequest(config=config)))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert list(refusal.violations) == ["config.identity_token_file"]
        config.identity_token_file = str(folder / "token")
        await lessor.config.SetRoot(config_pb2.SetRootRequest(config=config))
        (folder / "token").symlink_to(outside)
        unusable = await refused(lessor.config.CheckRoot(config_pb2.CheckRootRequest()))
        assert unusable.reason == "IDENTITY_TOKEN_UNUSABLE"
        assert await aws.calls("AssumeRoleWithWebIdentity") == []
        (folder / "token").unlink()
        token_file(folder / "token", aud=AUDIENCE)
        checked = await lessor.config.CheckRoot(config_pb2.CheckRootRequest())
        assert checked.arn.startswith("arn:aws:sts::123456789012:assumed-role/web/")


@pytest.mark.slow
async def test_no_other_file_of_the_server_is_sent(tmp_path: Path, aws: StandIn) -> None:
    await aws.forget_calls()
    content = "[default]\nkey = not-a-secret\n"
    web, path = await aws.role("web", audience=AUDIENCE), tmp_path / "file"
    path.write_text(content)
    config = config_pb2.RootConfig(
        iam_endpoint=aws.url,
        sts_endpoint=aws.url,
        assume_chain=[config_pb2.AssumeStep(role_arn=web)],
        identity_token_file=str(path),
    )
    async with (
        serving(tmp_path, variables(aws, tmp_path)) as server,
        connect(server.address, server.token) as lessor,
    ):
        await lessor.config.EnableMount(config_pb2.EnableMountRequest())
        await lessor.config.SetRoot(config_pb2.SetRootRequest(config=config))
        unusable = await refused(lessor.config.CheckRoot(config_pb2.CheckRootRequest()))
        assert unusable.reason == "IDENTITY_TOKEN_UNUSABLE"
        answer = str(unusable) + server.log_file.read_text(encoding="utf-8")
    assert not any(word in answer for word in content.split() if len(word) > 3)
    assert await aws.calls() == []


async def test_no_file_of_the_data_directory_is_sent(tmp_path: Path, aws: StandIn) -> None:
    await aws.forget_calls()
    web = await aws.role("web", audience=AUDIENCE)
    async with (
        serving(tmp_path, variables(aws, tmp_path)) as server,
        connect(server.address, server.token) as lessor,
    ):
        await lessor.config.EnableMount(config_pb2.EnableMountRequest())
        token = server.data_dir / "root-token"
        token.write_text("a-root-token-in-its-file")
        for path in (token, server.data_dir / "sealing-key", f"{server.data_dir}/./lessor.db"):
            refusal = await refused(lessor.config.SetRoot(root_of(aws, web, path)))
            assert list(refusal.violations) == ["config.identity_token_file"]
        answer = set()
        for number, path in enumerate((token, server.data_dir / "sealing-key", tmp_path / "none")):
            (tmp_path / f"link{number}").symlink_to(path)
            await lessor.config.SetRoot(root_of(aws, web, tmp_path / f"link{number}"))
            unusable = await refused(lessor.config.CheckRoot(config_pb2.CheckRootRequest()))
            assert unusable.reason == "IDENTITY_TOKEN_UNUSABLE"
            answer.add(unusable.message)
        assert len(answer) == 1
    assert await aws.calls() == []


async def test_a_root_of_an_earlier_version_continues_with_a_warning(tmp_path: Path, aws: StandIn) -> None:
    web, other = await aws.role("web", audience=AUDIENCE), tmp_path / "other"
    other.mkdir()
    request = root_of(aws, web, token_file(tmp_path / "token", aud=AUDIENCE))
    check = config_pb2.CheckRootRequest()
    async with (
        serving(tmp_path, variables(aws, tmp_path)) as server,
        connect(server.address, server.token) as lessor,
    ):
        await lessor.config.EnableMount(config_pb2.EnableMountRequest())
        await lessor.config.SetRoot(request)
        assert not any("identity_token_file" in one for one in (await lessor.info()).warnings)
    async with (
        serving(tmp_path, variables(aws)) as server,
        connect(server.address, server.token) as lessor,
    ):
        assert (await lessor.config.CheckRoot(check)).arn.endswith(
            ":assumed-role/web/" + await session(lessor)
        )
        (warning,) = [one for one in (await lessor.info()).warnings if "identity_token_file" in one]
        assert "the root of aws " in warning
        assert str(tmp_path) not in warning
        refusal = await refused(lessor.config.SetRoot(request))
        assert list(refusal.violations) == ["config.identity_token_file"]
    async with (
        serving(tmp_path, variables(aws, other)) as server,
        connect(server.address, server.token) as lessor,
    ):
        unusable = await refused(lessor.config.CheckRoot(check))
        assert unusable.reason == "IDENTITY_TOKEN_UNUSABLE"


async def session(lessor: Lessor) -> str:
    """Return what the server's sessions are called."""
    return f"lessor-{(await lessor.info()).instance_id}"
