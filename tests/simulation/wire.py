"""AWS as one process reaches it: requests arrive late, twice as late, or never, and answers get lost.

Shapes and refusals are those of ``tests.support.memory_aws``. The world decides when a request arrives and
what its answer is, also after the death or the suspend of the sender.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

import botocore.exceptions as sdk

from lessor_server.adapters.aws import error_codes
from lessor_server.adapters.aws.gateway import OPERATIONS
from lessor_server.domain.aws.iam_calls import AccessKey, Call, VerifyKeyOnIam
from lessor_server.domain.aws.sts_calls import VerifyKey
from lessor_server.domain.root import Root
from tests.simulation.points import Fate
from tests.support import memory_aws
from tests.support.iam_faults import Ending
from tests.support.iam_rules import Answer

if TYPE_CHECKING:
    from tests.simulation.process import Process

T = TypeVar("T")
LATEST_ARRIVAL = 14 * 60.0
"""AWS refuses a signature older than 15 minutes; a request may sleep in a buffer until then."""

THROTTLING = Answer(400, "Throttling", "Rate exceeded")
DENIED = Answer(403, "AccessDenied", "User is not authorized to perform this action")
FAILURE = Answer(500, "InternalFailure", "The request processing has failed.")
CONCURRENT = Answer(409, "ConcurrentModification", "The request was rejected: try again.")


@dataclass(slots=True, eq=False)
class Flight:
    """One request in flight: its delays, whether it takes effect, and its answer."""

    call: Call[object]
    signer: AccessKey
    there: float
    back: float
    ending: Ending = Ending.ANSWER
    instead: Answer | None = None
    """What AWS answers without an effect."""
    lost: bool = False
    arrived: bool = False
    sent_us: int = 0
    fate: Fate | None = None
    answer: asyncio.Future[Answer] | None = None

    @property
    def key_id(self) -> str:
        """Return the id of the key that signed it."""
        return self.signer.access_key_id


class Wire(memory_aws.MemoryAws):
    """``engine.ports.Aws`` for one process."""

    def __init__(self, process: Process) -> None:
        """Send for ``process``."""
        super().__init__(process.world.accounts)
        self._process = process
        self._world = process.world
        self._flights: list[Flight] = []
        self.latency = process.world.options.latency

    async def send(self, root: Root, call: Call[T]) -> T:
        """Send one call."""
        self._process.require_alive()
        plain = cast("Call[object]", call)
        chained = None if isinstance(call, VerifyKey | VerifyKeyOnIam) else await self._chains.ready(root)
        self._process.require_alive()
        if self._world.away:
            await asyncio.sleep(self.latency)
            raise error_codes.from_network(plain, sdk.EndpointConnectionError(endpoint_url="aws"))
        answer = await self._heard(plain, *await self._flown(memory_aws._signer(root, chained), plain))
        return cast("T", OPERATIONS[type(call)].read(memory_aws._as_sdk(answer.result)))

    async def _flown(self, signer: AccessKey, call: Call[object]) -> tuple[Ending, Answer]:
        flight = self._world.faults.flight(call, signer)
        flight.fate = self._world.points.meet(f"aws {call.action}")
        if flight.fate is Fate.BEFORE:
            self._process.kill()
            await asyncio.sleep(0)
        flight.sent_us = self._world.store.now()
        if flight.fate is Fate.UNDONE:
            flight.lost, flight.ending = True, Ending.SILENCE
        elif flight.fate is Fate.LOST:
            flight.ending = Ending.SILENCE
        if flight.fate is not None:
            self._world.expectations.trouble(call.user)
            self._world.shake()
        loop = asyncio.get_running_loop()
        flight.answer = loop.create_future()
        self._flights.append(flight)
        self._world.sent(self._process, flight)
        self._world.later(flight.there, lambda: self._arrive(flight))
        try:
            if flight.ending is Ending.SILENCE:
                await asyncio.sleep(self.latency)
                return Ending.SILENCE, Answer()
            answer = await flight.answer
        finally:
            flight.answer = None
        self._process.require_alive()
        return flight.ending, answer

    def _arrive(self, flight: Flight) -> None:
        """Execute a request, and send its answer."""
        if flight in self._flights:
            self._flights.remove(flight)
        flight.arrived = True
        if flight.lost:
            flight.ending = Ending.CUT
            self._world.later(memory_aws.GIVE_UP_SECONDS, lambda: self._hear(flight, Answer()))
            return
        answer = flight.instead
        if answer is None:
            account = self._world.account_with(flight.key_id)
            account.visible_after = self._world.chance("visible").uniform(0.0, self._world.options.visible)
            answer = memory_aws._effect(account, flight.signer, flight.call)
            self._world.carried_out(flight, answer)
        elif flight.ending is Ending.ANSWER and answer.code != THROTTLING.code and answer.status < 500:
            self._world.expectations.refused(flight.call.user)
        if flight.fate is Fate.AFTER and self._process.alive:
            self._process.kill()
        self._world.later(flight.back, lambda: self._hear(flight, answer))

    def _hear(self, flight: Flight, answer: Answer) -> None:
        if flight.answer is not None and not flight.answer.done() and self._process.alive:
            flight.answer.set_result(answer)

    def abandon(self) -> None:
        """Decide the outcome of requests whose sender dies or is suspended: in time, late, or never."""
        rng = self._world.chance("abandon")
        for flight in list(self._flights):
            drawn = rng.random()
            if flight.fate is Fate.BEFORE or drawn < 0.4:
                flight.lost = True
            elif drawn < 0.6 and not flight.arrived:
                self._flights.remove(flight)
                late = Flight(flight.call, flight.signer, 0.0, 0.0, sent_us=flight.sent_us)
                flight.lost = True
                self._world.delayed(late)
                self._world.later(rng.uniform(1.0, LATEST_ARRIVAL), lambda late=late: self._arrive(late))
