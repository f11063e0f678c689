"""The load: concurrent gRPC callers in a process of their own, so that the server's CPU is its own.

Reads one order a line: ``{"address", "call", "clients", "count", "as_root"}``; writes one answer a line:
``{"p50_ms"}``. Each client has a connection of its own and calls again once answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from statistics import median

import grpc
import uvloop

from bench.children import Json
from lessor.v1 import creds_pb2, creds_pb2_grpc, system_pb2, system_pb2_grpc

CALLER_TOKEN = "BENCH_CALLER_TOKEN"
"""The variable with the token of the caller that is not root."""
_TIMEOUT_SECONDS = 30.0
# Channels of one process would share a connection otherwise.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)

Call = Callable[[], Awaitable[object]]


class Callers:
    """Keeps connections and makes calls on them."""

    def __init__(self, root_token: str, caller_token: str) -> None:
        """Present one of these tokens."""
        self._tokens = {True: root_token, False: caller_token}
        self._channels: dict[tuple[str, int], grpc.aio.Channel] = {}

    async def turn(self, address: str, call: str, clients: int, count: int, *, as_root: bool) -> Json:
        """Make ``count`` calls with ``clients`` at a time and tell how long one took."""
        calls = [self._call(address, number, call, as_root=as_root) for number in range(clients)]
        async with asyncio.TaskGroup() as group:  # connections are made outside of the measure
            for number in range(clients):
                group.create_task(self._channel(address, number).channel_ready())
        loop = asyncio.get_running_loop()
        left = iter(range(count))
        spans: list[float] = []

        async def client(one: Call) -> None:
            for _ in left:
                start = loop.time()
                await one()
                spans.append(loop.time() - start)

        async with asyncio.TaskGroup() as group:
            for one in calls:
                group.create_task(client(one))
        return {"p50_ms": median(spans) * 1e3}

    def _channel(self, address: str, number: int) -> grpc.aio.Channel:
        key = (address, number)
        if key not in self._channels:
            self._channels[key] = grpc.aio.insecure_channel(address, options=_OPTIONS)
        return self._channels[key]

    def _call(self, address: str, number: int, call: str, *, as_root: bool) -> Call:
        """Return one client's call: ``empty``, or a credential of the role of that name."""
        channel = self._channel(address, number)
        metadata = (("authorization", f"Bearer {self._tokens[as_root]}"),)
        if call == "empty":
            info = system_pb2_grpc.SystemServiceStub(channel).GetInfo
            empty = system_pb2.GetInfoRequest()
            return lambda: info(empty, metadata=metadata, timeout=_TIMEOUT_SECONDS)
        generate = creds_pb2_grpc.CredsServiceStub(channel).GenerateCredentials
        request = creds_pb2.GenerateCredentialsRequest(role=call)
        return lambda: generate(request, metadata=metadata, timeout=_TIMEOUT_SECONDS)


async def main() -> None:
    """Carry out orders until there are no more."""
    callers = Callers(os.environ["LESSOR_ROOT_TOKEN"], os.environ[CALLER_TOKEN])
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await callers.turn(**json.loads(line))), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
