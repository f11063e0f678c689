"""Request ids: one lease for one (owner, mount, role, request id), however often it is asked for."""

from __future__ import annotations

from lessor_server.domain.errors import Aborted, LeaseTaken, RequestIdReused
from lessor_server.domain.lease import Lease, State
from lessor_server.domain.preconditions import RequestSpent
from lessor_server.engine.credentials import Wish
from lessor_server.engine.stored import Repeated
from lessor_server.engine.ticket import Ticket

Key = tuple[str, str, str, str]


class Requests:
    """The tickets of requests that are under way in this process."""

    def __init__(self) -> None:
        """Begin with none under way."""
        self._tickets: dict[Key, Ticket] = {}

    def under_way(self, wish: Wish) -> Ticket | None:
        """Return the ticket of the same request under way, if any; raise ``RequestIdReused`` for another."""
        key = _key(wish)
        ticket = self._tickets.get(key) if key else None
        if ticket is not None and wish.request and ticket.digest != wish.request.digest:
            raise RequestIdReused(wish.request.id)
        return ticket

    def begin(self, wish: Wish, ticket: Ticket) -> None:
        """Let repeats of ``wish`` find ``ticket``."""
        key = _key(wish)
        if key:
            self._tickets[key] = ticket

    def end(self, wish: Wish) -> None:
        """Forget the ticket: from now on repeats find the lease in the store."""
        key = _key(wish)
        if key:
            self._tickets.pop(key, None)


def repeated(wish: Wish) -> Repeated | None:
    """Return what to look for in the store, if the wish has a request id."""
    return Repeated(wish.owner, wish.request.id) if wish.request else None


def require_repeatable(earlier: Lease, wish: Wish, now_us: int) -> None:
    """Raise unless the lease of an earlier request may be handed out again.

    Raises:
        RequestIdReused: The earlier request wished for something else.
        Aborted: It is under way elsewhere. RequestSpent: Its lease is ended or half-made.
    """
    assert wish.request is not None
    if earlier.request is None or earlier.request.digest != wish.request.digest:
        raise RequestIdReused(wish.request.id)
    state = earlier.state_at(now_us)
    if state is State.INTENT:
        raise Aborted(f"request {wish.request.id} is being served elsewhere", retry_in=0.5)
    if state is not State.ACTIVE:
        raise RequestSpent(f"the lease of request {wish.request.id} has ended", subject=earlier.id)


def require_wanted(lease: Lease, ticket: Ticket) -> None:
    """Raise ``LeaseTaken`` where nobody waits any more for a lease to be handed out again."""
    if ticket.left:
        raise taken(lease)


def taken(lease: Lease) -> LeaseTaken:
    """Return why a lease is not handed out again after all."""
    return LeaseTaken(f"lease {lease.id} changed, or its caller left, while it was handed out again")


def _key(wish: Wish) -> Key | None:
    return (wish.owner, wish.mount, wish.role, wish.request.id) if wish.request else None
