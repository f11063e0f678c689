"""An AWS of one's own: moto's server in a process of its own, with a root user and its checks switched on.

moto starts with its checks off. While they are off its root user is made; then they are switched on, and
from there on every request needs a key whose policies allow it, as with AWS.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError

from lessor_server.commands.loopback_proxy import CONTROL, LOOPBACK, address_of
from lessor_server.domain.secret import Secret
from lessor_server.settings.given import PREFIX

REGION: Final = "us-east-1"
ROOT_USER: Final = "lessor-root"
LOG_FORMAT: Final = f"{PREFIX}LOG_FORMAT"
START_SECONDS: Final = 120
_ADMIN: Final = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}
# No proxy of the surroundings may stand between, and a call sent twice would meet its own traces.
DIRECT: Final = AioConfig(proxies={}, read_timeout=START_SECONDS, retries={"total_max_attempts": 1})


class EmbeddedAwsFailed(Exception):
    """The embedded AWS did not start, or has ended while it was needed."""


class MotoMissing(Exception):
    """What the embedded AWS is made of is not installed."""

    def __init__(self) -> None:
        """Tell how to install it."""
        super().__init__("the embedded AWS is not installed; run pip install 'lessor[dev]'")


@dataclass(frozen=True, slots=True)
class EmbeddedAws:
    """Where it listens (behind no proxy), and the key of its root user."""

    url: str
    access_key: str
    secret_key: Secret


def require_moto() -> None:
    """Raise ``MotoMissing`` unless moto and what its server stands on are installed."""
    if not all(find_spec(name) for name in ("moto", "flask", "flask_cors")):
        raise MotoMissing


@asynccontextmanager
async def embedded_aws() -> AsyncIterator[EmbeddedAws]:
    """Run an embedded AWS for the length of the block, and end the block if it ends before.

    Raises:
        EmbeddedAwsFailed: Inside an ``ExceptionGroup``; it did not start, or has ended.
    """
    with socket.create_server((LOOPBACK, 0)) as listener:
        url = f"http://{address_of(listener, LOOPBACK)}"
        process = await _start(listener)
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_watch(process))
            yield await _set_up(url)
            watch.cancel()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _start(listener: socket.socket) -> Process:
    """Start the process on ``listener``: requests wait in its queue until they are served."""
    surroundings = {
        name: value for name, value in os.environ.items() if not name.startswith(PREFIX) or name == LOG_FORMAT
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lessor_server.commands.embedded_aws_process",
        LOOPBACK,
        str(listener.fileno()),
        stdin=PIPE,  # never written to: it ends with us
        stdout=DEVNULL,
        pass_fds=(listener.fileno(),),
        env={
            **surroundings,
            "MOTO_PORT": str(listener.getsockname()[1]),
            "INITIAL_NO_AUTH_ACTION_COUNT": "inf",
            "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",  # AWS's own, which moto leaves out; it takes 0.3 s
        },
        start_new_session=True,  # Ctrl-C is for us: what is drained still needs an AWS
    )


async def _watch(process: Process) -> None:
    code = await process.wait()
    raise EmbeddedAwsFailed(f"the embedded AWS has ended by itself (exit code {code}); start again")


async def _set_up(url: str) -> EmbeddedAws:
    """Make the root user and switch the checks on."""
    try:
        async with asyncio.timeout(START_SECONDS):
            aws = await _make_root(url)
            await _enforce(url)
    except (BotoCoreError, aiohttp.ClientError) as error:
        raise EmbeddedAwsFailed(f"the embedded AWS did not start: {error}") from error
    except TimeoutError:
        raise EmbeddedAwsFailed(
            f"the embedded AWS did not start in {START_SECONDS} s; start again on a machine less busy"
        ) from None
    return aws


async def _make_root(url: str) -> EmbeddedAws:
    session = aioboto3.Session()
    client = session.client(
        "iam",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id="unchecked",
        aws_secret_access_key="unchecked",
        config=DIRECT,
    )
    async with client as iam:
        await iam.create_user(UserName=ROOT_USER)
        await iam.put_user_policy(
            UserName=ROOT_USER, PolicyName="everything", PolicyDocument=json.dumps(_ADMIN)
        )
        key = (await iam.create_access_key(UserName=ROOT_USER))["AccessKey"]
    return EmbeddedAws(url, key["AccessKeyId"], Secret(key["SecretAccessKey"]))


async def _enforce(url: str) -> None:
    """Let no more request pass unchecked: moto reads the number of those as plain text."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/{CONTROL}/reset-auth", data="0") as answer,
    ):
        if answer.status != 200:
            raise EmbeddedAwsFailed(
                f"the embedded AWS did not switch its checks on (status {answer.status}); "
                "install the moto that lessor[dev] asks for"
            )
