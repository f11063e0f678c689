"""The sessions at the end of assume chains: created hop by hop, kept, and renewed before they end.

A hop is one call of STS, signed with the session of the hop before it and sent through the same door as
every call. Sessions last an hour, which every IAM role allows and AWS's role chaining allows at most (IAM
User Guide, "Role chaining"). Their age is counted on the loop's clock, not on the wall's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakValueDictionary

from aiobotocore.credentials import AioCredentials
from botocore.credentials import ReadOnlyCredentials

from lessor_server.adapters.aws import identity_token
from lessor_server.adapters.file_reads import FileReads
from lessor_server.domain.aws.errors import AwsError, AwsRefused, AwsUnknown, Refusal
from lessor_server.domain.aws.iam_calls import Call
from lessor_server.domain.aws.sts_calls import AssumeRole, AssumeRoleWithWebIdentity, Session
from lessor_server.domain.errors.base import AwsAnswer, LessorError
from lessor_server.domain.root import Hop, Root
from lessor_server.domain.secret import Secret
from lessor_server.domain.token_places import TokenPlaces

SESSION_SECONDS = 3600
EARLY_SECONDS, LATEST_SECONDS = 600.0, 60.0
"""A session is renewed when less than the first is left of it; with less than the second it is not used."""
AGAIN_SECONDS, PATIENCE_SECONDS = 30.0, 2.0
"""The minimum time between renewals of a valid session, and the limit of one renewal: a call waits for it."""

ANY_PLACES = TokenPlaces()


@dataclass(frozen=True, slots=True)
class Source:
    """What a root signs with: its keys or its token, and its chain. Two mounts never share one."""

    mount: str
    version: int
    access_key: str
    secret_key: Secret
    identity_token_file: str
    chain: tuple[Hop, ...]

    @staticmethod
    def of(root: Root) -> Source:
        """Return the source of a root."""
        config = root.config
        return Source(
            root.mount,
            root.version,
            config.access_key,
            config.secret_key,
            config.identity_token_file,
            config.assume_chain,
        )


class ChainCredentials(AioCredentials):  # type: ignore[misc]  # aiobotocore ships no types
    """What clients at the end of one chain sign with: always the session that is kept now.

    Instants are the clock's; ``ends`` is 0 while there is no session. A caller that waits for another's
    try gets its result: ``tries`` shows whether there was one.
    """

    def __init__(self) -> None:
        """Begin without a session; none may sign before there is one."""
        super().__init__("", "", "")
        self.lock = asyncio.Lock()
        self.ends = 0.0
        self.again = 0.0
        self.tries = 0
        self.failure: LessorError | None = None

    def put(self, session: Session, ends: float) -> None:
        """Sign with another session from now on."""
        self.access_key = session.access_key_id
        self.secret_key = session.secret.reveal()
        self.token = session.token.reveal()
        self.ends = ends

    def expired(self, access_key: str) -> None:
        """Take note that AWS calls the session of this key expired; one made since then stands."""
        if access_key == self.access_key:
            self.ends = 0.0

    def wanted(self, now: float) -> bool:
        """Return whether a new session is needed soon."""
        return self.needed(now) or (now >= self.ends - EARLY_SECONDS and now >= self.again)

    def needed(self, now: float) -> bool:
        """Return whether nothing can be signed without a new session."""
        return now >= self.ends - LATEST_SECONDS

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return what to sign one request with."""
        return ReadOnlyCredentials(self.access_key, self.secret_key, self.token)


class Send(Protocol):
    """Sends the call of a hop."""

    def __call__(self, root: Root, call: Call[Session]) -> Awaitable[Session]:
        """Send one call for a root."""
        ...


class Chains:
    """Keeps the session at the end of each chain for as long as a client signs with it."""

    def __init__(
        self,
        send: Send,
        session_name: str,
        now: Callable[[], float] | None = None,
        token_places: TokenPlaces = ANY_PLACES,
    ) -> None:
        """Name sessions ``session_name``; ``now`` gives seconds, the running loop's where it is left out.

        ``token_places`` says where web identity tokens may lie.
        """
        self._send = send
        self._session_name = session_name
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self._token_places = token_places
        self._reads = FileReads()
        self._kept: WeakValueDictionary[Source, ChainCredentials] = WeakValueDictionary()

    async def ready(self, root: Root) -> ChainCredentials | None:
        """Return what clients of ``root`` sign with, its session fresh; None where no chain makes it.

        Raises:
            AwsRefused, AwsUnknown: A hop failed; its place in the chain is named.
            IdentityTokenUnusable: The first hop has no token.
        """
        if not root.config.assume_chain:
            return None
        end, now = self._kept.setdefault(Source.of(root), ChainCredentials()), self._now()
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
        """Create a new session; while the old one is valid, a failure only delays the next try."""
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
    """Return the failure of a hop with its place in it; one of an earlier hop bears its own already."""
    said = error.aws
    if said is None or said.action != call.action:
        return error
    named = f"{call.action} of assume_chain[{index}]"
    answer = AwsAnswer(named, said.code, f"{hop.role_arn}: {said.text}", said.request_id)
    if not isinstance(error, AwsRefused):
        return AwsUnknown(answer, sent=False)
    throttled = error.refusal is Refusal.THROTTLED
    return AwsRefused(answer, Refusal.THROTTLED if throttled else Refusal.DENIED)
