"""Retries a request a few times after a transient failure; the request must be safe to repeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeVar, cast

import grpc

from lessor import errors

TRIES: Final = 4
FIRST_PAUSE_SECONDS: Final = 0.5
"""The first pause if the server names none; each further pause is twice as long."""

SPENT: Final = "REQUEST_ID_SPENT"
"""The reason of a retry that is refused after an incomplete issue; the first failure is then reported."""

T = TypeVar("T")


class Clock(Protocol):
    """Reads the time and waits, in seconds; the module ``time`` is one."""

    def monotonic(self) -> float:
        """Return a time that never goes back."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Let ``seconds`` pass."""
        ...


def repeated(attempt: Callable[[float], T], seconds: float, clock: Clock) -> T:
    """Return the result of ``attempt``, which gets the remaining seconds, after as many tries as it takes.

    UNAVAILABLE and ABORTED are retried after the pause that the server asks for (RetryInfo of
    google/rpc/error_details.proto), for at most ``TRIES`` tries and within ``seconds``.

    Raises:
        grpc.RpcError: The failure of the last try, or of the one that used up the request's id.
    """
    until = clock.monotonic() + seconds
    earlier: grpc.RpcError | None = None
    for number in range(TRIES):
        try:
            return attempt(until - clock.monotonic())
        except grpc.RpcError as failure:
            error = errors.of(cast("errors.Failure", failure), "")
            if earlier is not None and error.reason_name == SPENT:
                raise earlier from None
            earlier, pause = failure, _pause(error, number)
            if pause is None or clock.monotonic() + pause >= until:
                raise
            clock.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _pause(error: errors.Error, number: int) -> float | None:
    """Return how long to wait after try ``number``, counted from 0; None if there is no other try."""
    if not isinstance(error, errors.Unavailable | errors.Aborted) or number == TRIES - 1:
        return None
    if error.retry_after is not None:
        return error.retry_after.total_seconds()
    return FIRST_PAUSE_SECONDS * float(1 << number)
