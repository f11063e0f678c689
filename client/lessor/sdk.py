"""What the sessions of boto3 and aioboto3 have in common: when credentials are refreshed, and in what form.

Source: ``botocore.credentials.RefreshableCredentials``. It asks ``refresh_needed`` at each request: with 900
seconds whether to refresh, with 600 whether all requests must wait for that, with 0 whether they have ended.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Self

from lessor.arguments import DurationLike
from lessor.base import ClientBase
from lessor.clock import Clock
from lessor.leases import Credentials, LeaseKeeper, LeaseView

METHOD: Final = "lessor"
"""How botocore names the source of the credentials."""
ADVISORY_SECONDS: Final = 900
URGENT_LEFT: Final = timedelta(seconds=60)
"""When less is left, requests wait for the refresh, for as long as the client's timeout allows."""
PATIENCE: Final = timedelta(seconds=2)
"""How long one request waits for a renewal while the credentials are still valid."""


@dataclass(frozen=True, slots=True)
class SdkKeeper:
    """The lease of a session."""

    leases: LeaseKeeper

    @classmethod
    def of(
        cls, client: ClientBase[LeaseView], role: str, mount: str, ttl: DurationLike | None, clock: Clock
    ) -> Self:
        """Return the lease of a new session, which is not issued yet."""
        fields = {"mount": mount, "role": role, "ttl": ttl}
        return cls(client.keeper(fields, clock, random.SystemRandom()))

    def refresh_needed(self, refresh_in: float | None) -> bool:
        """Answer botocore: whether to refresh, to wait for the refresh, or whether the lease has ended."""
        if not self.leases.is_issued:
            return True
        if refresh_in is None or refresh_in >= ADVISORY_SECONDS:
            return self.leases.is_due() or self.is_urgent()
        return self.leases.left() <= timedelta() if refresh_in == 0 else self.is_urgent()

    def is_urgent(self) -> bool:
        """Return whether the credentials are about to end, or a twentieth of a short life is left."""
        return self.leases.is_issued and self.leases.left() <= min(URGENT_LEFT, self.leases.ttl() / 20)

    async def refresh(self) -> Credentials:
        """Renew the credentials, or replace them; a request that need not wait does so briefly."""
        needed = not self.leases.is_issued or self.is_urgent()
        return await self.leases.refresh(None if needed else PATIENCE)


def metadata_of(credentials: Credentials) -> dict[str, str | None]:
    """Return credentials in the form that botocore refreshes with."""
    return {
        "access_key": credentials.access_key,
        "secret_key": credentials.secret_key,
        "token": credentials.session_token or None,
        "expiry_time": credentials.expire_time.isoformat(),
        "account_id": None,
    }
