"""Forks a process with the stand-in for AWS and calls its control API, async or blocking."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.client import HTTPConnection
from typing import cast
from urllib.parse import urlsplit

import aiohttp

from tests.support.forked import forked_standin

Json = dict[str, object]


@contextmanager
def run_server(
    *, latency: float = 0.0, account: str = "123456789012", visible_after: float = 0.0
) -> Iterator[str]:
    """Run a stand-in and yield its URL; it ends with the block, or with this process."""
    words = ["--port", "0", "--until-eof", "--latency", str(latency)]
    words += ["--account", account, "--visible-after", str(visible_after)]
    process, keyboard = forked_standin(words)
    with process.output, keyboard:
        try:
            word, _, url = process.output.readline().decode().strip().partition(" ")
            if word != "ready":
                message = "the stand-in for AWS did not start"
                raise RuntimeError(message)
            yield url
        finally:
            process.kill()
            process.wait()


def ask(url: str, method: str, what: str, body: object = None) -> Json:
    """Send one control request, blocking; RuntimeError with the stand-in's message if it refuses."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request(method, f"/_standin/{what}", None if body is None else json.dumps(body))
        response = connection.getresponse()
        return _checked(response.status, response.read())
    finally:
        connection.close()


def _checked(status: int, body: bytes) -> Json:
    if status != 200:
        raise RuntimeError(body.decode())
    return cast("Json", json.loads(body))


class StandIn:
    """Controls a running stand-in: reads the account, adds faults, changes the account from outside."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        """Talk to the stand-in at ``url``."""
        self.url = url
        self._session = session

    @classmethod
    @asynccontextmanager
    async def start(
        cls, *, latency: float = 0.0, account: str = "123456789012", visible_after: float = 0.0
    ) -> AsyncIterator[StandIn]:
        """Run a stand-in for the duration of the block; durations in seconds."""
        with run_server(latency=latency, account=account, visible_after=visible_after) as url:
            async with cls.at(url) as aws:
                yield aws

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str) -> AsyncIterator[StandIn]:
        """Talk to a stand-in that runs already."""
        async with aiohttp.ClientSession() as session:
            yield cls(url, session)

    async def ask(self, method: str, what: str, body: object = None) -> Json:
        """Send one control request; RuntimeError with the stand-in's message if it refuses."""
        async with self._session.request(method, f"{self.url}/_standin/{what}", json=body) as response:
            return _checked(response.status, await response.read())

    async def state(self, account: str = "") -> Json:
        """Return the account, or another one: users, groups, policies, virtual MFA devices."""
        return await self.ask("GET", f"state?account={account}" if account else "state")

    async def users(self, path: str = "/") -> dict[str, Json]:
        """Return the users with this path prefix, by name."""
        users = cast("list[Json]", (await self.state())["users"])
        return {str(user["name"]): user for user in users if str(user["path"]).startswith(path)}

    async def calls(self, action: str = "", after: int = 0) -> list[Json]:
        """List the calls after number ``after`` in the order of arrival, all or of one action."""
        calls = cast("list[Json]", (await self.ask("GET", f"calls?after={after}"))["calls"])
        return [call for call in calls if action in ("", call["action"])]

    async def totals(self) -> dict[str, int]:
        """Count the calls by action."""
        return cast("dict[str, int]", (await self.ask("GET", "totals"))["totals"])

    async def peak_per_second(self) -> int:
        """Return the maximum number of calls within one second."""
        return cast("int", (await self.ask("GET", "totals"))["peak_per_second"])

    async def connections(self) -> int:
        """Count the connections that callers opened and used."""
        return cast("int", (await self.ask("GET", "totals"))["connections"])

    async def forget_calls(self) -> None:
        """Empty the record of calls."""
        await self.ask("DELETE", "calls")

    async def fault(self, kind: str, action: str = "*", **fields: str | float | None) -> None:
        """Add a fault; the fields are those of ``iam_faults.Fault``: nth, times, user, seconds, status, …."""
        await self.ask("POST", "faults", {"kind": kind, "action": action, **fields})

    async def clear_faults(self) -> None:
        """Forget all faults."""
        await self.ask("DELETE", "faults")

    async def reset(self) -> None:
        """Reset the account, the faults, the record of calls, the availability and the latency."""
        await self.ask("POST", "reset")

    async def latency(self, seconds: float) -> None:
        """Add this latency to each answer from now on."""
        await self.ask("POST", "latency", {"seconds": seconds})

    async def down(self) -> None:
        """Close every connection of callers, now and until ``up``."""
        await self.ask("POST", "down")

    async def up(self) -> None:
        """Serve callers again."""
        await self.ask("POST", "up")

    async def touch(self, user: str, *things: str) -> Json:
        """Attach things to a user from outside (names of ``iam.TOUCHES``) and return the user."""
        return await self.ask("POST", "touch", {"user": user, "things": things})

    async def forget(self, user: str) -> None:
        """Delete a user with everything attached to it, without Lessor's knowledge."""
        await self.ask("POST", "forget", {"user": user})

    async def groups(self, *names: str) -> None:
        """Make groups."""
        await self.ask("POST", "groups", {"names": names})

    async def root(self, access_key_id: str) -> None:
        """Create the root's user with this key, so that its keys can be listed and rotated."""
        await self.ask("POST", "root", {"access_key_id": access_key_id})

    async def account(self, **fields: str | float) -> None:
        """Change the account: ``account``, ``max_users``, ``visible_after``, ``clock_offset`` (seconds)."""
        await self.ask("POST", "account", fields)

    async def role(self, name: str, **trust: object) -> str:
        """Make a role, return its ARN; the fields are those of ``sts_state.TrustedRole``, and ``account``."""
        return str((await self.ask("POST", "role", {"name": name, **trust}))["arn"])

    async def sts(self, **fields: object) -> None:
        """Change STS: ``root_arn``, ``packed_limit``, ``mfa_codes`` by serial, ``verdicts`` by action."""
        await self.ask("POST", "sts", fields)

    async def kms(self, **fields: str) -> dict[str, int]:
        """Set the ``state`` of key ``arn``, or the ``fault`` of calls, or of an ``action``; return calls."""
        return cast("dict[str, int]", (await self.ask("POST", "kms", fields))["calls"])

    async def session(self, access_key_id: str) -> Json:
        """Show one session: whose it is, and what it was given."""
        return await self.ask("GET", f"session?id={access_key_id}")

    async def call(self, action: str, **params: str) -> Json:
        """Carry out one call of the account's administrator, such as AttachGroupPolicy."""
        return await self.ask("POST", "call", {"action": action, **params})
