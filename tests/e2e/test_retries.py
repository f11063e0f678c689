"""Checks that a client with our service config has no failed call while the server restarts."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from lessor.channel import Connection
from lessor.service_config import REPEATED, service_config
from lessor.v1 import config_pb2, config_pb2_grpc
from lessor_server.app import SERVICES
from tests.support.server_process import ServerProcess

CALL_SECONDS = 60.0


@dataclass
class Caller:
    """Calls without a pause until it is stopped, in a thread, and keeps what failed."""

    channel: grpc.Channel
    metadata: tuple[tuple[str, str], ...]
    done: int = 0
    failed: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def call(self) -> None:
        """Make one call."""
        request = config_pb2.ListMountsRequest()
        config_pb2_grpc.ConfigServiceStub(self.channel).ListMounts(
            request, timeout=CALL_SECONDS, metadata=self.metadata
        )
        self.done += 1

    def run(self) -> None:
        """Call until stopped."""
        while not self.stopped.is_set():
            try:
                self.call()
            except grpc.RpcError as error:
                self.failed.append(str(error))


@pytest.mark.e2e
@pytest.mark.slow
async def test_no_call_fails_during_a_restart_of_the_server(tmp_path: Path) -> None:
    """The same calls without the config do fail."""
    server, listen = ServerProcess(), {"LESSOR_LISTEN": f"unix:{tmp_path / 'lessor.sock'}"}
    await server.start(tmp_path, listen)
    try:
        connection = Connection(server.address, server.token)
        with connection.open() as channel, connection.open(retries=False) as plain:
            callers = [Caller(channel, connection.metadata()), Caller(plain, connection.metadata())]
            with_retries, without = callers
            async with asyncio.TaskGroup() as group:
                for caller in callers:
                    await asyncio.to_thread(caller.call)
                    group.create_task(asyncio.to_thread(caller.run))
                assert await server.stop() == 0
                await server.start(tmp_path, listen)
                for caller in callers:
                    caller.stopped.set()
            await asyncio.to_thread(with_retries.call)
    finally:
        await server.kill()
    assert with_retries.failed == []
    assert with_retries.done >= 3
    assert without.failed != []


def test_the_config_names_methods_that_exist() -> None:
    methods = {service.name: set(service.methods_by_name) for service in SERVICES}
    assert all(set(names) <= methods[service] for service, names in REPEATED.items())


def test_what_issues_changes_an_etag_or_waits_for_aws_is_not_repeated() -> None:
    named = {entry["method"] for entry in json.loads(service_config())["methodConfig"][0]["name"]}
    changing = ("Put", "Delete", "Rotate", "Enable", "Disable", "SetRoot", "Generate", "Check", "Tune")
    assert not [name for name in named if name.startswith(changing)]
    assert named.isdisjoint({"WatchCredentials", "Reconcile", "Backup", "ResumeExpiry"})


def test_the_waits_are_longer_than_a_restart_takes() -> None:
    """Jitter may shorten each by a fifth."""
    policy = json.loads(service_config())["methodConfig"][0]["retryPolicy"]
    first, most = (float(policy[name].removesuffix("s")) for name in ("initialBackoff", "maxBackoff"))
    waits = [min(first * policy["backoffMultiplier"] ** n, most) for n in range(policy["maxAttempts"] - 1)]
    assert 0.8 * sum(waits) >= 9.5
