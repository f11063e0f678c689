"""Keeps the keys of one issuer: which are fresh, when they are read again, and what happens meanwhile."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, Protocol

from lessor_server.adapters.identity.key_set import KeySet, KeySetUnusable, VerifyingKey, read_key_set
from lessor_server.adapters.identity.key_source import KeysUnreadable
from lessor_server.domain.access.access_config import JwtIssuer
from lessor_server.domain.errors.access import IssuerUnavailable
from lessor_server.domain.errors.base import Unauthenticated, shown

REFRESH_SECONDS: Final = 1800.0
"""The age at which keys that are used are read again, in the background."""
FRESH_SECONDS: Final = 3600.0
"""The age up to which a call uses keys without waiting for the issuer."""
KEPT_SECONDS: Final = 86_400.0
"""The age up to which keys are used while the issuer does not answer."""
ATTEMPT_SECONDS: Final = 10.0
"""The least time between two attempts to read the keys of an issuer."""

Start = Callable[[Coroutine[object, object, None]], "asyncio.Task[None] | None"]
"""Runs a coroutine in the background; returns None if that is not possible any more."""


class Events(Protocol):
    """What happens to the keys of an issuer."""

    def keys_removed(self, issuer: JwtIssuer) -> None:
        """Forget what was verified with the issuer's keys: one has left the set, or has changed."""
        ...

    def keys_unreadable(self, issuer: JwtIssuer, problem: str) -> None:
        """Report that the issuer's keys can't be read."""
        ...


class IssuerKeys:
    """The keys of one issuer; times are the running loop's."""

    def __init__(
        self, issuer: JwtIssuer, read: Callable[[JwtIssuer], Awaitable[bytes]], start: Start, events: Events
    ) -> None:
        """Read the keys with ``read``, which raises ``KeysUnreadable``, in tasks that ``start`` starts."""
        self.issuer = issuer
        self.problem = ""
        """Why the last attempt to read the keys failed; empty if it did not."""
        self._read = read
        self._start = start
        self._events = events
        self._keys: KeySet | None = None
        self._read_at = -math.inf
        self._tried_at = -math.inf
        self._reading: asyncio.Task[None] | None = None

    def use_now(self) -> bool:
        """Return whether the keys can be used without waiting; read old ones again in the background.

        An issuer that is known to be away holds up no call while its keys are kept.
        """
        age = self._age()
        if age >= REFRESH_SECONDS:
            self._begin_read()
        return age < self._limit

    async def refresh(self) -> None:
        """Wait until the keys can be used; raise ``IssuerUnavailable`` if they can't."""
        if not self.use_now():
            await self._read_once()
            if self._age() >= self._limit:
                raise self._unavailable()

    async def find(self, key_id: str | None, algorithm: str) -> VerifyingKey:
        """Return the key that verifies a JWT; an unknown one makes it read the keys again.

        Raises:
            IssuerUnavailable: The key is not known, and the issuer does not answer.
            Unauthenticated: The issuer has no such key.
        """
        if self.use_now() and (key := self._known(key_id, algorithm)) is not None:
            return key
        await self._read_once()
        if self._age() < self._limit and (key := self._known(key_id, algorithm)) is not None:
            return key
        if self.problem or self._keys is None:
            raise self._unavailable()
        named = "without a kid" if key_id is None else f"with the kid {shown(key_id)}"
        raise Unauthenticated(
            f"the issuer {shown(self.issuer.name)} has no single key {named} for {shown(algorithm)};"
            f" its keys are read again at most once in {ATTEMPT_SECONDS:g} s"
        )

    def read_again(self) -> None:
        """Read the keys again now, in the background; those that are known are used meanwhile."""
        self._tried_at = -math.inf
        self._begin_read()

    def has(self, key: VerifyingKey) -> bool:
        """Return whether a key is in the set as it was last read."""
        return self._keys is not None and key in self._keys.keys

    @property
    def _limit(self) -> float:
        """Return the age up to which the keys are used."""
        return KEPT_SECONDS if self.problem else FRESH_SECONDS

    def _age(self) -> float:
        return asyncio.get_running_loop().time() - self._read_at

    def _known(self, key_id: str | None, algorithm: str) -> VerifyingKey | None:
        return None if self._keys is None else self._keys.find(key_id, algorithm)

    def _unavailable(self) -> IssuerUnavailable:
        return IssuerUnavailable(
            f"the keys of the issuer {shown(self.issuer.name)} can't be read now",
            retry_in=ATTEMPT_SECONDS,
            private=self.problem,
        )

    async def _read_once(self) -> None:
        """Wait for the running attempt, or for a new one unless the last was a moment ago.

        The attempt is a task, so it goes on if the waiting caller disconnects.
        """
        self._begin_read()
        if self._reading is not None:
            await asyncio.wait((self._reading,))

    def _begin_read(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._reading is not None or now - self._tried_at < ATTEMPT_SECONDS:
            return
        self._tried_at = now
        self._reading = self._start(self._read_keys(now))
        if self._reading is None:
            self.problem = "the server does not read keys now"
        else:
            self._reading.add_done_callback(self._end_read)

    def _end_read(self, task: asyncio.Task[None]) -> None:
        self._reading = None
        if task.cancelled():
            self.problem = "the server is stopping"

    async def _read_keys(self, now: float) -> None:
        try:
            keys = read_key_set(await self._read(self.issuer))
        except KeysUnreadable as error:
            self._fail(str(error))
        except KeySetUnusable as error:
            self._fail(f"its key set {error}")
        except Exception as error:  # noqa: BLE001 - the issuer decides what a library meets
            self._fail(type(error).__name__)
        else:
            before = () if self._keys is None else self._keys.keys
            self._keys, self._read_at, self.problem = keys, now, ""
            if not set(before) <= set(keys.keys):
                self._events.keys_removed(self.issuer)

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self._events.keys_unreadable(self.issuer, problem)
