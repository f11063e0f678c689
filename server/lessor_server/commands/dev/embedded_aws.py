"""An embedded AWS: moto's server in a separate process, with a root user and access checks."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from aiobotocore.config import AioConfig

from lessor_server.domain.secret import Secret
from lessor_server.settings.parsers import Address
from lessor_server.settings.sources import PREFIX

REGION: Final = "us-east-1"
LOG_FORMAT: Final = f"{PREFIX}LOG_FORMAT"
START_SECONDS: Final = 120
# No proxy of the environment, and no retries: a call sent twice would conflict with itself.
DIRECT: Final = AioConfig(proxies={}, read_timeout=START_SECONDS, retries={"total_max_attempts": 1})


class AddressTaken(Exception):
    """An address can't be listened on."""


class EmbeddedAwsFailed(Exception):
    """The embedded AWS did not start, or ended too early."""


class MotoMissing(Exception):
    """The packages of the embedded AWS are not installed."""

    def __init__(self) -> None:
        """Name the command that installs them."""
        super().__init__("the embedded AWS is not installed; run pip install 'lessor[dev]'")


@dataclass(frozen=True, slots=True)
class EmbeddedAws:
    """Its URL, and the key of its root user."""

    url: str
    access_key: str
    secret_key: Secret


def listen(address: Address, option: str) -> socket.socket:
    """Open a listening socket; port 0 lets the system choose. ``option`` sets the address.

    Raises:
        AddressTaken: Another process listens there, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        fix = f"stop the process there, or choose another address with {option}"
        raise AddressTaken(f"cannot listen on {address}: {why}; {fix}") from None


def address_of(listener: socket.socket, host: str) -> str:
    """Return ``host:port`` of a listening socket, in the form of a URL and a Host header."""
    return str(Address(host, listener.getsockname()[1]))


def require_moto() -> None:
    """Raise ``MotoMissing`` unless moto and the packages of its server are installed."""
    if not all(find_spec(name) for name in ("moto", "flask", "flask_cors")):
        raise MotoMissing


@asynccontextmanager
async def run_embedded_aws(listener: socket.socket, host: str) -> AsyncIterator[EmbeddedAws]:
    """Run an embedded AWS while the block runs; end the block if the embedded AWS ends first.

    It listens on ``listener``, which is closed here; its name is ``host``.

    Raises:
        EmbeddedAwsFailed: Inside an ``ExceptionGroup``; it did not start, or has ended.
    """
    own = address_of(listener, host)
    with listener:
        process = await _start(listener, host, own)
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_watch(process))
            yield await _read_key(process, f"http://{own}")
            watch.cancel()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _start(listener: socket.socket, host: str, own: str) -> Process:
    """Start the process on ``listener``: requests wait in its queue until they are served."""
    surroundings = {
        name: value for name, value in os.environ.items() if not name.startswith(PREFIX) or name == LOG_FORMAT
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lessor_server.commands.dev.embedded_aws_process",
        *(host, str(listener.fileno()), own),
        stdin=PIPE,  # never written to: the process ends when this pipe closes
        stdout=PIPE,
        pass_fds=(listener.fileno(),),
        env={
            **surroundings,
            "MOTO_PORT": str(listener.getsockname()[1]),
            # Check each request, and let no page of another origin read an answer.
            "INITIAL_NO_AUTH_ACTION_COUNT": "0",
            "MOTO_DISABLE_GLOBAL_CORS": "true",
            "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",  # AWS's own, left out by default; takes 0.3 s
        },
        start_new_session=True,  # no Ctrl-C for the process: calls that are drained still need it
    )


async def _watch(process: Process) -> None:
    code = await process.wait()
    raise EmbeddedAwsFailed(f"the embedded AWS has ended unexpectedly (exit code {code}); start again")


async def _read_key(process: Process, url: str) -> EmbeddedAws:
    """Wait for the key of the root user, which the process prints when it is ready."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
            if not line:
                await asyncio.sleep(START_SECONDS)  # the end of the process ends this block
        key = json.loads(line)
    except TimeoutError:
        raise EmbeddedAwsFailed(
            f"the embedded AWS did not start in {START_SECONDS} s; start again when the machine is less busy"
        ) from None
    return EmbeddedAws(url, key["access_key"], Secret(key["secret_key"]))
