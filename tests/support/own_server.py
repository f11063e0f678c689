"""Runs a server of a test's own, ready to issue; those that share one use the fixtures of ``tests/e2e``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.clients import connect
from tests.support.server_process import ServerProcess, serving
from tests.support.standin_control import StandIn


@asynccontextmanager
async def own_server(
    folder: Path, aws: StandIn, settings: Mapping[str, str] | None = None
) -> AsyncIterator[ServerProcess]:
    """Run a server with the mount ``aws``, its root and the role ``app``, while the block runs."""
    given = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url, **(settings or {})}
    async with serving(folder, given) as process:
        async with connect(process.address, process.token) as lessor:
            await lessor.enable("aws", aws.url)
            await lessor.put_role("aws")
        yield process
