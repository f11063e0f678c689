"""A real server with an audit sink, its records, and the commands that read them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from lessor.cli.main import root as cli
from lessor_server.adapters.audit.key import AuditKey
from tests.support.audit_lines import read_independently
from tests.support.clients import Lessor, connect
from tests.support.server_process import TOKEN, ServerProcess
from tests.support.standin_control import StandIn


class Audited:
    """A server with an audit file, or with another sink."""

    def __init__(self, folder: Path, aws: StandIn, **sinks: str) -> None:
        self.folder = folder
        self.file = folder / "audit.log"
        sinks = sinks or {"LESSOR_AUDIT_FILE": str(self.file)}
        self._settings = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url, **sinks}
        self.process = ServerProcess()

    async def start(self) -> None:
        await self.process.start(self.folder, self._settings)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Lessor]:
        async with connect(self.process.address, TOKEN) as lessor:
            yield lessor

    @property
    def public(self) -> str:
        return AuditKey.load(self.process.data_dir).public

    def records(self, **fields: object) -> list[dict[str, Any]]:
        """Return the records of the file that have these values."""
        found = read_independently(self.file.read_bytes(), self.public)
        return [one for one in found if all(one.get(name) == value for name, value in fields.items())]

    def run(self, *words: str) -> Result:
        """Run a command."""
        environment = {"LESSOR_DATA_DIR": str(self.process.data_dir), "LESSOR_AUDIT_FILE": str(self.file)}
        return CliRunner().invoke(cli, list(words), env=environment, standalone_mode=False)

    def verify(self, *files: Path, last: str = "", first: str = "") -> tuple[int, str]:
        """Run ``lessor audit verify``; return its exit code and output."""
        options = [*(["--last", last] if last else []), *(["--first", first] if first else [])]
        result = self.run("audit", "verify", "--key", self.public, *options, *map(str, files or (self.file,)))
        return result.exit_code, result.output


@asynccontextmanager
async def audited(folder: Path, aws: StandIn, **sinks: str) -> AsyncIterator[Audited]:
    """Run such a server."""
    server = Audited(folder, aws, **sinks)
    await server.start()
    try:
        yield server
    finally:
        await server.process.kill()
