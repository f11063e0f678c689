"""An answer that one or more callers wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from lessor_server.domain.errors.base import DeadlineExceeded, LessorError
from lessor_server.domain.lease import Lease
from lessor_server.engine.issuing.request import Credentials


class InFlightIssue:
    """One issue's answer; several callers share it where they sent the same request id."""

    def __init__(self, digest: str = "") -> None:
        """Begin without an answer; ``digest`` distinguishes the same request from another."""
        self.digest = digest
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
