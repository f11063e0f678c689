"""SDK clients: one for each source, service and place, for as long as the root's version is in use.

Measured against the SDK as it comes, configuration alone saves a quarter of the CPU a call costs: a
fixed user agent, ISO timestamps by ``datetime.fromisoformat``, a pool wide enough that no call queues
in it, and no retries (the engine decides what to do about an unclear answer).
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from aiobotocore.session import AioSession
from botocore import UNSIGNED

from lessor_server.adapters.aws.chains import ChainCredentials, Source
from lessor_server.adapters.aws.places import Place
from lessor_server.domain.calls import MadeKey
from lessor_server.domain.preconditions import EndpointNotAllowed
from lessor_server.domain.root import Root, RootConfig, is_aws_endpoint, may_take_token

CONNECT_SECONDS, READ_SECONDS = 2, 5
DEFAULT_REGION = "us-east-1"
RETIRED_SECONDS = 60.0
"""How long clients of an older root stay open: calls may still be on their way with them."""
_POOL = 128


@dataclass(slots=True)
class _Kept:
    """One client and how to close it; ``retired`` is the clock's instant from which it is not needed."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    client: Any = None
    retired: float | None = None


Key = tuple[Source, str, Place]


class Clients:
    """Makes and keeps clients; close it by leaving its ``async with``."""

    def __init__(
        self,
        allowed_endpoints: tuple[str, ...],
        user_agent: str,
        now: Callable[[], float] | None = None,
    ) -> None:
        """Reach AWS's own hosts and ``allowed_endpoints``, nothing else.

        ``now`` is the clock, in seconds, by which old clients are closed: the running loop's where left out.
        """
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self._allowed = frozenset(endpoint.rstrip("/") for endpoint in allowed_endpoints)
        self._config = AioConfig(
            user_agent=user_agent,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=_POOL,
            retries={"mode": "standard", "total_max_attempts": 1},
            # The environment of the server must not lead signed requests elsewhere.
            ignore_configured_endpoint_urls=True,
        )
        self._loader = AioSession().get_component("data_loader")
        self._kept: dict[Key, _Kept] = {}

    async def __aenter__(self) -> Self:
        """Begin without clients."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every client that was made."""
        for kept in self._kept.values():
            await kept.stack.aclose()
        self._kept.clear()

    async def get(self, root: Root, service: str, place: Place, chained: ChainCredentials | None) -> Any:
        """Return the client of a root for ``service``, iam or sts, at ``place``.

        It signs as ``chained`` where that is given. Clients of older versions of the mount's root are closed
        a minute after the first of a newer one was made.
        """
        key = (Source.of(root), service, place)
        kept = self._kept.setdefault(key, _Kept())
        if kept.client is None:
            async with kept.lock:
                if kept.client is None:
                    maker = self._maker(root.config, service, place, chained)
                    kept.client = await kept.stack.enter_async_context(maker)
                    await self._clear_up(key[0])
        return kept.client

    @asynccontextmanager
    async def signing_as(self, root: Root, service: str, place: Place, key: MadeKey) -> AsyncIterator[Any]:
        """Give a client of ``service`` that signs with ``key``, for as long as the block lasts."""
        credentials = AioCredentials(key.access_key_id, key.secret.reveal(), key.token.reveal() or None)
        async with self._maker(root.config, service, place, credentials) as client:
            yield client

    async def _clear_up(self, newest: Source) -> None:
        """Close what older roots of the mount left, once it is retired for long enough."""
        now = self._now()
        for key, kept in list(self._kept.items()):
            if kept.retired is not None and now - kept.retired > RETIRED_SECONDS:
                del self._kept[key]
                await kept.stack.aclose()
                gc.unfreeze()
            elif kept.retired is None and _is_older(key[0], newest):
                kept.retired = now
        # The SDK's models are large and live for ever: kept out of every collection from now on.
        gc.collect()
        gc.freeze()

    def _maker(
        self, config: RootConfig, service: str, place: Place, credentials: AioCredentials | None
    ) -> Any:
        """Return what makes a client; without ``credentials`` it signs with the root's keys, or the server's.

        Where the root has a token and no chain stands behind it, nobody signs: the token speaks.
        """
        unsigned = bool(config.identity_token_file) and credentials is None
        self._check(place.endpoint, token=unsigned)
        if credentials is None and config.access_key:
            credentials = AioCredentials(config.access_key, config.secret_key.reveal())
        session: Any = _session(self._loader, credentials)
        return session.create_client(
            service,
            region_name=place.region or None,
            endpoint_url=place.endpoint or None,
            config=self._config.merge(AioConfig(signature_version=UNSIGNED)) if unsigned else self._config,
        )

    def _check(self, endpoint: str, *, token: bool) -> None:
        """Refuse an endpoint that is not to be reached, or not with a web identity token."""
        if not endpoint or is_aws_endpoint(endpoint):
            return
        if endpoint.rstrip("/") not in self._allowed or (
            token and not may_take_token(endpoint, self._allowed)
        ):
            raise EndpointNotAllowed(f"endpoint {endpoint} is not allowed", subject=endpoint)


def _is_older(source: Source, newest: Source) -> bool:
    return source.mount == newest.mount and source.version < newest.version


@dataclass(frozen=True, slots=True)
class _Given:
    """Provides credentials that are known already, in the place of the SDK's own chain of providers."""

    credentials: AioCredentials

    async def load_credentials(self) -> AioCredentials:
        """Return them."""
        return self.credentials


def _session(loader: Any, credentials: AioCredentials | None) -> AioSession:
    """Return a session whose timestamps are parsed by the standard library; it shares read models."""
    session = AioSession()
    session.register_component("data_loader", loader)
    parsers = session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=datetime.fromisoformat)
    if not session.get_config_variable("region"):
        session.set_config_variable("region", DEFAULT_REGION)
    if credentials is not None:
        session.register_component("credential_provider", _Given(credentials))
    return session
