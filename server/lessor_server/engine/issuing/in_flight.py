"""Issues in flight: all repeats of a request id share one issue and its result."""

from __future__ import annotations

import asyncio

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
        self._callers = 0
        self._taken = False
        self._answer: Credentials | LessorError | None = None
        self._waiting: dict[asyncio.Future[Credentials], None] = {}

    @property
    def left(self) -> bool:
        """Return whether no caller is there any more."""
        return not self._callers

    @property
    def answered(self) -> bool:
        """Return whether there is a result: credentials or an error."""
        return self._answer is not None

    @property
    def undelivered(self) -> bool:
        """Return whether there are credentials that no caller has received."""
        return isinstance(self._answer, Credentials) and not self._taken

    @property
    def lease(self) -> Lease:
        """Return the lease of the credentials."""
        assert isinstance(self._answer, Credentials)
        return self._answer.lease

    def require_same(self, asked: IssueRequest) -> None:
        """Raise ``RequestIdReused`` for another request, ``Aborted`` for one that other rules allow."""
        if asked.request and asked.request != self._asked.request:
            raise RequestIdReused(asked.request.id)
        began = self._asked.grant
        if (asked.grant.pattern, asked.grant.limits) != (began.pattern, began.limits):
            # The issue began under limits that no longer hold: a repeat is judged by those of today.
            raise Aborted("the access rules changed while this request was being served", retry_in=0.5)

    def join(self) -> None:
        """Count one more caller; each must ``leave``."""
        self._callers += 1

    def leave(self) -> None:
        """Count one caller less."""
        self._callers -= 1

    async def credentials(self, until: float) -> Credentials:
        """Wait for the credentials until the loop's time is ``until``, or raise ``DeadlineExceeded``."""
        # A future for each caller and one timer: ``asyncio.shield`` in a timeout costs three times as much.
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Credentials] = loop.create_future()
        if self._answer is not None:
            _settle(waiting, self._answer)
        self._waiting[waiting] = None
        timer = loop.call_at(until, _expire, waiting)
        try:
            return await waiting
        finally:
            timer.cancel()
            del self._waiting[waiting]

    def take(self) -> None:
        """Record that a caller has received the credentials."""
        self._taken = True

    def answer(self, credentials: Credentials) -> None:
        """Return the credentials to all waiting callers."""
        self._settle(credentials)

    def refuse(self, error: LessorError) -> None:
        """Raise the error in all waiting callers."""
        self._settle(error)

    def _settle(self, answer: Credentials | LessorError) -> None:
        self._answer = answer
        for waiting in self._waiting:
            _settle(waiting, answer)


def _settle(waiting: asyncio.Future[Credentials], answer: Credentials | LessorError) -> None:
    """Give a caller the answer, unless it has left."""
    if waiting.done():
        return
    if isinstance(answer, LessorError):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)


def _expire(waiting: asyncio.Future[Credentials]) -> None:
    _settle(waiting, DeadlineExceeded("the credential was not ready in time; what was made is being revoked"))


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
