"""One call of a transport, its caller, and an open stream."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from google.protobuf.message import Message

from lessor_server.domain.access.acl import EVERYTHING, NOTHING, Capability, Grant
from lessor_server.domain.access.caller import Credential, Peer, Principal
from lessor_server.domain.errors.base import LessorError, PermissionDenied, Unauthenticated
from lessor_server.services import parsing, permissions
from lessor_server.services.permissions import Need

UNKNOWN_PEER: Final = Peer("")


def _require_nothing() -> None: ...


@dataclass(slots=True)
class Caller:
    """The caller of one call, and its deadline in the loop's time (infinite if it has none).

    ``grant`` admits the call; it grants nothing before the call is authorised. If ``only_owner`` is not None,
    the call is limited to the leases of this owner. Both change when the access file is reloaded while a
    stream is open.
    """

    principal: Principal
    until: float = math.inf
    grant: Grant = NOTHING
    only_owner: str | None = None
    peer: Peer = UNKNOWN_PEER
    require_audit: Callable[[], None] = _require_nothing
    """Raises ``AuditUnavailable`` if a stream may not issue now, because it could not be recorded."""

    @property
    def seconds(self) -> float:
        """Return the seconds left."""
        return self.until - asyncio.get_running_loop().time()

    def require(self, path: str, capability: Capability) -> Grant:
        """Return the grant of a capability on a path, or raise ``PermissionDenied``."""
        grant = self.principal.find_right(path, (capability,))
        if grant is None:
            raise missing_capabilities((capability,), path)
        return grant

    @property
    def creates_only(self) -> bool:
        """Return whether the caller may create the object that it writes, but not change it."""
        return not self.grant.allows((Capability.UPDATE,))


class Exchange(Protocol):
    """One call on a transport: what came with it, its message, and its answers."""

    def metadata(self) -> Mapping[str, str]:
        """Return the text metadata of the call; of repeated keys the last."""
        ...

    def set_request_id(self, request_id: str) -> None:
        """Send the id of the call's audit records to the caller, with the end of the call."""
        ...

    @property
    def credential(self) -> Credential:
        """Return what the caller presents."""
        ...

    @property
    def seconds(self) -> float | None:
        """Return the seconds until the caller's deadline, less the time of the answer; None without one."""
        ...

    async def read(self) -> bytes | None:
        """Return the next message; None if the caller sends no more."""
        ...

    async def begin(self) -> None:
        """Report that a subscription has begun, before its first message."""
        ...

    async def write(self, message: Message) -> None:
        """Send one message of a stream."""
        ...


EndCall = Callable[[str], None]
"""Takes the name of a call's gRPC status code; never raises."""


class CallObserver(Protocol):
    """Observes each call, for metrics and traces."""

    def begin_call(self, service: str, method: str, metadata: Callable[[], Mapping[str, str]], /) -> EndCall:
        """Begin to observe a call in the current task; return what ends that.

        ``service`` is empty for an unknown method. ``metadata`` returns what came with the call.
        """
        ...


@dataclass(frozen=True, slots=True)
class Method:
    """One method: its name, what it needs, its request's class, and its implementation."""

    name: str
    needs: tuple[Need, ...] | None
    """None: everybody may call it, without a credential."""
    request: type[Message]
    serve: Any
    """A coroutine function, or for a stream an async generator function; None if unimplemented."""
    answers: bool = False
    """Whether it answers with a stream of messages."""
    converses: bool = False
    """Whether it answers each message of a stream with one message."""
    lasting: bool = False
    """An unbounded stream; it yields None first, when the subscription has begun."""
    service: str = ""
    """The full name of its service; empty for a method that the server does not have."""
    max_bytes: int = parsing.MAX_REQUEST_BYTES
    """The maximum size of its request."""

    def parse(self, data: bytes) -> Message:
        """Return the request in ``data``, or raise ``Invalid``."""
        return parsing.parse(self.request, data, self.max_bytes)


UNKNOWN_METHOD: Final = Method("the method", None, Message, None)


@dataclass(slots=True)
class ServedCall:
    """A call whose caller is identified; ``version`` is that of the rules by which it was judged."""

    method: Method
    exchange: Exchange
    caller: Caller
    version: int = 0
    request: Message | None = None
    _judged: list[tuple[str, Need]] = field(default_factory=list, init=False)
    _authorised: bool = field(default=False, init=False)

    def serve(self, request: Message) -> Any:  # noqa: ANN401 - a coroutine, or a generator for streams
        """Call the implementation."""
        return self.method.serve(request, self.caller)

    @property
    def sees_root(self) -> bool:
        """Return whether the caller may see private parts of the root that the request is about."""
        mount = "" if self.request is None else permissions.mount_in(self.request)
        return self.caller.principal.sees_root(mount)

    def find_needs(self) -> Sequence[tuple[str, Need]]:
        """Return what the request needs, each with its path, as far as the caller was judged.

        Raises:
            Invalid: The names in the request have the wrong shape.
        """
        assert self.request is not None
        if not self._judged:  # the holder of the root token needs nothing
            for need in self.method.needs or ():
                if need.when(self.request):
                    self._judged.append((permissions.path_of(need.path, self.request), need))
        return self._judged

    def authorise(self) -> None:
        """Judge the request by the caller's policies, again if it was judged before.

        A stream keeps the range of leases with which it began: all, or the caller's own.

        Raises:
            Invalid: The names in the request have the wrong shape.
            PermissionDenied: The caller lacks a capability, which the message names with its path.
        """
        assert self.request is not None
        caller = self.caller
        if caller.principal.acl is None:
            caller.grant = EVERYTHING
        elif self.method.needs:
            self._authorise_needs([need for need in self.method.needs if need.when(self.request)])
        self._authorised = True

    def _authorise_needs(self, needs: Sequence[Need]) -> None:
        assert self.request is not None
        caller, grants, missing = self.caller, [], []
        self._judged.clear()
        for need in needs:
            path = permissions.path_of(need.path, self.request)
            self._judged.append((path, need))
            if (grant := self._grant(need, path)) is not None:
                grants.append(grant)
            else:
                missing.append(missing_capabilities(need.capabilities, path))
        if not missing:
            caller.grant = grants[0]
        elif not self._authorised:
            caller.only_owner = caller.principal.name
        elif caller.only_owner is None:
            raise missing[0]

    def _grant(self, need: Need, path: str) -> Grant | None:
        """Return what grants a need; None if it is granted for the caller's own leases only."""
        principal = self.caller.principal
        right = principal.find_right(path, need.capabilities)
        if right is None and need.instead is not None:
            right = principal.find_right(path, (need.instead,))
        if right is not None:
            return right
        deciding = principal.find_grant(path, need.capabilities[0])
        if need.for_others and not (deciding is not None and deciding.denies):
            return None
        raise missing_capabilities(need.capabilities, path)


def missing_capabilities(wanted: Iterable[Capability], path: str) -> PermissionDenied:
    """Return the error of a caller that lacks capabilities on a path."""
    names = " and ".join(capability.value for capability in wanted)
    return PermissionDenied(f"this needs {names} on {path}", subject=path)


class OpenStream:
    """An open stream of a known caller; it ends at its deadline, or with ``error``."""

    def __init__(self, call: ServedCall, wall_clock: Callable[[], float]) -> None:
        self.call = call
        self._wall_clock = wall_clock
        self._timeout: asyncio.Timeout | None = None
        self._error: LessorError | None = None

    @property
    def until(self) -> float:
        """Return when the stream ends, in the loop's time: at its deadline, or with its credential."""
        return min(self.call.caller.until, self._credential_end)

    @property
    def error(self) -> LessorError | None:
        """Return why the stream has ended, except at its deadline."""
        # The clock is not asked: a timer may fire a moment early, and the two clocks differ by a little.
        if self._error is None and self._credential_end < self.call.caller.until:
            return Unauthenticated("the credential has expired during the stream")
        return self._error

    @property
    def _credential_end(self) -> float:
        left = self.call.caller.principal.expires_at - self._wall_clock()
        return asyncio.get_running_loop().time() + left

    @contextmanager
    def ending(self, timeout: asyncio.Timeout) -> Iterator[None]:
        """Let ``timeout`` end the stream while the block runs; raise its error if it has ended."""
        if self._error is not None:
            raise self._error
        self._timeout = timeout
        try:
            yield
        finally:
            self._timeout = None

    def end(self, error: LessorError) -> None:
        """End the stream with ``error``."""
        if self._error is None:
            self._error = error
            self._reschedule(asyncio.get_running_loop().time())

    def reschedule(self) -> None:
        """End the stream with its credential, whose end may have changed."""
        if self._error is None:
            self._reschedule(self.until)

    def _reschedule(self, when: float) -> None:
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(None if when == math.inf else when)
