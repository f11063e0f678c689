"""Issues in flight: all repeats of a request id share one issue and its result."""

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
from lessor_server.domain.errors.sealing import RowTampered
from lessor_server.domain.lease import Lease, State
from lessor_server.engine.issuing.request import Credentials, IssueRequest


class InFlightIssue:
    """One issue and its result, which callers with the same request id share."""

    def __init__(self, asked: IssueRequest) -> None:
        """Create it without a result."""
        self._asked = asked
        self.credential_type = ""
        """That of the role, once it is known."""
        self.wait_usable = 0.0
        """That of the role in seconds, once it is known."""
        self._waiting = 0
        self._taken = False
        self._answer: asyncio.Future[Credentials] = asyncio.get_running_loop().create_future()

    @property
    def left(self) -> bool:
        """Return whether no caller waits any more."""
        return not self._waiting

    @property
    def answered(self) -> bool:
        """Return whether there is a result: credentials or an error."""
        return self._answer.done()

    @property
    def undelivered(self) -> bool:
        """Return whether there are credentials that no caller has received."""
        return self._answer.done() and self._answer.exception() is None and not self._taken

    @property
    def lease(self) -> Lease:
        """Return the lease of the credentials."""
        return self._answer.result().lease

    def require_same(self, asked: IssueRequest) -> None:
        """Raise ``RequestIdReused`` for another request, ``Aborted`` for one that other rules allow."""
        if asked.request and asked.request != self._asked.request:
            raise RequestIdReused(asked.request.id)
        began = self._asked.grant
        if (asked.grant.pattern, asked.grant.limits) != (began.pattern, began.limits):
            # The issue began under limits that no longer hold: a repeat is judged by those of today.
            raise Aborted("the access rules changed while this request was being served", retry_in=0.5)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a caller as waiting while the block runs."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def credentials(self, until: float) -> Credentials:
        """Wait for the credentials until the loop's time is ``until``, or raise ``DeadlineExceeded``."""
        try:
            async with asyncio.timeout_at(until):
                return await asyncio.shield(self._answer)
        except TimeoutError:
            message = "the credential was not ready in time; what was made is being revoked"
            raise DeadlineExceeded(message) from None

    def take(self) -> None:
        """Record that a caller has received the credentials."""
        self._taken = True

    def answer(self, credentials: Credentials) -> None:
        """Return the credentials to all waiting callers."""
        self._answer.set_result(credentials)

    def refuse(self, error: LessorError) -> None:
        """Raise the error in all waiting callers."""
        self._answer.set_exception(error)
        self._answer.exception()  # retrieved here, as no caller may wait any more


def require_repeatable(earlier: Lease, asked: IssueRequest, now_us: int) -> None:
    """Raise an error unless the lease of the earlier request may be reissued.

    Raises:
        RowTampered: The row of the lease is not as Lessor wrote it.
        RequestIdReused: The earlier request was a different one.
        Aborted: Another process works on it. RequestSpent: Its lease has ended or is unfinished.
    """
    assert asked.request is not None
    if earlier.tampered:
        raise RowTampered("leases", earlier.id)
    if earlier.request is None or earlier.request.digest != asked.request.digest:
        raise RequestIdReused(asked.request.id)
    state = earlier.state_at(now_us)
    if state is State.INTENT:
        raise Aborted(f"request {asked.request.id} is being served by another process", retry_in=0.5)
    if state is not State.ACTIVE:
        raise RequestSpent(f"the lease of request {asked.request.id} has ended", subject=earlier.id)


def require_wanted(lease: Lease, in_flight: InFlightIssue) -> None:
    """Raise ``LeaseTaken`` if no caller waits for the lease any more."""
    if in_flight.left:
        raise not_reissued(lease)


def not_reissued(lease: Lease) -> LeaseTaken:
    """Return the error of a lease that changed, or whose caller left, while it was reissued."""
    return LeaseTaken(f"lease {lease.id} changed, or its caller left, while it was handed out again")
