"""AWS in memory: ``engine.ports.Aws`` over the model of IAM, in the loop's time, with faults.

A call takes half of the latency, has its effect, takes the other half, and is answered. ``at`` is awaited
before and after the effect; there a test can end the process. Requests and answers are shaped, and refusals
read, by the product's own tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, TypeVar, cast

import botocore.exceptions as sdk

from lessor_server.adapters.aws import error_codes
from lessor_server.adapters.aws.assume_chain import ChainCredentials, Chains
from lessor_server.adapters.aws.gateway import OPERATIONS
from lessor_server.domain.aws.iam_calls import AccessKey, Call, VerifyKeyOnIam
from lessor_server.domain.aws.sts_calls import GetServerTime, VerifyKey
from lessor_server.domain.root import Root
from tests.support.iam import Iam
from tests.support.iam_faults import Ending, Fault, Faults, Kind
from tests.support.iam_rules import Answer, Result
from tests.support.memory_config import At, passing

T = TypeVar("T")
Effect = Callable[[], Answer]
_DATES = ("CreateDate", "Expiration")
CHAIN_SESSION = "lessor-of-the-tests"
"""The session name of a root's chain."""
GIVE_UP_SECONDS = 7.0
"""How long a call waits for an answer, as the gateway does."""


@dataclass(slots=True)
class Sent:
    """One sent call and its times in the loop's seconds; ``end`` is None while it is in flight."""

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
        self._chains = Chains(self.send, CHAIN_SESSION)
        self.sent: list[Sent] = []
        self.forgotten: list[str] = []
        self.away = False
        """While true nothing reaches AWS: each connection is refused."""
        self.arrives_late: float | None = None
        """If set, a request whose sender dies takes effect this many seconds later."""

    def actions(self, user: str = "") -> list[str]:
        """Return the actions that were sent, in order; only those on ``user`` if it is given."""
        return [one.action for one in self.sent if user in ("", one.user)]

    def forget(self, mount: str) -> None:
        """Record that a mount is no longer needed."""
        self.forgotten.append(mount)

    async def send(self, root: Root, call: Call[T]) -> T:
        """Send one call, after the calls that open the root's chain."""
        plain = cast("Call[object]", call)
        proves = isinstance(call, VerifyKey | VerifyKeyOnIam)
        chained = None if proves else await self._chains.ready(root)

        def effect() -> Answer:
            return _effect(self._account(root.config.access_key), _signer(root, chained), plain)

        sent = Sent(call.action, call.user, asyncio.get_running_loop().time())
        self.sent.append(sent)
        try:
            if self.away:
                await asyncio.sleep(self.latency)
                raise error_codes.from_network(plain, sdk.EndpointConnectionError(endpoint_url="aws"))
            answer = await self._answer(plain, effect, self.faults.take(call.action, call.user))
            return cast("T", OPERATIONS[type(call)].read(_as_sdk(answer.result)))
        finally:
            sent.end = asyncio.get_running_loop().time()

    async def _answer(self, call: Call[object], effect: Effect, fault: Fault | None) -> Answer:
        return await self._heard(call, *await self._carried_out(call, effect, fault))

    async def _heard(self, call: Call[object], ending: Ending, answer: Answer) -> Answer:
        """Return AWS's answer, or raise the caller's error if there is none."""
        match ending:
            case Ending.CUT:
                raise error_codes.from_network(call, sdk.ConnectionClosedError(endpoint_url="aws"))
            case Ending.SILENCE:
                await asyncio.sleep(GIVE_UP_SECONDS - self.latency)
                raise error_codes.from_network(call, TimeoutError())
            case Ending.HTML:
                raise error_codes.unreadable(call, ValueError("<html>"))
            case Ending.ANSWER if answer.ok:
                return answer
        told: dict[str, Any] = {
            "Error": {"Code": answer.code, "Message": answer.message},
            "ResponseMetadata": {"HTTPStatusCode": answer.status, "RequestId": "00000000-test"},
        }
        failure = error_codes.from_sdk(call, sdk.ClientError(cast("Any", told), call.action))
        if error_codes.proves(call, failure):
            return Answer()
        raise failure

    def _account(self, access_key_id: str) -> Iam:
        """Return the account of a key: a configured root's, or one that the account created for it."""
        made = (one for one in self.accounts.values() if access_key_id in {*one.keys, *one.dead_keys})
        return self.accounts.get(access_key_id) or next(made)

    async def _carried_out(
        self, call: Call[object], effect: Effect, fault: Fault | None
    ) -> tuple[Ending, Answer]:
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


def _signer(root: Root, chained: ChainCredentials | None) -> AccessKey:
    """Return the credentials with which a root signs: its key, or the last session of its chain."""
    if chained is None:
        return AccessKey(root.config.access_key, root.config.secret_key)
    return chained.session


def _effect(account: Iam, signer: AccessKey, call: Call[object]) -> Answer:
    """Carry out one call; a verification uses the key to verify, and STS's answers have a date."""
    who = signer.access_key_id, signer.token.reveal()
    match call:
        case VerifyKey() | VerifyKeyOnIam():
            key = call.key.access_key_id, call.key.secret.reveal(), call.key.token.reveal()
            action = "GetCallerIdentity" if isinstance(call, VerifyKey) else "GetUser"
            return account.prove(action, OPERATIONS[type(call)].params(call), key)
        case GetServerTime():
            answer = account.handle("GetCallerIdentity", {}, *who)
            headers: Result = {
                "date": format_datetime(datetime.fromtimestamp(account.time(), UTC), usegmt=True)
            }
            return replace(answer, result={**answer.result, "ResponseMetadata": {"HTTPHeaders": headers}})
        case _:
            return account.handle(call.action, OPERATIONS[type(call)].params(call), *who)


def _as_sdk(value: Any) -> Any:
    """Return an answer with dates of the SDK's type."""
    if isinstance(value, list):
        return [_as_sdk(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: _field_as_sdk(name, item) for name, item in value.items()}


def _field_as_sdk(name: str, item: Any) -> Any:
    if name in _DATES:
        return datetime.fromisoformat(item)
    return _as_sdk(item)
