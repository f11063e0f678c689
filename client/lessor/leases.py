"""A lease that is kept: renewed first, issued again last, and revoked at its end.

The code is written once, as coroutines over ``Calls``; both clients and the sessions of AWS's SDKs use it.
The rule of when to do what is in ``lessor.refresh``.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from lessor import errors
from lessor.arguments import DurationLike, span
from lessor.calls import Calls, Method
from lessor.channel import BadConnection
from lessor.clock import Clock
from lessor.reasons import Reason
from lessor.refresh import Setback, Step, Term, end_on_this_clock, retry_pause
from lessor.v1 import creds_pb2, lease_pb2

WAIT_USABLE: Final = timedelta(seconds=10)
"""How long an issue waits until AWS accepts the new key, unless the caller says otherwise."""
MAX_SLEEP: Final = timedelta(seconds=60)
"""After a sleep of this length the wall clock is read again: it may be set, or the machine suspended."""
KEEP_TIMEOUT: Final = timedelta(seconds=10)
"""How long a renewal in the background may take: the end of a blocking lease waits for it."""
GONE_AFTER: Final = timedelta(minutes=1)
"""How long after its end a lease that was replaced is still revoked, in case the server is behind."""

_ISSUE: Final = Method(
    "/lessor.v1.CredsService/GenerateCredentials",
    creds_pb2.GenerateCredentialsRequest,
    creds_pb2.GenerateCredentialsResponse,
)
_RENEW: Final = Method(
    "/lessor.v1.LeaseService/RenewLease", lease_pb2.RenewLeaseRequest, lease_pb2.RenewLeaseResponse
)
_REVOKE: Final = Method(
    "/lessor.v1.LeaseService/RevokeLease", lease_pb2.RevokeLeaseRequest, lease_pb2.RevokeLeaseResponse
)
FAILURES: Final = (errors.Error, ValueError, RuntimeError)
"""What a call raises: the server's answer, a token's file that can't be read, a client that was closed."""
_ENDED: Final = "the lease has ended; ask for another one"
_logger = logging.getLogger("lessor")


@dataclass(frozen=True, slots=True)
class Credentials:
    """One set of AWS credentials; its repr contains no secret.

    Attributes:
        access_key: The access key id.
        secret_key: The secret key.
        session_token: The token of an STS session; empty for an IAM user.
        lease_id: The lease that they belong to.
        arn: Who they are to AWS.
        expire_time: When they end, in UTC, on this machine's clock.
        renewable: Whether the same key can be renewed.
        usable: Whether AWS has accepted them already.
        warnings: What the server warned of, one sentence each.
    """

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)
    lease_id: str
    arn: str
    expire_time: datetime
    renewable: bool
    usable: bool
    warnings: tuple[str, ...] = ()


class LeaseKeeper:
    """Issues credentials, and keeps them valid by ``refresh``; not safe for several threads at a time."""

    def __init__(self, calls: Calls, fields: Mapping[str, object], clock: Clock, rng: random.Random) -> None:
        """Issue with ``fields``, the arguments of GenerateCredentials; ``rng`` spreads retries."""
        self._calls = calls
        self._fields = {"wait_usable": WAIT_USABLE, **fields}
        self._clock = clock
        self._rng = rng
        self._current: Credentials | None = None
        self._term: Term | None = None
        self._replaced: dict[str, datetime] = {}
        self._tries = 0
        self._retry_time = datetime.min.replace(tzinfo=UTC)
        self._ended = False
        self.error: Exception | None = None
        """Why the last attempt to renew or replace the credentials failed; None if it did not."""

    @property
    def credentials(self) -> Credentials:
        """Return the current credentials; raises ``RuntimeError`` before the first issue."""
        if self._current is None:
            raise RuntimeError("the lease is not issued yet; enter it with `with` or `async with`")
        return self._current

    @property
    def is_issued(self) -> bool:
        """Return whether there are credentials."""
        return self._current is not None

    def forbid_issued(self) -> None:
        """Raise ``RuntimeError`` if there are credentials: a lease is entered once."""
        if self.is_issued:
            raise RuntimeError("the lease was entered before; ask for another one")

    def left(self) -> timedelta:
        """Return how long the credentials are still valid."""
        return self.credentials.expire_time - self._clock.now()

    def ttl(self) -> timedelta:
        """Return the lifetime that was granted at the issue."""
        return self._term.ttl if self._term is not None else timedelta()

    def is_due(self) -> bool:
        """Return whether ``refresh`` has something to do now; after a failure it waits before a retry."""
        if self._term is None:
            return True
        now = self._clock.now()
        return now >= self._retry_time and self._term.next_step(now) is not Step.KEEP

    async def issue(self, limit: DurationLike | None = None) -> Credentials:
        """Issue credentials, which replace the current ones; raises ``errors.Error``."""
        if self._has_ended():
            raise RuntimeError(_ENDED)
        sent = self._clock.now()
        answer = await self._calls.call(_ISSUE, self._fields, limit)
        if self._has_ended():  # meanwhile, by another thread or task
            await self._calls.call(_REVOKE, {"lease_id": answer.lease_id}, None)
            raise RuntimeError(_ENDED)
        granted = answer.lease_duration.ToTimedelta()
        end = end_on_this_clock(sent, self._clock.now(), granted, answer.expire_time.ToDatetime(UTC))
        if self._current is not None:
            self._replaced[self._current.lease_id] = self._current.expire_time
            self._replaced = {one: end for one, end in self._replaced.items() if not self._is_gone(end)}
        self._term = Term(sent, end, granted, answer.lease_renewable)
        self._current = Credentials(
            access_key=answer.access_key,
            secret_key=answer.secret_key,
            session_token=answer.security_token,
            lease_id=answer.lease_id,
            arn=answer.arn,
            expire_time=end,
            renewable=answer.lease_renewable,
            usable=answer.usable,
            warnings=tuple(answer.warnings),
        )
        if not answer.usable and self._fields["wait_usable"]:
            _logger.warning("AWS has not accepted the key of lease %s yet", answer.lease_id)
        return self._current

    async def refresh(self, limit: DurationLike | None = None) -> Credentials:
        """Renew the credentials or replace them, if it is time; return the current ones.

        An issue may take longer than ``limit``, by the time that it waits until AWS accepts the key.

        Raises:
            errors.Error: The server refused, or could not be reached; the current ones stay.
        """
        if self._term is None:
            return await self.issue(limit)
        try:
            if self._next_step() is Step.RENEW:
                await self._renew(limit)
            if self._next_step() is Step.ISSUE:
                await self.issue(None if limit is None else span(limit) + WAIT_USABLE)
        except FAILURES as failure:
            self.error = failure
            self._retry_time = self._clock.now() + retry_pause(self._tries, self._rng.random())
            self._tries += 1
            raise
        self.error, self._tries = None, 0
        return self.credentials

    async def keep(self, wait: Callable[[float], Awaitable[bool]]) -> None:
        """Refresh the credentials again and again, until ``wait`` returns True after the given seconds."""
        while self._term is not None:
            due = max(self._term.refresh_time(), self._retry_time) - self._clock.now()
            if await wait(max(min(due, MAX_SLEEP).total_seconds(), 0.0)):
                return
            if self.is_due():
                try:
                    await self.refresh(KEEP_TIMEOUT)
                except FAILURES as failure:
                    _logger.warning("lease %s was not renewed: %s", self.credentials.lease_id, failure)

    async def end(self, limit: DurationLike | None = None) -> None:
        """Revoke the lease and those it replaced; an error has a note with the lease's id.

        Raises:
            errors.Error: The server refused, or could not be reached.
            RuntimeError: The client is closed.
        """
        self._ended = True
        ids = [lease_id for lease_id, end in self._replaced.items() if not self._is_gone(end)]
        self._replaced.clear()
        if self._current is not None:
            ids.append(self._current.lease_id)
        failed: Exception | None = None
        for lease_id in ids:
            try:
                await self._calls.call(_REVOKE, {"lease_id": lease_id, "sync": True}, limit)
            except FAILURES as error:
                error.add_note(f"lease {lease_id} may not be revoked; it ends at its expiry")
                failed = error
        if failed is not None:
            raise failed

    def _has_ended(self) -> bool:
        return self._ended

    def _is_gone(self, end: datetime) -> bool:
        """Return whether the server has certainly revoked a lease that ended then."""
        return end + GONE_AFTER < self._clock.now()

    def _next_step(self) -> Step:
        return Step.ISSUE if self._term is None else self._term.next_step(self._clock.now())

    async def _renew(self, limit: DurationLike | None) -> None:
        """Renew the lease; raises ``errors.Error`` only if a retry may help."""
        assert self._term is not None
        current, sent = self.credentials, self._clock.now()
        try:
            answer = await self._calls.call(_RENEW, {"lease_id": current.lease_id}, limit)
        except errors.Error as error:
            setback = setback_of(error)
            self._term = self._term.after_setback(setback, self._clock.now())
            if setback is Setback.AWAY:
                raise
            return
        granted = answer.lease_duration.ToTimedelta()
        end = end_on_this_clock(sent, self._clock.now(), granted, answer.expire_time.ToDatetime(UTC))
        self._term = self._term.after_renewal(sent, end, granted, renewable=answer.lease_renewable)
        self._current = replace(current, expire_time=end, renewable=answer.lease_renewable)


class LeaseView:
    """The attributes of a lease that is kept: always those of its current credentials."""

    def __init__(self, keeper: LeaseKeeper) -> None:
        """Show the credentials of ``keeper``."""
        self._keeper = keeper

    @property
    def credentials(self) -> Credentials:
        """Return all of them as one value, which a renewal in the meantime does not change."""
        return self._keeper.credentials

    @property
    def access_key(self) -> str:
        """Return the access key id."""
        return self.credentials.access_key

    @property
    def secret_key(self) -> str:
        """Return the secret key."""
        return self.credentials.secret_key

    @property
    def session_token(self) -> str:
        """Return the token of an STS session; empty for an IAM user."""
        return self.credentials.session_token

    @property
    def lease_id(self) -> str:
        """Return the id of the lease."""
        return self.credentials.lease_id

    @property
    def arn(self) -> str:
        """Return who the credentials are to AWS."""
        return self.credentials.arn

    @property
    def expire_time(self) -> datetime:
        """Return when the credentials end unless they are renewed, in UTC."""
        return self.credentials.expire_time

    @property
    def error(self) -> Exception | None:
        """Return why the last attempt to renew or replace them failed; None if it did not."""
        return self._keeper.error

    def __repr__(self) -> str:
        """Show no secret."""
        shown = repr(self.credentials) if self._keeper.is_issued else "not issued"
        return f"{type(self).__name__}({shown})"


def setback_of(error: errors.Error | BadConnection) -> Setback:
    """Return what a refused renewal means for the lease."""
    match error:
        case errors.Error(reason=Reason.NOT_RENEWABLE):
            return Setback.DENIED
        case errors.NotFound() | errors.Precondition() | errors.Error(reason=Reason.NOT_YOUR_LEASE):
            return Setback.LOST
        case errors.PermissionDenied() | errors.Invalid() | errors.Unimplemented():
            return Setback.DENIED
        case _:
            return Setback.AWAY
