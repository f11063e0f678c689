"""Retries a request that is safe to repeat a few times after a transient failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeVar, cast

import grpc

from lessor import errors

TRIES: Final = 4
FIRST_PAUSE_SECONDS: Final = 0.5
"""The first pause where the server names none; each further one is twice as long."""

SPENT: Final = "REQUEST_ID_SPENT"
"""The reasons of a refused retry after a half-finished issue; the first failure is then reported."""

T = TypeVar("T")


class Clock(Protocol):
    """Reads the time and waits, in seconds; the module ``time`` is one."""

    def monotonic(self) -> float:
        """Return a time that never runs back."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Let ``seconds`` pass."""
        ...


def repeated(attempt: Callable[[float], T], seconds: float, clock: Clock) -> T:
    """Return what ``attempt``, given the seconds it may take, returns at last.

    UNAVAILABLE and ABORTED are tried again after the pause that the server asks for (RetryInfo of
    google/rpc/error_details.proto), ``TRIES`` times in all and within ``seconds``.

    Raises:
        grpc.RpcError: The failure of the last try, or of the one that spent the request's id.
    """
    until = clock.monotonic() + seconds
    earlier: grpc.RpcError | None = None
    for number in range(TRIES):
        try:
            return attempt(until - clock.monotonic())
        except grpc.RpcError as failure:
            error = errors.of(cast("errors.Failure", failure), "")
            if earlier is not None and error.reason == SPENT:
                raise earlier from None
            earlier, pause = failure, _pause(error, number)
            if pause is None or clock.monotonic() + pause >= until:
                raise
            clock.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _pause(error: errors.LessorError, number: int) -> float | None:
    """Return how long to wait after try ``number``, from 0 on; None where there is no other."""
    if not isinstance(error, errors.Unavailable | errors.Aborted) or number == TRIES - 1:
        return None
    if error.retry_in is not None:
        return error.retry_in.total_seconds()
    return FIRST_PAUSE_SECONDS * float(1 << number)
