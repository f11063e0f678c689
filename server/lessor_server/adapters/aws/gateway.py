"""The one door to AWS: a call goes out once, and its answer, or the lack of one, comes back as a value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import botocore.exceptions as sdk
from botocore.parsers import ResponseParserError

from lessor_server.adapters.aws import failures
from lessor_server.adapters.aws.clients import CONNECT_SECONDS, READ_SECONDS, Clients, Place, places
from lessor_server.adapters.aws.requests import REQUESTS, Request
from lessor_server.domain.aws_errors import AwsUnknown
from lessor_server.domain.calls import Call, ProveKey
from lessor_server.domain.root import Root

T = TypeVar("T")


class AwsGateway:
    """Sends calls with the root's own client."""

    def __init__(self, clients: Clients) -> None:
        """Send through ``clients``."""
        self._clients = clients

    async def send(self, root: Root, call: Call[T]) -> T:
        """Send one call once; where STS has places to fall back on, once to each until one answers.

        Raises:
            AwsRefused: AWS answered no.
            AwsUnknown: No clear answer came in 7 s.
            EndpointNotAllowed: The root's endpoint is not one that may be reached.
        """
        request = REQUESTS[type(call)]
        *others, last = places(root.config, request.service)
        for place in others:
            try:
                return await self._send(root, call, request, place)
            except AwsUnknown:
                continue
        return await self._send(root, call, request, last)

    async def _send(self, root: Root, call: Call[T], request: Request, place: Place) -> T:
        plain = cast("Call[object]", call)
        try:
            async with (
                asyncio.timeout(CONNECT_SECONDS + READ_SECONDS),
                self._client(root, call, place) as client,
            ):
                answer: dict[str, Any] = await getattr(client, request.method)(**request.params(call))
            # A well-formed page of somebody else's (a proxy's login, say) reads like an empty success.
            answer["ResponseMetadata"]["RequestId"]
            return cast("T", request.read(answer))
        except sdk.ClientError as error:
            raise failures.from_sdk(plain, error) from None
        except (KeyError, TypeError, IndexError, ValueError, ResponseParserError) as error:
            raise failures.unreadable(plain, error) from None
        except (sdk.BotoCoreError, OSError, TimeoutError) as error:
            raise failures.from_network(plain, error) from None

    @asynccontextmanager
    async def _client(self, root: Root, call: Call[T], place: Place) -> AsyncIterator[Any]:
        """Give the client for a call: the root's own, or one that signs with the key to be proven."""
        if isinstance(call, ProveKey):
            async with self._clients.signing_as(root, place, call.key) as client:
                yield client
            return
        try:
            client = await self._clients.get(root, REQUESTS[type(call)].service, place)
        except (sdk.BotoCoreError, ValueError) as error:
            raise failures.unsent(cast("Call[object]", call), error) from None
        yield client
