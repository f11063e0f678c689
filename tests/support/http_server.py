"""Runs ``lessor server`` with its HTTP edge, for clients of Vault's API and browsers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.support import access_server
from tests.support.clients import NOBODY_THERE
from tests.support.server_process import ServerProcess, serving
from tests.support.standin_control import StandIn

DENY: Final = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Deny", "Action": "iam:*", "Resource": "*"}],
}
"""A policy for which the linter has no warning."""
DENY_TEXT: Final = json.dumps(DENY)


@asynccontextmanager
async def serving_http(folder: Path, aws: StandIn, *tables: str) -> AsyncIterator[ServerProcess]:
    """Run a server over HTTP for the length of the block; ``tables`` are those of its access file, if any."""
    settings = {
        "LESSOR_AWS_ALLOWED_ENDPOINTS": f"{aws.url},{NOBODY_THERE}",
        "LESSOR_HTTP_LISTEN": "127.0.0.1:0",
    }
    if tables:
        access_server.write(folder / "access.toml", *tables)
        settings["LESSOR_ACCESS_FILE"] = str(folder / "access.toml")
    async with serving(folder, settings) as process:
        yield process
