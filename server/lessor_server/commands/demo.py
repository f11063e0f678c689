"""``lessor demo``: a tutorial that runs the commands as a user would, and shows their output."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Final

import click
import uvloop
from botocore.exceptions import BotoCoreError

from lessor_server.commands.aws_use import KEY_REFUSED, AwsSaidNo, Key, describe_regions, list_users
from lessor_server.commands.cli_errors import report_errors
from lessor_server.commands.dev.embedded_aws import REGION, MotoMissing, require_moto
from lessor_server.commands.dev.mount import MOUNT
from lessor_server.commands.dev.options import draw_token
from lessor_server.commands.dev.process import DevNotReady, dev_process
from lessor_server.domain.secret import Secret
from lessor_server.settings.sources import PREFIX

ROLE: Final = "reader"
WRONG_VERSION, RIGHT_VERSION, OLD_VERSION = "2023-11-12", "2012-10-17", "2008-10-17"
SHORT_TTL: Final = "5s"
COMMAND_SECONDS: Final = 60.0
MAX_LOOKUPS: Final = 60
REFUSED, TRY_AGAIN, EXISTS = 1, 6, 7
"""Exit codes of ``lessor``."""
TRIES: Final = 3
_FIELD: Final = re.compile(r"(?m)^([a-z_]+) +(\S.*)$")
_SECRET: Final = re.compile(r"(?m)^(secret_key +)(\S{4})\S+$")


class StepFailed(Exception):
    """A step of the tour had an unexpected result."""


REPORTED = (BotoCoreError, DevNotReady, MotoMissing, OSError, StepFailed)


@dataclass(frozen=True, slots=True)
class DemoServer:
    """The server of the tour, with its token and the URL of its AWS."""

    address: str
    token: Secret
    aws: str

    def environment(self) -> Mapping[str, str]:
        """Return a command's environment, without variables for other servers."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        return {**plain, "LESSOR_ADDR": self.address, "LESSOR_TOKEN": self.token.reveal()}


class Tour:
    """Runs the steps on one server, and stops at the first unexpected result."""

    def __init__(self, place: DemoServer, say: Callable[[str], None]) -> None:
        """Run commands at ``place``; ``say`` shows a line."""
        self._place = place
        self._say = say

    async def walk(self) -> None:
        """Run all steps; raise ``StepFailed`` for the first that fails."""
        await self._see_the_engine()
        await self._write_a_role()
        issued = await self._issue()
        await self._use(issued)
        await self._renew(issued)
        await self._revoke(issued)
        await self._let_expire()

    async def _see_the_engine(self) -> None:
        self._step("The engine: `lessor dev` has enabled it and set its root, a key of the embedded AWS")
        await self._lessor("enable", MOUNT, code=EXISTS)
        root = await self._lessor("config", "root", "get")
        self._require("secret_key" not in root, "the root is shown without its secret")
        self._note("The secret key is sealed; no command shows it.")

    async def _write_a_role(self) -> None:
        self._step("A role: what its users may do")
        refused = await self._put_role(WRONG_VERSION, code=REFUSED)
        self._require(RIGHT_VERSION in refused and OLD_VERSION in refused, "the error names both versions")
        self._note(
            "IAM has two versions of its policy language. A typo is reported here, not at the first issue."
        )
        stored = _fields(await self._put_role(RIGHT_VERSION))
        self._require(stored.get("name") == ROLE, "the role is stored")

    async def _issue(self) -> Mapping[str, str]:
        self._step("Credentials: a new IAM user")
        issued = _fields(await self._lessor("creds", ROLE))
        self._require(issued.get("lease_renewable") == "yes", "the lease can be renewed")
        return issued

    async def _use(self, issued: Mapping[str, str]) -> None:
        self._step("The key can do what the role allows, and nothing else")
        await self._list_regions(issued)
        self._note("With it the AWS SDK calls iam:ListUsers:")
        await self._expect_refusal(list_users(self._key(issued)), {"AccessDenied"})

    async def _renew(self, issued: Mapping[str, str]) -> None:
        self._step("The lease: renewed while it is needed")
        renewed = _fields(await self._lessor("lease", "renew", issued["lease_id"], "--increment", "1h"))
        self._require(renewed.get("lease_duration") == "1h", "the lease now lasts one hour")

    async def _revoke(self, issued: Mapping[str, str]) -> None:
        self._step("The end: after the revocation AWS refuses the key immediately")
        revoked = _fields(await self._lessor("lease", "revoke", issued["lease_id"], "--sync"))
        self._require(revoked.get("outcome") == "GONE", "the user is deleted")
        await self._expect_key_refused(issued)

    async def _let_expire(self) -> None:
        self._step(f"Without a revocation: a lease of {SHORT_TTL} expires")
        issued = _fields(await self._lessor("creds", ROLE, "--ttl", SHORT_TTL))
        await self._list_regions(issued)
        self._note(f"Waiting {SHORT_TTL} …")
        await self._wait_until_gone(issued["lease_id"])
        await self._expect_key_refused(issued)

    # --- parts of the steps ----------------------------------------------------------------------

    async def _put_role(self, version: str, code: int = 0) -> str:
        """Show a policy of ``version``, put it into the role, and return what the command printed."""
        allow = {"Effect": "Allow", "Action": "ec2:DescribeRegions", "Resource": "*"}
        policy = json.dumps({"Version": version, "Statement": [allow]})
        words = ("role", "put", ROLE, "--type", "iam_user", "--policy-document", "-")
        self._say(f"  $ echo '{policy}' |")
        return await self._lessor(*words, code=code, stdin=policy, prompt="     ")

    async def _wait_until_gone(self, lease_id: str) -> None:
        """Look a lease up until it has ended; show the last output."""
        words = ("lease", "lookup", lease_id)
        for _ in range(MAX_LOOKUPS):
            _, printed = await self._run(words)
            if _fields(printed).get("state") == "GONE":
                self._typed(words)
                self._show(printed)
                return
        raise StepFailed("the lease has not ended")

    async def _lessor(self, *words: str, code: int = 0, stdin: str = "", prompt: str = "  $ ") -> str:
        """Run a command, show it and its output, and return the output; it must exit with ``code``.

        It is run up to three times if it says "try again", as on a machine that is too busy.
        """
        tries = 0
        while True:
            tries += 1
            self._typed(words, prompt)
            ended, printed = await self._run(words, stdin)
            self._show(printed)
            if ended != TRY_AGAIN or tries == TRIES:
                break
        self._require(ended == code, f"`lessor {words[0]}` exits with {code}, not with {ended}")
        return printed

    async def _run(self, words: Collection[str], stdin: str = "") -> tuple[int | None, str]:
        """Run a command and return its exit code and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lessor.cli.main", *words),
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            env=self._place.environment(),
        )
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                printed, _ = await process.communicate(stdin.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode, printed.decode()

    def _key(self, issued: Mapping[str, str]) -> Key:
        return Key(self._place.aws, issued["access_key"], Secret(issued["secret_key"]))

    async def _list_regions(self, issued: Mapping[str, str]) -> None:
        self._note("With it the AWS SDK calls ec2:DescribeRegions:")
        try:
            found = await describe_regions(self._key(issued))
        except AwsSaidNo as no:
            raise StepFailed(f"the key should list the regions, but AWS answers {no}") from None
        self._show(f"{', '.join(found[:3])}, … {len(found)} regions")
        self._require(REGION in found, f"{REGION} is among them")

    async def _expect_key_refused(self, issued: Mapping[str, str]) -> None:
        self._note("With the key the AWS SDK calls ec2:DescribeRegions:")
        await self._expect_refusal(describe_regions(self._key(issued)), KEY_REFUSED)

    async def _expect_refusal(self, use: Coroutine[object, object, object], codes: Collection[str]) -> None:
        """Make a call that AWS must refuse with one of ``codes``, and show AWS's error."""
        try:
            await use
        except AwsSaidNo as no:
            self._show(str(no))
            self._require(no.code in codes, f"AWS refuses with {' or '.join(sorted(codes))}")
            return
        raise StepFailed("AWS allowed a call that it should refuse")

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise StepFailed(f"not as expected: {what}")

    # --- output ---------------------------------------------------------------------------------

    def _step(self, title: str) -> None:
        self._say(f"\n{title}")

    def _typed(self, words: Collection[str], prompt: str = "  $ ") -> None:
        self._say(f"{prompt}lessor {' '.join(words)}")

    def _show(self, text: str) -> None:
        """Show what a command printed, and of each secret only the beginning."""
        for line in _SECRET.sub(r"\1\2…", text).splitlines():
            self._say(f"    {line}".rstrip())

    def _note(self, text: str) -> None:
        self._say(f"  {text}")


def _fields(printed: str) -> dict[str, str]:
    """Return the fields that a command printed, one a line."""
    return {name: value.rstrip() for name, value in _FIELD.findall(printed)}


@click.command("demo")
def command() -> None:
    """Show step by step what the service does, with an embedded AWS; needs no setup, leaves nothing behind.

    Exits with 0 if every step had the expected result.
    """
    with report_errors("demo", REPORTED):
        require_moto()
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]  # the user's profile or endpoint must not send the SDK to another AWS
        uvloop.run(run_demo())


async def run_demo() -> None:
    """Start a server, run the tour with it, stop it."""
    token = draw_token(random.SystemRandom())
    click.echo("Starting a server and an embedded AWS …")
    async with dev_process(token) as dev:
        await Tour(DemoServer(dev.grpc, token, dev.aws), click.echo).walk()
    click.echo("\nThe demo is complete; its server and AWS have ended. `lessor dev` runs until you stop it.")


if __name__ == "__main__":
    command()
