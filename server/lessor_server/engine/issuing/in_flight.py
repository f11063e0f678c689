"""Request ids: one lease for one (owner, mount, role, request id), however often it is asked for."""

from __future__ import annotations

from lessor_server.domain.errors.base import Aborted, LeaseTaken, RequestIdReused
from lessor_server.domain.errors.preconditions import RequestSpent
from lessor_server.domain.lease import Lease, State
from lessor_server.engine.issuing.request import IssueRequest
from lessor_server.engine.issuing.ticket import InFlightIssue
from lessor_server.engine.store_types import RequestKey

Key = tuple[str, str, str, str]


class InFlightRequests:
    """The in-flight issues of this process."""

    def __init__(self) -> None:
        """Begin with none under way."""
        self._tickets: dict[Key, InFlightIssue] = {}

    def under_way(self, asked: IssueRequest) -> InFlightIssue | None:
        """Return the in-flight issue of the same request, if any; raise ``RequestIdReused`` for another."""
        key = _key(asked)
        ongoing = self._tickets.get(key) if key else None
        if ongoing is not None and asked.request and ongoing.digest != asked.request.digest:
            raise RequestIdReused(asked.request.id)
        return ongoing

    def begin(self, asked: IssueRequest, ongoing: InFlightIssue) -> None:
        """Let repeats of ``asked`` find ``ongoing``."""
        key = _key(asked)
        if key:
            self._tickets[key] = ongoing

    def end(self, asked: IssueRequest) -> None:
        """Forget the in-flight issue: from now on repeats find the lease in the store."""
        key = _key(asked)
        if key:
            self._tickets.pop(key, None)


def request_key(asked: IssueRequest) -> RequestKey | None:
    """Return the key to look for in the store, if the request has an id."""
    return RequestKey(asked.owner, asked.request.id) if asked.request else None


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


def require_wanted(lease: Lease, ongoing: InFlightIssue) -> None:
    """Raise ``LeaseTaken`` where nobody waits any more for a lease to be handed out again."""
    if ongoing.left:
        raise lease_taken(lease)


def lease_taken(lease: Lease) -> LeaseTaken:
    """Return why a lease is not handed out again after all."""
    return LeaseTaken(f"lease {lease.id} changed, or its caller left, while it was handed out again")


def _key(asked: IssueRequest) -> Key | None:
    return (asked.owner, asked.mount, asked.role, asked.request.id) if asked.request else None
