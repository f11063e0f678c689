"""AWS in memory: ``engine.ports.Aws`` over the model of IAM, in the loop's own time, with faults.

A call's way is: half of the latency, the effect, the other half, the answer. ``at`` is awaited before and
after the effect, which is where a test ends the process. Requests and answers are shaped, and refusals
read, by the product's own tables.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, TypeVar, cast

import botocore.exceptions as sdk

from lessor_server.adapters.aws import failures
from lessor_server.adapters.aws.requests import REQUESTS
from lessor_server.domain.calls import AskTime, Call, ProveKey
from lessor_server.domain.root import Root
from tests.support.iam import Iam
from tests.support.iam_faults import Ending, Fault, Faults, Kind
from tests.support.iam_rules import Answer, Result
from tests.support.memory_config import At, passing

T = TypeVar("T")
GIVE_UP_SECONDS = 7.0
"""How long a call waits for an answer, as the gateway does."""


@dataclass(slots=True)
class Sent:
    """One call that went out: what it was and when, in the loop's seconds; ``end`` is None on its way."""

    action: str
    user: str
    start: float
    end: float | None = None


class MemoryAws:
    """Answers calls from the accounts whose roots' key ids are in ``accounts``."""

    def __init__(self, accounts: dict[str, Iam], at: At = passing, latency: float = 0.05) -> None:
        """Answer after ``latency`` seconds."""
        self.accounts = accounts
        self._at = at
        self.latency = latency
        self.faults = Faults()
        self.sent: list[Sent] = []
        self.away = False
        """While true nothing reaches AWS: each connection is refused."""
        self.arrives_late: float | None = None
        """Where set, a request whose sender dies on the way takes effect so many seconds later."""

    def actions(self, user: str = "") -> list[str]:
        """Return the actions that were sent, in order; only those on ``user`` where it is given."""
        return [one.action for one in self.sent if user in ("", one.user)]

    async def send(self, root: Root, call: Call[T]) -> T:
        """Send one call."""
        plain = cast("Call[object]", call)
        sent = Sent(call.action, call.user, asyncio.get_running_loop().time())
        self.sent.append(sent)
        try:
            if self.away:
                await asyncio.sleep(self.latency)
                raise failures.from_network(plain, sdk.EndpointConnectionError(endpoint_url="aws"))
            answer = await self._answer(root, plain, self.faults.take(call.action, call.user))
            return cast("T", REQUESTS[type(call)].read(_as_sdk(answer.result)))
        finally:
            sent.end = asyncio.get_running_loop().time()

    async def _answer(self, root: Root, call: Call[object], fault: Fault | None) -> Answer:
        """Return AWS's answer, or raise what the caller makes of another ending."""
        ending, answer = await self._carried_out(root, call, fault)
        match ending:
            case Ending.CUT:
                raise failures.from_network(call, sdk.ConnectionClosedError(endpoint_url="aws"))
            case Ending.SILENCE:
                await asyncio.sleep(GIVE_UP_SECONDS - self.latency)
                raise failures.from_network(call, TimeoutError())
            case Ending.HTML:
                raise failures.unreadable(call, ValueError("<html>"))
            case Ending.ANSWER if answer.ok:
                return answer
        told: dict[str, Any] = {
            "Error": {"Code": answer.code, "Message": answer.message},
            "ResponseMetadata": {"HTTPStatusCode": answer.status, "RequestId": "00000000-test"},
        }
        raise failures.from_sdk(call, sdk.ClientError(cast("Any", told), call.action))

    async def _carried_out(
        self, root: Root, call: Call[object], fault: Fault | None
    ) -> tuple[Ending, Answer]:
        def effect() -> Answer:
            return _effect(self.accounts[root.config.access_key], root.config.access_key, call)

        loop = asyncio.get_running_loop()
        try:
            await self._at(f"{call.action} sent")
            await asyncio.sleep(self.latency / 2)
        except asyncio.CancelledError:
            if self.arrives_late is not None:
                loop.call_later(self.arrives_late, effect)
            raise
        if fault is not None and fault.kind is Kind.DELAY:
            if fault.seconds > GIVE_UP_SECONDS:
                loop.call_later(fault.seconds, effect)
                return Ending.SILENCE, Answer()
            await asyncio.sleep(fault.seconds)
        ending, answer = fault.outcome(effect) if fault else (Ending.ANSWER, effect())
        await self._at(f"{call.action} done")
        await asyncio.sleep(self.latency / 2)
        return ending, answer


def _effect(account: Iam, root_key: str, call: Call[object]) -> Answer:
    """Carry out one call; STS is asked with the key to be proven, and its answers bear a date."""
    match call:
        case ProveKey():
            return account.prove(call.key.access_key_id, call.key.secret.reveal())
        case AskTime():
            answer = account.handle("GetCallerIdentity", {}, root_key)
            headers: Result = {
                "date": format_datetime(datetime.fromtimestamp(account.time(), UTC), usegmt=True)
            }
            return replace(answer, result={**answer.result, "ResponseMetadata": {"HTTPHeaders": headers}})
        case _:
            return account.handle(call.action, REQUESTS[type(call)].params(call), root_key)


def _as_sdk(value: Any) -> Any:
    """Return an answer with its dates as the SDK gives them."""
    if isinstance(value, list):
        return [_as_sdk(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: datetime.fromisoformat(item) if name == "CreateDate" else _as_sdk(item)
        for name, item in value.items()
    }
