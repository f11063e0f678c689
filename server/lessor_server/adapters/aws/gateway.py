"""The only way to AWS: sends a call once, and returns its result or raises its error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeGuard, TypeVar, cast

import botocore.exceptions as sdk

from lessor_server.adapters.aws import error_codes
from lessor_server.adapters.aws.assume_chain import ANY_PLACES, ChainCredentials, Chains
from lessor_server.adapters.aws.credentials import KeptBySource, RootKey
from lessor_server.adapters.aws.endpoints import Endpoint, EndpointHealth, endpoints_of
from lessor_server.adapters.aws.http_client import CONNECT_SECONDS, READ_SECONDS
from lessor_server.adapters.aws.http_connection import NotAnAnswer
from lessor_server.adapters.aws.operations import iam, sts
from lessor_server.adapters.aws.operations.base import Answer, Operation, WrongField, read_text
from lessor_server.adapters.aws.query_client import QueryClient, QueryRequest
from lessor_server.adapters.aws.routes import Routes
from lessor_server.adapters.aws.sdk_session import CredentialsNotFetched
from lessor_server.adapters.aws.signing_key import SigningKey
from lessor_server.domain.aws.errors import AwsError, AwsRefused
from lessor_server.domain.aws.iam_calls import Call, VerifyKeyOnIam
from lessor_server.domain.aws.partition import IAM
from lessor_server.domain.aws.sts_calls import VerifyKey
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.root import Root
from lessor_server.domain.token_places import TokenPlaces
from lessor_server.engine.aws.request_ids import note_request_id
from lessor_server.engine.meter import OK, AwsObserver, EndAwsCall

T = TypeVar("T")

GIVE_UP_SECONDS = CONNECT_SECONDS + READ_SECONDS
_LARGE_BYTES: Final = 64 << 10
"""An answer of this size takes some milliseconds to read."""
_NOTHING: Final[Mapping[str, Any]] = {"HTTPHeaders": {}}
"""What is said about a refusal that verifies what its call checks."""
OPERATIONS = iam.OPERATIONS | sts.OPERATIONS
"""Every call that Lessor sends; a missing one cannot be sent."""


@dataclass(slots=True)
class _PendingCall(Generic[T]):
    """A call with its root, its operation and, if it has an assume chain, the chain's credentials."""

    root: Root
    call: Call[T]
    operation: Operation
    chained: ChainCredentials | None = None

    @property
    def is_of_root(self) -> bool:
        """Return whether the root's own credentials are used: neither a chain's nor those to verify."""
        return self.chained is None and not _is_proof(self.call)

    @property
    def plain(self) -> Call[object]:
        """Return the call as one of any answer type."""
        return cast("Call[object]", self.call)


class AwsGateway:
    """Sends calls, each signed with the credentials of its root."""

    def __init__(
        self,
        client: QueryClient,
        routes: Routes,
        session_name: str = "lessor",
        now: Callable[[], float] | None = None,
        token_places: TokenPlaces = ANY_PLACES,
        observer: AwsObserver | None = None,
    ) -> None:
        """Send with ``client``; sessions of assume chains are called ``session_name``.

        ``now`` returns the seconds by which those sessions age, by default the running loop's.
        ``token_places`` are the allowed places of web identity tokens. ``observer`` observes each request.
        """
        self._observer = observer
        self._client = client
        self._routes = routes
        self._chains = Chains(self.send, session_name, now, token_places)
        self._keys = KeptBySource(RootKey)
        self._endpoint_health = EndpointHealth()
        self._reading = asyncio.Lock()

    def forget(self, mount: str) -> None:
        """Drop a mount's credentials and sessions; calls in flight keep theirs."""
        self._chains.forget(mount)
        self._keys.forget(mount)

    def send(self, root: Root, call: Call[T]) -> Coroutine[object, object, T]:
        """Send one call once; if STS has fallback endpoints, once to each until one answers.

        It is answered or fails within 7 s. If AWS refuses it because the chain's session has expired, it had
        no effect and is sent once more, with a new session.

        Raises:
            AwsRefused: AWS answered no.
            AwsUnknown: No clear answer came.
            EndpointNotAllowed: The root's endpoint is not allowed.
            IdentityTokenUnusable: The root's token cannot be read.
        """
        until = asyncio.get_running_loop().time() + GIVE_UP_SECONDS
        pending = _PendingCall(root, call, OPERATIONS[type(call)])
        if root.config.assume_chain and not _is_proof(call):
            return self._send_chained(pending, until)
        return self._send(pending, until)

    async def _send_chained(self, pending: _PendingCall[T], until: float) -> T:
        """Send a call that a session of the root's chain signs."""
        await self._join_chain(pending, until)
        session = pending.chained.key if pending.chained else None
        try:
            return await self._send(pending, until)
        except AwsRefused as refused:
            if pending.chained is None or session is None or not error_codes.is_expired(refused):
                raise
            pending.chained.expired(session)
        await self._join_chain(pending, until)
        return await self._send(pending, until)

    async def _join_chain(self, pending: _PendingCall[T], until: float) -> None:
        """Wait for a session of the root's chain, which then signs the call."""
        try:
            async with asyncio.timeout_at(until):
                pending.chained = await self._chains.ready(pending.root)
        except TimeoutError as error:
            raise error_codes.unsent(pending.plain, error) from None

    def _send(self, pending: _PendingCall[T], until: float) -> Coroutine[object, object, T]:
        """Return what sends a call to its endpoint; STS may have several."""
        ways = endpoints_of(pending.root.config, pending.operation.service)
        if pending.operation.service == IAM:
            return self._send_to(pending, ways[0], until)
        return self._send_to_any(pending, self._endpoint_health.order(ways), until)

    async def _send_to_any(self, pending: _PendingCall[T], ways: Sequence[Endpoint], until: float) -> T:
        """Send a call to each endpoint in order, each with its share of the remaining time."""
        failed: list[tuple[Endpoint, AwsError]] = []
        for endpoint in ways:
            left = len(ways) - len(failed)
            try:
                return await self._send_to(pending, endpoint, until if left == 1 else _share(until, left))
            except AwsError as error:
                if not error_codes.is_endpoint_specific(error):
                    raise
                failed.append((endpoint, error))
                self._endpoint_health.failed(endpoint)
        raise error_codes.merge_endpoint_errors(failed)

    async def _send_to(self, pending: _PendingCall[T], endpoint: Endpoint, until: float) -> T:
        """Send a call to one endpoint, observed, and return the value of its answer."""
        request = await self._write(pending, endpoint, until)
        end: EndAwsCall = _ignore
        if self._observer is not None:
            end = self._observer.begin_aws_call(pending.root.mount, pending.operation.action)
        try:
            value, about = await self._exchange(pending, request, until)
            failure = None
        except Exception as error:  # noqa: BLE001  # of whatever type, it leaves as one of ours
            failure = _failure(pending.plain, error)
            value, about = cast("T", None), _NOTHING
        except BaseException:
            end("", "", "")
            raise
        # Raised here and not above, an error does not refer to the answer, which may be large.
        if failure is not None:
            said = failure.aws
            end(said.code if said else "", said.request_id if said else "", "")
            raise failure
        request_id = error_codes.valid_request_id(about)
        note_request_id(request_id)
        end(OK, request_id, about["HTTPHeaders"].get("date") or "")
        return value

    async def _exchange(
        self, pending: _PendingCall[T], request: QueryRequest, until: float
    ) -> tuple[T, Mapping[str, Any]]:
        """Send a request; return the value of its answer and what is said about it.

        Large answers are read one at a time, with other work between: each may take 0.1 s.
        """
        received = await self._client.send(request, until)
        if len(received.body) < _LARGE_BYTES:
            return _read(pending, request.read(received))
        async with self._reading:
            await asyncio.sleep(0)
            return _read(pending, request.read(received))

    async def _write(self, pending: _PendingCall[T], endpoint: Endpoint, until: float) -> QueryRequest:
        """Return the signed request of a call to an endpoint."""
        operation = pending.operation
        try:
            # A root with a web identity token signs nothing itself: the token is in the request.
            unsigned = bool(pending.root.config.identity_token_file) and pending.is_of_root
            route = self._routes.find(operation.service, endpoint, token=unsigned)
            key = None if unsigned else self._find_key(pending) or await self._fetch_key(pending, until)
            service = self._client.find(operation.service) or await self._client.load(operation.service)
            params = operation.params(pending.call)
            return self._client.write(service, operation.action, params, route, key)
        except LessorError:
            raise
        except CredentialsNotFetched as error:
            raise error_codes.unsigned(pending.plain, error.cause) from None
        except sdk.ParamValidationError as error:
            raise error_codes.from_network(pending.plain, error) from None
        except Exception as error:  # noqa: BLE001  # what the SDK's settings can raise is much
            raise error_codes.unsent(pending.plain, error) from None

    def _find_key(self, pending: _PendingCall[T]) -> SigningKey | None:
        """Return what signs a call: the key that it verifies, its chain's session, or the root's key.

        None if that is the server's own key.
        """
        if _is_proof(pending.call):
            return SigningKey.of(pending.call.key)
        if pending.chained is not None:
            return pending.chained.key
        config = pending.root.config
        return None if config.is_ambient else self._keys.of(pending.root).of_root(config)

    async def _fetch_key(self, pending: _PendingCall[T], until: float) -> SigningKey:
        """Return the server's own key."""
        async with asyncio.timeout_at(until):
            return await self._keys.of(pending.root).fetch()


def _share(until: float, count: int) -> float:
    """Return the instant at which the first of several equal parts of the time until then ends."""
    now = asyncio.get_running_loop().time()
    return now + (until - now) / count


def _ignore(_code: str, _request_id: str, _date: str) -> None: ...


def _read(pending: _PendingCall[T], answer: Answer) -> tuple[T, Mapping[str, Any]]:
    """Return the value of an answer and what is said about it.

    Raises:
        NotAnAnswer: A field is wrong, or it is another call's.
    """
    operation, about = pending.operation, answer["ResponseMetadata"]
    try:
        read_text(about, "RequestId")
        value = cast("T", operation.read(answer))
        if operation.is_of(pending.call, answer):
            return value, about
        problem = "the body is an answer to another call"
    except WrongField as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001  # as above
        problem = f"a field cannot be read ({type(error).__name__})"
    raise NotAnAnswer(about["HTTPStatusCode"], problem)


def _failure(call: Call[object], error: Exception) -> LessorError | None:
    """Return the error of a call that was sent; None if AWS's refusal verifies what the call checks."""
    match error:
        case LessorError():
            return error
        case sdk.ClientError():
            refused = error_codes.from_sdk(call, error)
            return None if error_codes.proves(call, refused) else refused
        case sdk.BotoCoreError():
            return error_codes.from_network(call, error)
        case _:  # of a parser: a stranger may have written the answer
            return error_codes.unreadable(call, error)


_PROOFS: Final = (VerifyKey, VerifyKeyOnIam)


def _is_proof(call: object) -> TypeGuard[VerifyKey | VerifyKeyOnIam]:
    return isinstance(call, _PROOFS)
