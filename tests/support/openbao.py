"""Runs OpenBao in memory, as another reading of policies."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

_BINARY: Final = Path(sys.executable).parent / "bao"
_ROOT: Final = "root-of-the-tests"
_TRIES: Final = 200


@dataclass(frozen=True, slots=True)
class OpenBao:
    """A server; ``session`` sends the root token."""

    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, body: object, token: str = _ROOT) -> dict[str, Any]:
        """Return the answer of a call, which must succeed."""
        headers = {"X-Vault-Token": token}
        async with self.session.request(method, f"/v1/{path}", json=body, headers=headers) as answer:
            assert answer.status in {200, 204}, await answer.text()
            found: dict[str, Any] = await answer.json() if answer.status == 200 else {}
            return found

    async def capabilities(
        self, policies: Sequence[Mapping[str, Sequence[str]]], paths: Sequence[str]
    ) -> dict[str, set[str]]:
        """Return the capabilities on each path of a token that has all ``policies``.

        A policy maps patterns to capabilities.
        """
        names = []
        for index, policy in enumerate(policies):
            rules = {pattern: {"capabilities": list(able)} for pattern, able in policy.items()}
            await self.ask("PUT", f"sys/policies/acl/p{index}", {"policy": json.dumps({"path": rules})})
            names.append(f"p{index}")
        created = {"policies": names, "no_default_policy": True, "type": "batch"}
        token = (await self.ask("POST", "auth/token/create", created))["auth"]["client_token"]
        answer = await self.ask("POST", "sys/capabilities", {"token": token, "paths": list(paths)})
        return {path: set(answer["data"][path]) for path in paths}


@asynccontextmanager
async def openbao() -> AsyncIterator[OpenBao]:
    """Start a server that keeps everything in memory, and end it."""
    port = _free_port()
    options = (f"-dev-listen-address=127.0.0.1:{port}", f"-dev-root-token-id={_ROOT}", "-dev-no-store-token")
    process = await asyncio.create_subprocess_exec(
        *(str(_BINARY), "server", "-dev", *options),
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            await _wait_until_ready(session, process)
            yield OpenBao(session)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def _wait_until_ready(session: aiohttp.ClientSession, process: asyncio.subprocess.Process) -> None:
    for _ in range(_TRIES):
        assert process.returncode is None, "OpenBao has ended"
        with suppress(aiohttp.ClientError):
            async with session.get("/v1/sys/health") as answer:
                if answer.status == 200:
                    return
        await asyncio.sleep(0.1)
    raise AssertionError("OpenBao does not answer")
