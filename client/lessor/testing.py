"""A server for the tests of programs that use Lessor: a pytest fixture that runs ``lessor dev``.

Write ``from lessor.testing import dev_server`` in a ``conftest.py``; it needs the extra ``lessor[dev]``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Final

import pytest

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0


class DevServerFailed(RuntimeError):
    """``lessor dev`` did not start; the text has its last lines."""


@dataclass(frozen=True, slots=True)
class DevServer:
    """A running ``lessor dev``; its repr does not contain the token.

    Attributes:
        address: The address for ``lessor.Client``.
        token: The root token.
        aws_url: The URL of the embedded AWS, for ``endpoint_url`` of AWS's SDKs.
        http_url: The URL of Vault's API and the console.
    """

    address: str
    token: str = field(repr=False)
    aws_url: str
    http_url: str = ""

    @property
    def environ(self) -> dict[str, str]:
        """Return the variables for a client of this server."""
        return {"LESSOR_ADDR": self.address, "LESSOR_TOKEN": self.token}


@contextmanager
def run_dev_server(*arguments: str, environ: Mapping[str, str] = os.environ) -> Iterator[DevServer]:
    """Run ``lessor dev`` on free ports until the end of the block, or of this process.

    Raises:
        DevServerFailed: It ended, or was not ready within 60 s.
    """
    token = f"{random.SystemRandom().getrandbits(256):064x}"
    # LESSOR_ variables of the caller are settings of another server; the token is not for the process list.
    kept = {name: value for name, value in environ.items() if not name.startswith("LESSOR_")}
    command = [sys.executable, "-m", "lessor.cli.main", "dev", "--until-eof"]
    free = "127.0.0.1:0"
    ports = ["--listen", free, "--aws-listen", free, "--http-listen", free]
    with subprocess.Popen(  # noqa: S603 - the test itself names the arguments
        [*command, *ports, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**kept, "LESSOR_ROOT_TOKEN": token},
    ) as process:
        try:
            yield _wait_until_ready(process, token)
        finally:
            _stop(process)


@pytest.fixture(scope="session")
def dev_server() -> Iterator[DevServer]:
    """Run ``lessor dev`` for all tests of a session."""
    with run_dev_server() as server:
        yield server


def _wait_until_ready(process: subprocess.Popen[str], token: str) -> DevServer:
    """Read the output of a server until it is ready; a thread reads the rest, so that no pipe fills up."""
    assert process.stdout is not None
    late = threading.Timer(START_SECONDS, process.kill)
    late.start()
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("ready "):
                found = dict(part.partition("=")[::2] for part in line.split()[1:])
                threading.Thread(target=_drain, args=(process.stdout,), daemon=True).start()
                return DevServer(found["grpc"], token, found["aws"], found.get("http", ""))
    finally:
        late.cancel()
    raise DevServerFailed("".join(lines[-20:]).strip() or "lessor dev ended without output")


def _drain(output: IO[str]) -> None:
    with suppress(OSError, ValueError):  # closed meanwhile
        for _ in output:
            pass


def _stop(process: subprocess.Popen[str]) -> None:
    """End a server as its terminal would; kill it if it does not end."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
