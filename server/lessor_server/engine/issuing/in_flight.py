"""Issues in flight: one answer for one (owner, mount, role, request id), however often it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from lessor_server.domain.errors.base import (
    Aborted,
    DeadlineExceeded,
    LeaseTaken,
    LessorError,
    RequestIdReused,
)
from lessor_server.domain.errors.preconditions import RequestSpent
from lessor_server.domain.lease import Lease, State
from lessor_server.engine.issuing.request import Credentials, IssueRequest


class InFlightIssue:
    """One issue's answer; several callers share it where they sent the same request id."""

    def __init__(self, asked: IssueRequest) -> None:
        """Begin without an answer."""
        self._request = asked.request
        self._waiting = 0
        self._taken = False
        self._answer: asyncio.Future[Credentials] = asyncio.get_running_loop().create_future()

    @property
    def left(self) -> bool:
        """Return whether every caller that waited has gone away."""
        return not self._waiting

    @property
    def answered(self) -> bool:
        """Return whether the work is done, with or without success."""
        return self._answer.done()

    @property
    def undelivered(self) -> bool:
        """Return whether there are credentials that are undelivered so far."""
        return self._answer.done() and self._answer.exception() is None and not self._taken

    @property
    def lease(self) -> Lease:
        """Return the lease of the credentials that it holds."""
        return self._answer.result().lease

    def require_same(self, asked: IssueRequest) -> None:
        """Raise ``RequestIdReused`` if another request has the same id."""
        if asked.request and asked.request != self._request:
            raise RequestIdReused(asked.request.id)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a caller in for as long as the block lasts."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def credentials(self, until: float) -> Credentials:
        """Wait for the answer until the loop's time is ``until``, or raise ``DeadlineExceeded``."""
        try:
            async with asyncio.timeout_at(until):
                return await asyncio.shield(self._answer)
        except TimeoutError:
            message = "the credential was not ready in time; what was made is being revoked"
            raise DeadlineExceeded(message) from None

    def take(self) -> None:
        """Note that a caller has the credentials."""
        self._taken = True

    def answer(self, credentials: Credentials) -> None:
        """Give the credentials to all who wait."""
        self._answer.set_result(credentials)

    def refuse(self, error: LessorError) -> None:
        """Give the error to all who wait."""
        self._answer.set_exception(error)
        self._answer.exception()  # seen, also where nobody waits any more


def require_repeatable(earlier: Lease, asked: IssueRequest, now_us: int) -> None:
    """Raise unless the lease of an earlier request may be handed out again.

    Raises:
        RequestIdReused: The earlier request was a different one.
        Aborted: Another process works on it. RequestSpent: Its lease has ended or is unfinished.
    """
    assert asked.request is not None
    if earlier.request is None or earlier.request.digest != asked.request.digest:
        raise RequestIdReused(asked.request.id)
    state = earlier.state_at(now_us)
    if state is State.INTENT:
        raise Aborted(f"request {asked.request.id} is being served by another process", retry_in=0.5)
    if state is not State.ACTIVE:
        raise RequestSpent(f"the lease of request {asked.request.id} has ended", subject=earlier.id)


def require_wanted(lease: Lease, in_flight: InFlightIssue) -> None:
    """Raise ``LeaseTaken`` where nobody waits any more for a lease to be handed out again."""
    if in_flight.left:
        raise not_reissued(lease)


def not_reissued(lease: Lease) -> LeaseTaken:
    """Return why a lease is not handed out again after all."""
    return LeaseTaken(f"lease {lease.id} changed, or its caller left, while it was handed out again")
