"""Creates the sessions of assume chains hop by hop, keeps them, and renews them before they end.

A hop is one call of STS, signed with the session of the previous hop and sent through the same gateway. A
session lasts one hour: every IAM role allows it, and role chaining allows no more (IAM User Guide, "Role
chaining"). Its age is measured on the loop's clock, not the wall clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from lessor_server.adapters.aws import identity_token
from lessor_server.adapters.aws.credentials import KeptBySource, Source
from lessor_server.adapters.aws.signing_key import SigningKey
from lessor_server.adapters.file_reads import FileReads
from lessor_server.domain.aws.errors import AwsError, AwsRefused, AwsUnknown, Refusal
from lessor_server.domain.aws.iam_calls import AccessKey, Call
from lessor_server.domain.aws.sts_calls import AssumeRole, AssumeRoleWithWebIdentity, Session
from lessor_server.domain.errors.base import AwsAnswer, LessorError
from lessor_server.domain.root import Hop, Root
from lessor_server.domain.secret import Secret
from lessor_server.domain.token_places import TokenPlaces

SESSION_SECONDS = 3600
EARLY_SECONDS, LATEST_SECONDS = 600.0, 60.0
"""A session with less than the first time left is renewed; with less than the second it is not used."""
AGAIN_SECONDS, PATIENCE_SECONDS = 30.0, 2.0
"""The minimum time between renewals of a valid session, and the timeout of one, as a call waits for it."""

ANY_PLACES = TokenPlaces()


class ChainCredentials:
    """The signing credentials at the end of a chain: those of its current session.

    Instants are the clock's; ``ends`` is 0 while there is no session. A caller that waits for another's
    attempt uses its result: ``tries`` counts attempts.
    """

    def __init__(self) -> None:
        """Begin without a session; nothing can be signed before there is one."""
        self.session = AccessKey("", Secret())
        self.key = SigningKey("", "")
        self.lock = asyncio.Lock()
        self.ends = 0.0
        self.again = 0.0
        self.tries = 0
        self.failure: LessorError | None = None

    def put(self, session: Session, ends: float) -> None:
        """Sign with another session from now on."""
        self.session = AccessKey(session.access_key_id, session.secret, session.token)
        self.key = SigningKey.of(self.session)
        self.ends = ends

    def expired(self, key: SigningKey) -> None:
        """Record that AWS rejected this key's session as expired; a newer session stays valid."""
        if key is self.key:
            self.ends = 0.0

    def wanted(self, now: float) -> bool:
        """Return whether a new session is needed soon."""
        return self.needed(now) or (now >= self.ends - EARLY_SECONDS and now >= self.again)

    def needed(self, now: float) -> bool:
        """Return whether nothing can be signed without a new session."""
        return now >= self.ends - LATEST_SECONDS


class Send(Protocol):
    """Sends the STS call of a hop."""

    def __call__(self, root: Root, call: Call[Session]) -> Awaitable[Session]:
        """Send one call for a root."""
        ...


class Chains:
    """Keeps the session of each chain."""

    def __init__(
        self,
        send: Send,
        session_name: str,
        now: Callable[[], float] | None = None,
        token_places: TokenPlaces = ANY_PLACES,
    ) -> None:
        """Name sessions ``session_name``; ``now`` returns seconds, by default those of the running loop.

        ``token_places`` are the allowed places of web identity tokens.
        """
        self._send = send
        self._session_name = session_name
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self._token_places = token_places
        self._reads = FileReads()
        self._kept = KeptBySource(ChainCredentials)

    def forget(self, mount: str) -> None:
        """Drop the sessions of a mount."""
        self._kept.forget(mount)

    async def ready(self, root: Root) -> ChainCredentials | None:
        """Return the signing credentials of ``root``, with a fresh session; None if it has no chain.

        Raises:
            AwsRefused, AwsUnknown: A hop failed; its place in the chain is named.
            IdentityTokenUnusable: The first hop has no token.
        """
        if not root.config.assume_chain:
            return None
        end, now = self._kept.get(Source.of(root)), self._now()
        if not end.wanted(now) or (end.lock.locked() and not end.needed(now)):
            return end
        seen = end.tries
        async with end.lock:
            if end.tries != seen and end.failure is not None:
                raise end.failure.with_traceback(None)
            if end.wanted(self._now()):
                await self._renew(root, end)
        return end

    async def _renew(self, root: Root, end: ChainCredentials) -> None:
        """Create a new session; while the old one is valid, a failure only delays the next attempt."""
        began = self._now()
        serves = not end.needed(began)
        end.again, end.failure = began + AGAIN_SECONDS, None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS if serves else None):
                end.put(await self._assume(root), began + SESSION_SECONDS)
        except (LessorError, TimeoutError) as error:
            if not serves and isinstance(error, LessorError):
                end.failure = error
                raise
        finally:
            end.tries += 1

    async def _assume(self, root: Root) -> Session:
        *before, hop = root.config.assume_chain
        base = replace(root, config=replace(root.config, assume_chain=tuple(before)))
        call: Call[Session]
        if base.config.identity_token_file and not before:
            file, audience = base.config.identity_token_file, base.config.identity_token_audience
            token = await identity_token.read_token(file, audience, self._token_places, self._reads)
            call = AssumeRoleWithWebIdentity(hop.role_arn, self._session_name, SESSION_SECONDS, token)
        else:
            call = AssumeRole(hop.role_arn, self._session_name, SESSION_SECONDS, external_id=hop.external_id)
        try:
            return await self._send(base, call)
        except AwsError as error:
            raise _at_hop(error, call, len(before), hop) from None


def _at_hop(error: AwsError, call: Call[Session], index: int, hop: Hop) -> AwsError:
    """Return the failure of a hop with its place in the chain, unless an earlier hop has set it."""
    said = error.aws
    if said is None or said.action != call.action:
        return error
    named = f"{call.action} of assume_chain[{index}]"
    answer = AwsAnswer(named, said.code, f"{hop.role_arn}: {said.text}", said.request_id)
    if not isinstance(error, AwsRefused):
        return AwsUnknown(answer, sent=False)
    throttled = error.refusal is Refusal.THROTTLED
    return AwsRefused(answer, Refusal.THROTTLED if throttled else Refusal.DENIED)
