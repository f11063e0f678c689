"""The state of the stand-in server in addition to the model: faults, switches, the record of every call."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate

from tests.support.iam import Iam
from tests.support.iam_faults import Ending, Fault, Faults, Kind
from tests.support.iam_rules import Answer
from tests.support.iam_wire import Request
from tests.support.kms_model import Kms


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the server; durations in seconds."""

    account: str = "123456789012"
    latency: float = 0.0
    visible_after: float = 0.0


@dataclass(slots=True)
class Call:
    """Holds one call as it came: its number from 1, monotonic seconds, and what its caller saw.

    ``scope`` is what its signature is for, ``region/service``; ``outcome`` is ``ok``, AWS's error code, the
    fault that kept the answer away, or empty while it waits.
    """

    n: int
    t: float
    action: str
    user: str
    key_id: str
    scope: str = ""
    outcome: str = ""


class CallLog:
    """Records calls in the order of arrival, their maximum within one second, and new connections."""

    def __init__(self) -> None:
        """Start with no call."""
        self.calls: list[Call] = []
        self.peak = 0
        self.connections = 0
        self._window: deque[float] = deque()

    def add(self, request: Request, at: float) -> Call:
        """Record a call that arrived at ``at`` (monotonic seconds)."""
        window = self._window
        window.append(at)
        while at - window[0] >= 1.0:
            window.popleft()
        self.peak = max(self.peak, len(window))
        sender = request.access_key_id, request.scope
        call = Call(len(self.calls) + 1, at, request.action, request.user, *sender)
        self.calls.append(call)
        return call

    def totals(self) -> dict[str, int]:
        """Count the calls by action."""
        return dict(Counter(call.action for call in self.calls))


class World:
    """One AWS of the server: the model, the faults, the latency, the switches, the calls."""

    def __init__(self, options: Options, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with an empty account; ``loop`` runs delayed effects."""
        self._options = options
        self._loop = loop
        self._ids = random.Random(random.SystemRandom().getrandbits(128))
        self.reset()

    def reset(self) -> None:
        """Reset to the options: an empty account, no faults, no calls, up."""
        self.clock_offset = 0.0
        self.iam = Iam(
            self._options.account,
            now=self.wall,
            rng=self._ids,
            visible_after=self._options.visible_after,
        )
        self.kms = Kms()
        self.faults = Faults()
        self.log = CallLog()
        self.latency = self._options.latency
        self.down = False

    def wall(self) -> float:
        """Return this AWS's time in seconds since 1970: the machine's plus ``clock_offset``."""
        return time.clock_gettime(time.CLOCK_REALTIME) + self.clock_offset

    def extra_headers(self, request_id: str) -> str:
        """Write the header lines that AWS adds to each answer."""
        return f"x-amzn-RequestId: {request_id}\r\nDate: {formatdate(self.wall(), usegmt=True)}\r\n"

    def new_request_id(self) -> str:
        """Generate a request id in AWS's format."""
        digits = f"{self._ids.getrandbits(128):032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def take(self, request: Request, tell: Callable[[Ending, Answer], None]) -> None:
        """Carry out one call with faults and latency, and call ``tell`` with its outcome."""
        call = self.log.add(request, self._loop.time())
        if self.down:
            call.outcome = "down"
            tell(Ending.CUT, Answer())
            return
        fault = self.faults.take(request.action, request.user)
        if fault is not None and fault.kind is Kind.DELAY:
            self._loop.call_later(fault.seconds, lambda: self._carry_out(request, call, fault, tell))
        else:
            self._carry_out(request, call, fault, tell)

    def _carry_out(
        self, request: Request, call: Call, fault: Fault | None, tell: Callable[[Ending, Answer], None]
    ) -> None:
        def effect() -> Answer:
            return self.iam.handle(request.action, request.params, request.access_key_id, request.token)

        ending, answer = fault.outcome(effect) if fault else (Ending.ANSWER, effect())
        if fault and ending is not Ending.ANSWER:
            call.outcome = fault.kind.value
        else:
            call.outcome = answer.code or "ok"
        if self.latency > 0:
            self._loop.call_later(self.latency, lambda: tell(ending, answer))
        else:
            tell(ending, answer)
