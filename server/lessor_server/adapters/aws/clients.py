"""SDK clients: one for each source, service and endpoint, while the root's version is in use.

Compared with the SDK's defaults, the configuration saves a quarter of the CPU time of a call: a fixed user
agent, ISO timestamps by ``datetime.fromisoformat``, a pool in which no call waits. The SDK does not retry;
the engine decides that.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self

from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from botocore import UNSIGNED
from botocore.exceptions import NoCredentialsError

from lessor_server.adapters.aws.assume_chain import ChainCredentials, Source
from lessor_server.adapters.aws.endpoints import Endpoint
from lessor_server.adapters.aws.per_call_credentials import PerCallCredentials
from lessor_server.adapters.aws.sdk_session import CredentialsNotFetched, SdkSession
from lessor_server.domain.aws.partition import signing_region
from lessor_server.domain.errors.preconditions import EndpointNotAllowed
from lessor_server.domain.root import Root, RootConfig, is_aws_endpoint, may_take_token

CONNECT_SECONDS, READ_SECONDS = 2, 5
DEFAULT_REGION = "us-east-1"
RETIRED_SECONDS = 60.0
"""How long an unneeded client stays open, for its calls in flight."""
IDLE_SECONDS = 3600.0
"""How long an unused client of a mount is kept when the mount needs another."""
MAX_VERIFICATION_CLIENTS = 16
_POOL = 128


@dataclass(slots=True, eq=False)
class _Kept:
    """A client, its close function, and when it was last used; a ``retired`` one is closed soon."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    client: Any = None
    session: Any = None
    used: float = 0.0
    retired: bool = False

    async def create(self, maker: Callable[[], Any]) -> bool:
        """Create the client unless it exists; return whether it was created."""
        async with self.lock:
            if self.client is not None:
                return False
            self.client = await self.stack.enter_async_context(maker())
            return True


Key = tuple[Source, str, Endpoint]


class Clients:
    """Creates and keeps clients; its ``async with`` closes them."""

    def __init__(self, allowed_endpoints: tuple[str, ...], user_agent: str) -> None:
        """Connect only to AWS's own hosts and ``allowed_endpoints``."""
        self._allowed = frozenset(endpoint.rstrip("/") for endpoint in allowed_endpoints)
        self._config = AioConfig(
            user_agent=user_agent,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=_POOL,
            retries={"mode": "standard", "total_max_attempts": 1},
            # The server's environment must not send signed requests elsewhere.
            ignore_configured_endpoint_urls=True,
        )
        self._kept: dict[Key, _Kept] = {}
        self._verification_clients: dict[tuple[str, Endpoint], _Kept] = {}
        self._closers = asyncio.TaskGroup()
        self._ended = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Begin without clients."""
        await self._closers.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every client."""
        self._close_later([*self._kept.values(), *self._verification_clients.values()])
        self._kept.clear()
        self._verification_clients.clear()
        self._ended.set()
        await self._closers.__aexit__(None, None, None)

    async def get(
        self, root: Root, service: str, endpoint: Endpoint, chained: ChainCredentials | None
    ) -> Any:
        """Return the client of a root for ``service``, iam or sts, at ``endpoint``.

        It signs as ``chained`` if that is given. When a client is created, those of older versions of the
        mount's root and those long unused are closed a minute later.
        """
        key = (Source.of(root), service, endpoint)
        kept = self._kept.setdefault(key, _Kept())
        kept.used = asyncio.get_running_loop().time()
        if kept.client is None and await kept.create(
            lambda: self._maker(kept, root.config, service, endpoint, chained)
        ):
            self._retire(root.mount)
            _keep_out_of_collections()
        if root.config.is_ambient and chained is None:
            await self._require_credentials(key, kept)
        return kept.client

    async def _require_credentials(self, key: Key, kept: _Kept) -> None:
        """Fetch the server's own credentials, unless they are fresh; nothing was sent to IAM or STS yet.

        A client that is created without credentials would never get any.

        Raises:
            CredentialsNotFetched: There are none, or they are due for renewal and can't be renewed.
        """
        credentials: Any = await kept.session.get_credentials()
        if credentials is None:
            self._drop([key] if self._kept.get(key) is kept else [])
            raise CredentialsNotFetched(NoCredentialsError())
        try:
            await credentials.get_frozen_credentials()
        except Exception as error:
            raise CredentialsNotFetched(error) from error

    async def verification_client(self, service: str, endpoint: Endpoint) -> Any:
        """Return the client of ``service`` at ``endpoint`` that signs each call with ``signing_key``.

        All mounts share it, as it has no state of theirs. Of more than 16 the least recently used is closed.
        """
        kept = self._verification_clients.pop((service, endpoint), _Kept())
        self._verification_clients[service, endpoint] = kept
        if len(self._verification_clients) > MAX_VERIFICATION_CLIENTS:
            self._close_later([self._verification_clients.pop(next(iter(self._verification_clients)))])
        if kept.client is None and await kept.create(
            lambda: self._maker(kept, RootConfig(), service, endpoint, PerCallCredentials())
        ):
            _keep_out_of_collections()
        return kept.client

    def forget(self, mount: str) -> None:
        """Release a mount's clients; they are closed when their calls in flight have ended."""
        self._drop([key for key in self._kept if key[0].mount == mount])

    def _drop(self, keys: Sequence[Key]) -> None:
        """Remove clients, and close them when their calls in flight have ended."""
        if keys:
            self._close_later([self._kept.pop(key) for key in keys])

    def _retire(self, mount: str) -> None:
        """Close the clients of a mount that are unused for long, or of an older version of its root."""
        since = asyncio.get_running_loop().time() - IDLE_SECONDS
        self._drop([key for key, kept in self._kept.items() if key[0].mount == mount and kept.used < since])
        of_mount = {key: kept for key, kept in self._kept.items() if key[0].mount == mount}
        newest = max((source.version for source, _, _ in of_mount), default=0)  # it may be removed by now
        older = [key for key, kept in of_mount.items() if key[0].version < newest and not kept.retired]
        if older:
            self._close_later([self._kept[key] for key in older], older)

    def _close_later(self, retired: Sequence[_Kept], keys: Sequence[Key] = ()) -> None:
        """Close clients in a minute; until then they can be used."""
        for kept in retired:
            kept.retired = True
        self._closers.create_task(self._close_retired(retired, keys))

    async def _close_retired(self, retired: Sequence[_Kept], keys: Sequence[Key]) -> None:
        try:
            async with asyncio.timeout(RETIRED_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            pass
        finally:
            for key in keys:
                if self._kept.get(key) in retired:
                    del self._kept[key]
            for kept in retired:
                with suppress(Exception):  # it is released in any case, and nobody waits for the error
                    await kept.stack.aclose()
                kept.client = kept.session = None  # its reference cycles are collected below
        gc.unfreeze()
        _keep_out_of_collections()

    def _maker(
        self,
        kept: _Kept,
        config: RootConfig,
        service: str,
        endpoint: Endpoint,
        credentials: AioCredentials | None,
    ) -> Any:
        """Return a new client's context manager; without ``credentials`` it uses the root's or the server's.

        If the root has a token and there are no ``credentials``, requests are unsigned: they have the token.
        """
        unsigned = bool(config.identity_token_file) and credentials is None
        self._check(endpoint.url, token=unsigned)
        if credentials is None and config.access_key:
            credentials = AioCredentials(config.access_key, config.secret_key.reveal())
        kept.session = _session(credentials)
        return kept.session.create_client(
            service,
            region_name=_signing_region(kept.session, service, endpoint),
            endpoint_url=endpoint.url or None,
            config=self._config.merge(AioConfig(signature_version=UNSIGNED)) if unsigned else self._config,
        )

    def _check(self, endpoint: str, *, token: bool) -> None:
        """Raise an error if an endpoint is not allowed, or not with a web identity token."""
        if not endpoint or is_aws_endpoint(endpoint):
            return
        if endpoint.rstrip("/") not in self._allowed or (
            token and not may_take_token(endpoint, self._allowed)
        ):
            raise EndpointNotAllowed(
                "an endpoint of the root is not allowed", subject="root", private=endpoint
            )


def _keep_out_of_collections() -> None:
    """Collect garbage once, and exclude the SDK's large models from later collections.

    A full collection stops the event loop: with 16 clients for 150 ms, after this one for less than 1 ms.
    """
    gc.collect()
    gc.freeze()


@dataclass(frozen=True, slots=True)
class _Given:
    """Provides known credentials, in place of the SDK's own chain of providers."""

    credentials: AioCredentials

    async def load_credentials(self) -> AioCredentials:
        """Return them."""
        return self.credentials


def _signing_region(session: SdkSession, service: str, endpoint: Endpoint) -> str | None:
    """Return the region of a client, by which the SDK finds its endpoint and signs."""
    if not endpoint.url:
        return endpoint.region or None
    return signing_region(service, endpoint.url, endpoint.region or session.get_config_variable("region"))


@cache
def _loader() -> Any:
    """Return the process's only loader of the SDK's models, which caches them."""
    return SdkSession().get_component("data_loader")


def _session(credentials: AioCredentials | None) -> SdkSession:
    """Return a session that signs with ``credentials``, by default the server's own."""
    session = SdkSession(_loader())
    if not session.get_config_variable("region"):
        session.set_config_variable("region", DEFAULT_REGION)
    if credentials is not None:
        session.register_component("credential_provider", _Given(credentials))
    return session
