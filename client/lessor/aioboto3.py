"""aioboto3 sessions whose credentials are a lease: ``lessor.aioboto3.session("reader")``.

It needs the extra ``lessor[aioboto3]``.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import aioboto3
import aiobotocore.session
from aiobotocore.credentials import AioCredentialResolver, AioDeferredRefreshableCredentials
from botocore.credentials import CredentialProvider

from lessor.arguments import DurationLike
from lessor.client import Client
from lessor.clock import Clock, MachineClock
from lessor.sdk import METHOD, SdkKeeper, metadata_of


class AsyncRenewingSession(aioboto3.Session):  # type: ignore[misc]  # aioboto3 has no types
    """An aioboto3 session whose credentials are issued at first use, renewed, and replaced near their end.

    ``await close()``, or the end of ``async with``, revokes them.
    """

    def __init__(self, keeper: SdkKeeper, owned: Client | None, region_name: str | None) -> None:
        """Use the credentials of ``keeper``; close the client that is ``owned`` with the session."""
        self._keeper = keeper
        self._owned = owned
        core = aiobotocore.session.get_session()
        core.register_component("credential_provider", AioCredentialResolver([_AsyncProvider(keeper)]))
        super().__init__(region_name=region_name, botocore_session=core)

    async def close(self) -> None:
        """Revoke the credentials; raises ``lessor.Error`` if the server can't be reached."""
        try:
            await self._keeper.leases.end()
        finally:
            if self._owned is not None:
                await self._owned.close()

    async def __aenter__(self) -> Self:
        """Return the session."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Revoke the credentials."""
        await self.close()


def session(
    role: str,
    region_name: str | None = None,
    mount: str = "aws",
    ttl: DurationLike | None = None,
    client: Client | None = None,
    clock: Clock | None = None,
) -> AsyncRenewingSession:
    """Return an aioboto3 session that uses credentials of a role; the first use issues them.

    Args:
        role: The role.
        region_name: The session's region; else that of the environment.
        mount: The engine.
        ttl: The lifetime of each lease; else the role's.
        client: What calls the server; else a client of the environment, which is closed with the session.
        clock: What the lifetime is measured with; for tests.
    """
    caller = client if client is not None else Client.from_environ()
    keeper = SdkKeeper.of(caller, role, mount, ttl, clock or MachineClock())
    return AsyncRenewingSession(keeper, caller if client is None else None, region_name)


class _AsyncProvider(CredentialProvider):  # type: ignore[misc]  # botocore has no types
    METHOD = METHOD

    def __init__(self, keeper: SdkKeeper) -> None:
        self._credentials = _AsyncLeaseCredentials(keeper)

    async def load(self) -> AioDeferredRefreshableCredentials:
        return self._credentials


class _AsyncLeaseCredentials(AioDeferredRefreshableCredentials):  # type: ignore[misc]  # no types
    """Asks the lease when it is due, because botocore's own rule asks at each request of a short lease."""

    def __init__(self, keeper: SdkKeeper) -> None:
        self._keeper = keeper
        super().__init__(self._fetch_metadata, METHOD)

    def refresh_needed(self, refresh_in: float | None = None) -> bool:
        return self._keeper.refresh_needed(refresh_in)

    async def _fetch_metadata(self) -> dict[str, str | None]:
        return metadata_of(await self._keeper.refresh())
