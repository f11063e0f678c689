"""boto3 sessions whose credentials are a lease: ``lessor.boto3.session("reader")``.

It needs the extra ``lessor[boto3]``.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import boto3
import botocore.session
from botocore.credentials import CredentialProvider, CredentialResolver, RefreshableCredentials

from lessor import sync
from lessor.arguments import DurationLike
from lessor.calls import run
from lessor.clock import Clock, MachineClock
from lessor.sdk import METHOD, SdkKeeper, metadata_of


class RenewingSession(boto3.Session):  # type: ignore[misc]  # boto3 has no types
    """A boto3 session whose credentials are renewed, and replaced only near their end.

    ``close``, or the end of ``with``, revokes them.
    """

    def __init__(self, keeper: SdkKeeper, owned: sync.Client | None, region_name: str | None) -> None:
        """Use the credentials of ``keeper``; close the client that is ``owned`` with the session."""
        self._keeper = keeper
        self._owned = owned
        core = botocore.session.get_session()
        core.register_component("credential_provider", CredentialResolver([_Provider(keeper)]))
        super().__init__(region_name=region_name, botocore_session=core)

    def close(self) -> None:
        """Revoke the credentials; raises ``lessor.Error`` if the server can't be reached."""
        try:
            run(self._keeper.leases.end())
        finally:
            if self._owned is not None:
                self._owned.close()

    def __enter__(self) -> Self:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Revoke the credentials."""
        self.close()


def session(
    role: str,
    region_name: str | None = None,
    mount: str = "aws",
    ttl: DurationLike | None = None,
    client: sync.Client | None = None,
    clock: Clock | None = None,
) -> RenewingSession:
    """Issue credentials of a role and return a boto3 session that uses them.

    Args:
        role: The role.
        region_name: The session's region; else that of the environment.
        mount: The engine.
        ttl: The lifetime of each lease; else the role's.
        client: What calls the server; else a client of the environment, which is closed with the session.
        clock: What the lifetime is measured with; for tests.

    Raises:
        lessor.Error: The credentials could not be issued.
    """
    caller = client if client is not None else sync.Client.from_environ()
    owned = caller if client is None else None
    try:
        keeper = SdkKeeper.of(caller, role, mount, ttl, clock or MachineClock())
        run(keeper.leases.issue())
        return RenewingSession(keeper, owned, region_name)
    except BaseException:
        if owned is not None:
            owned.close()
        raise


class _Provider(CredentialProvider):  # type: ignore[misc]  # botocore has no types
    METHOD = METHOD

    def __init__(self, keeper: SdkKeeper) -> None:
        self._credentials = _LeaseCredentials(keeper)

    def load(self) -> RefreshableCredentials:
        return self._credentials


class _LeaseCredentials(RefreshableCredentials):  # type: ignore[misc]  # botocore has no types
    """Asks the lease when it is due, because botocore's own rule asks at each request of a short lease."""

    def __init__(self, keeper: SdkKeeper) -> None:
        self._keeper = keeper
        held = keeper.leases.credentials
        super().__init__(
            held.access_key,
            held.secret_key,
            held.session_token or None,
            held.expire_time,
            self._fetch_metadata,
            METHOD,
        )

    def refresh_needed(self, refresh_in: float | None = None) -> bool:
        return self._keeper.refresh_needed(refresh_in)

    def _fetch_metadata(self) -> dict[str, str | None]:
        return metadata_of(run(self._keeper.refresh()))
