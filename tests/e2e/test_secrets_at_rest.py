"""Searches the data directory for every secret, and edits its rows as a thief would."""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2, system_pb2
from tests.support.clients import ROOT_KEY, ROOT_SECRET, Lessor, connect, refused
from tests.support.server_process import ServerProcess, serving
from tests.support.standin_control import StandIn
from tests.support.standin_fixtures import aws, url

__all__ = ["aws", "url"]
pytestmark = pytest.mark.e2e

WEEK = Duration(seconds=7 * 86_400)
REQUEST = "11111111-1111-4111-8111-111111111111"


async def furnish(lessor: Lessor, aws: StandIn) -> list[str]:
    """Store and issue everything that has a secret; return the secrets."""
    await aws.ask("POST", "root", {"access_key_id": ROOT_KEY})
    arn = await aws.role("deploy")
    await aws.ask("POST", "call", {"action": "CreateUser", "UserName": "nightly"})
    await lessor.enable("aws", aws.url)
    await lessor.put_role("aws")
    kind = role_pb2.Role.ASSUMED_ROLE
    session = role_pb2.Role(name="deploy", credential_type=kind, role_arns=[arn])
    await lessor.roles.PutRole(role_pb2.PutRoleRequest(mount="aws", role=session))
    static = role_pb2.StaticRole(name="nightly", username="nightly", rotation_period=WEEK)
    await lessor.roles.PutStaticRole(role_pb2.PutStaticRoleRequest(mount="aws", static_role=static))
    secrets = [ROOT_SECRET]
    for asked in (
        creds_pb2.GenerateCredentialsRequest(mount="aws", role="app", request_id=REQUEST),
        creds_pb2.GenerateCredentialsRequest(mount="aws", role="deploy", role_arn=arn),
    ):
        made = await lessor.creds.GenerateCredentials(asked)
        secrets += [made.secret_key, made.security_token]
    read = creds_pb2.GetStaticCredentialsRequest(mount="aws", role="nightly")
    for _ in range(2):
        secrets.append((await lessor.creds.GetStaticCredentials(read)).secret_key)
        await lessor.roles.RotateStaticRole(role_pb2.RotateStaticRoleRequest(mount="aws", name="nightly"))
    await lessor.config.RotateRoot(config_pb2.RotateRootRequest(mount="aws"))
    return [secret for secret in secrets if secret]


def forms(secret: bytes) -> set[bytes]:
    """Return a secret as it could be written."""
    return {
        secret,
        secret.hex().encode(),
        base64.b64encode(secret),
        secret.decode("latin-1").encode("utf-16-le"),
    }


def require_none(folder: Path, secrets: list[bytes], *, but: tuple[str, ...] = ()) -> int:
    """Check that no file below a folder holds one of the secrets; return how many files were read."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name not in but]
    for file in files:
        content = file.read_bytes()
        for secret in secrets:
            assert not any(form in content for form in forms(secret)), file.name
    return len(files)


async def test_no_secret_is_in_the_database_a_backup_or_the_audit(tmp_path: Path, aws: StandIn) -> None:
    audit = tmp_path / "calls.jsonl"
    settings = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url, "LESSOR_AUDIT_FILE": str(audit)}
    async with serving(tmp_path, settings) as server:
        data = server.data_dir
        async with connect(server.address, server.token) as lessor:
            secrets = [secret.encode() for secret in await furnish(lessor, aws)]
            await lessor.system.Backup(system_pb2.BackupRequest(path="before.db"))
            secrets += [server.token.encode(), (data / "sealing-key").read_bytes()]
            rotated = await lessor.system.RotateSealingKey(system_pb2.RotateSealingKeyRequest())
            assert rotated.resealed >= 2
            await lessor.system.Backup(system_pb2.BackupRequest(path="after.db"))
            assert len(secrets) >= 8
            written = {file.name for file in data.iterdir()}
            assert written >= {"lessor.db-wal", "before.db", "after.db", "audit-state"}
            assert require_none(tmp_path, secrets, but=("sealing-key", "root-token")) >= 4
        await server.stop()
        records = audit.read_text()
        assert all(call in records for call in ("GenerateCredentials", "GetStaticCredentials", "Backup"))
        assert require_none(tmp_path, secrets, but=("sealing-key", "root-token")) >= 5
        assert server.log_file.is_relative_to(tmp_path)


def edit(server: ServerProcess, *statements: str) -> None:
    """Run statements on the database of a stopped server."""
    with closing(sqlite3.connect(server.data_dir / "lessor.db", isolation_level=None)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount == 1


async def test_an_edited_database_grants_nothing_and_says_so(tmp_path: Path, aws: StandIn) -> None:
    settings = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}
    server = ServerProcess()
    await server.start(tmp_path, settings)
    async with connect(server.address, server.token) as lessor:
        await lessor.enable("aws", aws.url)
        await lessor.put_role("aws")
        await lessor.put_role("aws", "other")
        asked = creds_pb2.GenerateCredentialsRequest(mount="aws", role="app", request_id=REQUEST)
        lease_id = (await lessor.creds.GenerateCredentials(asked)).lease_id
    await server.stop()
    edit(
        server,
        "UPDATE roles SET body = replace(body, 's3:GetObject', 's3:*') WHERE name = 'app'",
        "UPDATE leases SET max_expires_us = max_expires_us + 3600000000",
    )
    await server.start(tmp_path, settings)
    try:
        async with connect(server.address, server.token) as lessor:
            found = await lessor.leases.LookupLease(lease_pb2.LookupLeaseRequest(lease_id=lease_id))
            assert found.lease.lease_id == lease_id
            assert len(found.warnings) == 1
            again = creds_pb2.GenerateCredentialsRequest(mount="aws", role="other", request_id=REQUEST)
            for call in (
                lessor.generate("aws"),
                lessor.renew(lease_id),
                lessor.roles.GetRole(role_pb2.GetRoleRequest(mount="aws", name="app")),
            ):
                refusal = await refused(call)
                assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
                assert refusal.reason == "ROW_TAMPERED"
            assert await lessor.creds.GenerateCredentials(again)
            warnings = "\n".join((await lessor.info()).warnings)
            assert "roles aws/app" in warnings
            assert f"leases {lease_id}" in warnings
            revoked = await lessor.revoke(lease_id)
            assert revoked.outcome == lease_pb2.RevokeLeaseResponse.GONE
            await lessor.roles.DeleteRole(role_pb2.DeleteRoleRequest(mount="aws", name="app"))
            await lessor.put_role("aws")
            assert await lessor.generate("aws")
        errors = [line for line in server.log() if line["event"] == "tampered_row"]
        assert {(line["table"], line["level"]) for line in errors} == {
            ("roles", "error"),
            ("leases", "error"),
        }
    finally:
        await server.kill()
