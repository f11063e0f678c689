"""SDK clients: one for each root and service, for as long as the root's config lives.

Measured against the SDK as it comes, configuration alone saves a quarter of the CPU a call costs: a
fixed user agent, ISO timestamps by ``datetime.fromisoformat``, a pool wide enough that no call queues
in it, and no retries (the engine decides what to do about an unclear answer).
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

import aioboto3
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from lessor_server.domain.calls import MadeKey
from lessor_server.domain.preconditions import EndpointNotAllowed
from lessor_server.domain.root import Root, RootConfig, is_aws_endpoint

CONNECT_SECONDS, READ_SECONDS = 2, 5
DEFAULT_REGION = "us-east-1"
_POOL = 128


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service is: an endpoint and a region; empty means the SDK's default."""

    endpoint: str
    region: str


def places(config: RootConfig, service: str) -> tuple[Place, ...]:
    """Return where to find ``service``, in the order to try; STS may have places to fall back on."""
    if service == "iam":
        return (Place(config.iam_endpoint, config.region),)
    fallbacks = zip(config.sts_fallback_endpoints, config.sts_fallback_regions, strict=True)
    first = Place(config.sts_endpoint, config.sts_region or config.region)
    return (first, *(Place(endpoint, region) for endpoint, region in fallbacks))


class Clients:
    """Makes and keeps clients; close it by leaving its ``async with``."""

    def __init__(self, allowed_endpoints: tuple[str, ...], user_agent: str) -> None:
        """Reach AWS's own hosts and ``allowed_endpoints``, nothing else."""
        self._allowed = frozenset(endpoint.rstrip("/") for endpoint in allowed_endpoints)
        self._config = AioConfig(
            user_agent=user_agent,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=_POOL,
            retries={"mode": "standard", "total_max_attempts": 1},
        )
        self._stack = AsyncExitStack()
        self._clients: dict[tuple[str, str, Place], tuple[RootConfig, Any]] = {}

    async def __aenter__(self) -> Self:
        """Begin without clients."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every client that was made."""
        await self._stack.aclose()

    async def get(self, root: Root, service: str, place: Place) -> Any:
        """Return the client of a root for ``service``, iam or sts, at ``place``.

        A client of an older config stays open until the end: calls may still be on their way with it.
        """
        key = (root.mount, service, place)
        config, client = self._clients.get(key, (None, None))
        if config != root.config:
            client = await self._make(root.config, service, place)
            self._clients[key] = (root.config, client)
        return client

    @asynccontextmanager
    async def signing_as(self, root: Root, place: Place, key: MadeKey) -> AsyncIterator[Any]:
        """Give a client of STS that signs with ``key``, for as long as the block lasts."""
        config = replace(root.config, access_key=key.access_key_id, secret_key=key.secret)
        async with self._maker(config, "sts", place) as client:
            yield client

    async def _make(self, config: RootConfig, service: str, place: Place) -> Any:
        client = await self._stack.enter_async_context(self._maker(config, service, place))
        # The SDK's models are large and live for ever: kept out of every collection from now on.
        gc.collect()
        gc.freeze()
        return client

    def _maker(self, config: RootConfig, service: str, place: Place) -> Any:
        endpoint = place.endpoint
        if endpoint and endpoint.rstrip("/") not in self._allowed and not is_aws_endpoint(endpoint):
            raise EndpointNotAllowed(f"endpoint {endpoint} is not allowed", subject=endpoint)
        return _session().client(
            service,
            region_name=place.region or None,
            endpoint_url=endpoint or None,
            aws_access_key_id=config.access_key or None,
            aws_secret_access_key=config.secret_key.reveal() or None,
            config=self._config,
        )


def _session() -> aioboto3.Session:
    """Return a session whose timestamps are parsed by the standard library."""
    session = AioSession()
    parsers = session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=datetime.fromisoformat)
    if not session.get_config_variable("region"):
        session.set_config_variable("region", DEFAULT_REGION)
    return aioboto3.Session(botocore_session=session)
