"""The ports through which durations and outcomes are measured, and calls to AWS observed.

The engine knows neither a library nor a format of metrics or traces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, Protocol

from lessor_server.domain.aws.iam_calls import UserRoom

STORE_PHASE, AWS_1_PHASE, AWS_2_PHASE, ACTIVATE_PHASE = PHASES = ("store", "aws_1", "aws_2", "activate")
"""The phases of an issue: its intent is stored; CreateUser, or the one call of a session; all other calls;
its lease becomes ACTIVE."""
OK, REFUSED, FAILED = OUTCOMES = ("ok", "refused", "failed")
"""The outcomes of an issue: issued; refused for a reason that somebody must fix; to be retried."""

current_trace_id: Final[ContextVar[str]] = ContextVar("trace_id", default="")
"""The id of the trace of the current call, 32 hexadecimal digits; empty if it is not traced.

The tasks that a call starts inherit it.
"""


class Meter(Protocol):
    """Receives measurements; each method takes well under a microsecond and never raises."""

    def record_issue(self, credential_type: str, outcome: str, seconds: float) -> None:
        """Record the end of an issue, with one of ``OUTCOMES``."""
        ...

    def record_phase(self, phase: str, seconds: float) -> None:
        """Record one of ``PHASES`` of an issue, whatever its outcome."""
        ...

    def record_revocation_lag(self, seconds: float) -> None:
        """Record the time from when a revocation was due until AWS acknowledged that the key is deleted."""
        ...


class NoMeter:
    """Measures nothing."""

    def record_issue(self, credential_type: str, outcome: str, seconds: float) -> None:
        """Ignore an issue."""

    def record_phase(self, phase: str, seconds: float) -> None:
        """Ignore a phase."""

    def record_revocation_lag(self, seconds: float) -> None:
        """Ignore a lag."""


NO_METER: Final[Meter] = NoMeter()


@dataclass(frozen=True, slots=True)
class AccountGauges:
    """What AWS reports of a mount's account: its users, and when the root's key was created.

    ``room`` is None if AWS refuses to report it. ``key_created_us`` is 0 if the root is not a user's key, or
    if that is not known.
    """

    room: UserRoom | None
    key_created_us: int = 0


@dataclass(frozen=True, slots=True)
class EngineGauges:
    """The engine's state at one instant, for metrics.

    ``rates`` has the limit of calls per second of each mount in use, ``waiting`` the number of calls that
    wait, by the name of their priority in lower case. ``hold`` is why no lease expires, or empty.
    """

    rates: Mapping[str, float]
    waiting: Mapping[str, int]
    hold: str
    accounts: Mapping[str, AccountGauges] = field(default_factory=dict)


EndAwsCall = Callable[[str, str, str], None]
"""Takes AWS's code (``ok`` for a success), its request id, and the ``Date`` of the answer; each may be empty.

It never raises."""


class AwsObserver(Protocol):
    """Observes each request to AWS, those of an assume chain included."""

    def begin_aws_call(self, mount: str, action: str) -> EndAwsCall:
        """Begin to observe a request; return what ends that."""
        ...


@dataclass(slots=True)
class PhaseTimer:
    """Measures a block as a phase of an issue, unless it is cancelled."""

    meter: Meter
    phase: str
    began: float = 0.0

    def __enter__(self) -> None:
        """Begin."""
        if self.meter is not NO_METER:
            self.began = asyncio.get_running_loop().time()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Record the seconds."""
        if self.meter is not NO_METER and kind is not asyncio.CancelledError:
            self.meter.record_phase(self.phase, asyncio.get_running_loop().time() - self.began)
