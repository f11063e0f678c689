"""Runs grpcurl as a user does: without proto files, only by reflection."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

_BINARY = Path(sys.executable).parent / "grpcurl"


@dataclass(frozen=True, slots=True)
class Answer:
    """The output of grpcurl, and its exit code: 0 for OK, else 64 plus the status code of the call."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """Return the response; AssertionError with grpcurl's output if the call failed."""
        assert self.code == 0, self.err
        return cast("dict[str, Any]", json.loads(self.out))


class Grpcurl:
    """A grpcurl for one server; it sends the token, if any, in each call."""

    def __init__(self, address: str, token: str = "") -> None:
        """Call ``address``."""
        self._address = address
        self._flags = ["-plaintext", *(("-H", f"authorization: Bearer {token}") if token else ())]

    async def call(self, method: str, **request: object) -> Answer:
        """Call ``Service.Method`` of lessor.v1, or a full name with a slash, with a request in JSON."""
        name = method if "/" in method else f"lessor.v1.{method.replace('.', '/')}"
        return await self._run("-d", json.dumps(request), self._address, name)

    async def list(self, *names: str) -> Answer:
        """List the services, or the methods of one."""
        return await self._run(self._address, "list", *names)

    async def describe(self, *names: str) -> Answer:
        """Describe everything, or one symbol."""
        return await self._run(self._address, "describe", *names)

    async def _run(self, *words: str) -> Answer:
        process = await asyncio.create_subprocess_exec(
            str(_BINARY),
            *self._flags,
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return Answer(process.returncode, out.decode(), err.decode())
