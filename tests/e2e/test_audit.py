"""Checks the audit of a real server: what is recorded, what is refused without it, what a kill leaves."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2

from lessor.v1 import config_pb2, creds_pb2, lease_pb2
from lessor_server.services.audit import UNAUTHENTICATED_RECORDS
from tests.support.audited_server import audited
from tests.support.clients import ROOT_SECRET, Lessor, connect, nothing_left, refused, until, users_of
from tests.support.server_process import TOKEN
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


async def last_of(lessor: Lessor) -> str:
    """Return SEQ:HASH of the only sink, as an operator notes it."""
    (sink,) = (await lessor.info()).audit_sinks
    return f"{sink.last_seq}:{sink.last_hash}"


async def test_the_life_of_a_lease_is_recorded_and_no_secret_is(tmp_path: Path, aws: StandIn) -> None:
    secrets = [ROOT_SECRET, TOKEN]
    async with audited(tmp_path, aws) as server:
        async with server.connect() as lessor:
            await lessor.enable("aws", aws.url)
            await lessor.put_role("aws")
            request = creds_pb2.GenerateCredentialsRequest(role="app", reason="deploy 42")
            call = lessor.creds.GenerateCredentials(request)
            issued = await call
            secrets += [issued.secret_key]
            ids = dict(await call.trailing_metadata())
            await lessor.renew(issued.lease_id)
            await lessor.revoke(issued.lease_id)
            await lessor.info()
            await until(lambda: asyncio.to_thread(server.records, event="revoked"), bool)
            (sink,) = (await lessor.info()).audit_sinks
            assert (sink.name, sink.ok) == ("file", True)
        pair = server.records(request=ids["lessor-request-id"])
        assert [one["kind"] for one in pair] == ["request", "response"]
        assert {one["rpc"] for one in pair} == {"CredsService.GenerateCredentials"}
        response = pair[1]
        assert (response["identity"], response["auth_method"], response["decision"]) == (
            "root",
            "root",
            "allowed",
        )
        assert (response["path"], response["capability"]) == ("aws/creds/app", "read")
        assert (response["caller_reason"], response["status"]) == ("deploy 42", "OK")
        assert response["lease_id"] == issued.lease_id
        assert response["aws_request_ids"]
        hashed = server.run("audit", "hash", issued.access_key).output.strip()
        assert response["access_key_hmac"] == hashed
        history = server.run("lease", "history", issued.lease_id)
        assert "deploy 42" in history.output
        assert "revoked" in history.output
        assert "LeaseService.RevokeLease" in history.output
        assert await server.process.stop() == 0
        content = server.file.read_text()
        assert not [secret for secret in secrets if secret in content]
        assert issued.access_key not in content
        assert server.verify()[0] == 0
        assert "every record before it is signed" in server.verify()[1]
        assert server.run("audit", "key").output.strip() == server.public


async def test_refusals_of_unknown_callers_are_bounded(tmp_path: Path, aws: StandIn) -> None:
    async with audited(tmp_path, aws) as server:
        async with connect(server.process.address, "wrong-token-of-a-stranger") as stranger:
            await asyncio.gather(*(refused(stranger.info()) for _ in range(60)))
        found = await until(
            lambda: asyncio.to_thread(server.records, decision="unauthenticated"),
            lambda all_: sum(one.get("count", 1) for one in all_) == 60,
        )
        times = sorted(datetime.fromisoformat(one["time"]) for one in found if "count" not in one)
        in_a_second = [one for one in times if one < times[0] + timedelta(seconds=0.9)]
        assert len(in_a_second) <= UNAUTHENTICATED_RECORDS == 10
        assert any("count" in one for one in found)
        assert "stranger" not in server.file.read_text()


async def test_without_a_sink_only_revocations_and_reads_go_on(tmp_path: Path, aws: StandIn) -> None:
    """The collector is away from the start, comes, and is away again."""
    path = tmp_path / "collector"
    received = bytearray()
    writers: list[asyncio.StreamWriter] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while data := await reader.read(1 << 16):
            received.extend(data)

    def requests() -> list[dict[str, Any]]:
        return [json.loads(line) for line in bytes(received).splitlines() if line]

    async with audited(tmp_path, aws, LESSOR_AUDIT_SOCKET=str(path)) as server, server.connect() as lessor:
        enable = config_pb2.EnableMountRequest(mount="aws")
        refusal = await refused(lessor.config.EnableMount(enable))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "AUDIT_UNAVAILABLE")
        assert await lessor.health() == health_pb2.HealthCheckResponse.NOT_SERVING
        assert any("audit sink socket" in one for one in (await lessor.info()).warnings)

        collector = await asyncio.start_unix_server(collect, path)
        await until(lessor.health, lambda status: status == health_pb2.HealthCheckResponse.SERVING)
        await lessor.enable("aws", aws.url)
        await lessor.put_role("aws")
        leases = [(await lessor.generate("aws")).lease_id for _ in range(2)]

        collector.close()
        for writer in writers:
            writer.close()
        path.unlink(missing_ok=True)
        before = len(await users_of(aws, "aws"))
        refusal = await refused(until_refused(lessor))
        assert refusal.reason == "AUDIT_UNAVAILABLE"
        assert (
            await refused(lessor.config.GetRoot(config_pb2.GetRootRequest()))
        ).reason == "AUDIT_UNAVAILABLE"
        assert len(await users_of(aws, "aws")) <= before + 1
        await lessor.revoke(leases[0])
        await lessor.leases.CountLeases(lease_pb2.CountLeasesRequest(prefix="aws/"))
        revoke = lease_pb2.RevokePrefixRequest(prefix="aws/", sync=True)
        async for _ in lessor.leases.RevokePrefix(revoke):
            pass
        await nothing_left(aws, "aws")

        async with await asyncio.start_unix_server(collect, path):
            await until(lessor.health, lambda status: status == health_pb2.HealthCheckResponse.SERVING)
            await lessor.generate("aws")
        revoked = [one for one in requests() if one.get("rpc") == "LeaseService.RevokeLease"]
        assert [one["kind"] for one in revoked] == ["request", "response"]


async def until_refused(lessor: Lessor) -> None:
    """Issue until the server has noticed that the collector is away."""
    while True:
        await lessor.generate("aws")


async def test_a_kill_between_effect_and_record_leaves_a_request_without_a_response(
    tmp_path: Path, aws: StandIn
) -> None:
    async with audited(tmp_path, aws) as server:
        async with server.connect() as lessor:
            await lessor.enable("killed", aws.url)
            await lessor.put_role("killed")
            await aws.fault("hang_after", "CreateAccessKey")
            task = asyncio.ensure_future(lessor.generate("killed", ttl=600))
            await until(lambda: users_of(aws, "killed"), bool)
            await until(
                lambda: asyncio.to_thread(server.records, rpc="CredsService.GenerateCredentials"), bool
            )
            await server.process.kill()
            with pytest.raises(grpc.aio.AioRpcError):
                await task
        await aws.clear_faults()
        await server.start()
        async with server.connect() as lessor:
            await nothing_left(aws, "killed")
            await until(lambda: asyncio.to_thread(server.records, event="revoked"), bool)
            assert not [one for one in (await lessor.info()).warnings if "audit" in one]
            assert server.verify(last=await last_of(lessor))[0] == 0
        issues = server.records(rpc="CredsService.GenerateCredentials")
        assert [one["kind"] for one in issues] == ["request"]


async def test_a_file_is_rotated_under_traffic(tmp_path: Path, aws: StandIn) -> None:
    async with audited(tmp_path, aws) as server, server.connect() as lessor:
        await lessor.enable("aws", aws.url)
        await lessor.put_role("aws")
        old = tmp_path / "audit.log.1"
        for number in range(12):
            await lessor.generate("aws")
            if number == 5:
                server.file.rename(old)
                server.process.hang_up()
        await until(lambda: asyncio.to_thread(server.file.exists), bool)
        await lessor.generate("aws")
        last = await last_of(lessor)
        assert server.verify(old, server.file, last=last)[0] == 0
        assert server.verify(server.file, last=last)[0] == 1
        before = json.loads(old.read_bytes().splitlines()[-1])
        first = f"{before['seq']}:{before['hash']}"
        assert server.verify(server.file, last=last, first=first)[0] == 0
        assert server.verify(server.file, old)[0] == 1


def stored_seq(state: Path) -> int:
    """Return the number of the last record that the data directory knows of."""
    stored = json.loads(state.read_text(encoding="utf-8"))
    return int(stored["sinks"]["file"]["written"].partition(":")[0])


async def test_a_tail_cut_off_while_the_server_was_stopped_is_reported(tmp_path: Path, aws: StandIn) -> None:
    async with audited(tmp_path, aws) as server:
        async with server.connect() as lessor:
            await lessor.enable("aws", aws.url)
            (sink,) = (await lessor.info()).audit_sinks
            state = server.process.data_dir / "audit-state"
            await until(lambda: asyncio.to_thread(stored_seq, state), lambda seq: seq > sink.last_seq)
        await server.process.kill()
        lines = server.file.read_bytes().splitlines(keepends=True)
        server.file.write_bytes(b"".join(lines[:-2]))
        await server.start()
        async with server.connect() as lessor:
            assert any("not as the server left it" in one for one in (await lessor.info()).warnings)
            assert server.verify(last=await last_of(lessor))[0] == 1
        assert [line for line in server.process.log() if line["event"] == "audit_records_missing"]


async def test_a_stream_of_credentials_records_each(tmp_path: Path, aws: StandIn) -> None:
    async with audited(tmp_path, aws) as server, server.connect() as lessor:
        await lessor.enable("aws", aws.url)
        await lessor.put_role("aws")
        request = creds_pb2.WatchCredentialsRequest(role="app", ttl=Duration(seconds=600))
        stream = lessor.creds.WatchCredentials(request)
        issued = await stream.read()
        assert isinstance(issued, creds_pb2.WatchCredentialsResponse)
        assert [one["kind"] for one in server.records(rpc="CredsService.WatchCredentials")] == [
            "request",
            "response",
        ]
        assert server.records(lease_id=issued.lease_id)
        stream.cancel()


async def test_a_refused_call_gets_the_id_of_its_record(tmp_path: Path, aws: StandIn) -> None:
    async with audited(tmp_path, aws) as server, server.connect() as lessor:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await lessor.lookup("aws/creds/app/" + "0" * 24)
        sent = dict(refusal.value.trailing_metadata())
        assert "grpc-status-details-bin" in sent
        (record,) = await until(
            lambda: asyncio.to_thread(server.records, request=sent["lessor-request-id"]), bool
        )
        assert (record["status"], record["decision"]) == ("NOT_FOUND", "allowed")
