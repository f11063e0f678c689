"""Runs several real servers on one PostgreSQL database, as replicas."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.support.clients import Lessor, connect
from tests.support.postgres import shared_postgres
from tests.support.server_process import ServerProcess

_NUMBERS = itertools.count(1)


@dataclass(slots=True)
class ReplicaServer:
    """One server, and a client that calls it as root."""

    process: ServerProcess
    folder: Path
    environment: Mapping[str, str]
    client: Lessor = field(init=False)
    _channel: AsyncExitStack = field(default_factory=AsyncExitStack)
    _runs: bool = False

    async def start(self) -> None:
        """Start the server and connect to it."""
        await self.process.start(self.folder, self.environment)
        self.client = await self._channel.enter_async_context(
            connect(self.process.address, self.process.token)
        )
        self._runs = True

    @property
    def runs(self) -> bool:
        """Return whether it serves, or is stopped."""
        return self._runs

    async def kill(self) -> None:
        """End the server as ``kill -9`` does."""
        self._runs = False
        await self._channel.aclose()
        await self.process.kill()

    def note(self, deed: str) -> None:
        """Add to the server's log what is done to it."""
        at = datetime.fromtimestamp(time.clock_gettime(time.CLOCK_REALTIME), UTC).isoformat()
        with self.process.log_file.open("a", encoding="utf-8") as log:
            log.write(f"--- {at} process {self.process.pid} {deed}\n")

    def pause(self) -> None:
        """Stop the process, as SIGSTOP does."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue a stopped process."""
        os.kill(self.process.pid, signal.SIGCONT)


def database() -> str:
    """Create an empty database; return its URI."""
    return shared_postgres().create_database(f"replicas_{os.getpid()}_{next(_NUMBERS)}")


def replica(folder: Path, number: int, url: str, settings: Mapping[str, str]) -> ReplicaServer:
    """Return a server that is not started yet; all of a folder have the same sealing key."""
    key = folder / "sealing-key"
    if not key.exists():
        key.write_bytes(bytes(range(32)))
        key.chmod(0o600)
    own = folder / f"replica-{number}"
    own.mkdir(exist_ok=True)
    environment = {"LESSOR_STORE_URL": url, "LESSOR_SEALING_KEY": f"file:{key}", **settings}
    return ReplicaServer(ServerProcess(), own, environment)


@asynccontextmanager
async def replicas(
    folder: Path, settings: Mapping[str, str], count: int = 3
) -> AsyncIterator[list[ReplicaServer]]:
    """Run servers on a new database while the block runs; they start at the same time."""
    url = database()
    servers = [replica(folder, number, url, settings) for number in range(count)]
    try:
        async with asyncio.TaskGroup() as group:
            for one in servers:
                group.create_task(one.start())
        yield servers
    finally:
        for one in servers:
            await one.kill()
