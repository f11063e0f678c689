"""The Protocol of the store of login tokens.

Instants are microseconds since the epoch by the store's clock.
"""

from __future__ import annotations

from typing import Protocol

from lessor_server.domain.access.login_token import LoginToken


class LoginStore(Protocol):
    """Rows of login tokens; each method is one transaction.

    Every method may raise ``StoreUnavailable``. One that reads a token may raise ``RowUnreadable`` or
    ``RowTampered``.
    """

    def now(self) -> int:
        """Return the service's time."""
        ...

    async def add_login_token(self, token: LoginToken, limit: int) -> bool:
        """Store a new token; False if its parent has ended.

        Raises:
            TooManyLoginTokens: The identity has ``limit`` live tokens; concurrent calls never pass it.
        """
        ...

    async def read_login_chain(self, digest: str) -> tuple[LoginToken, ...]:
        """Return the token with this digest and its ancestors, parents after children.

        Empty if there is none, or if one of them was revoked. It can have expired.
        """
        ...

    async def renew_login_token(self, token: LoginToken) -> bool:
        """Write the new expiry of a token; False if it has ended by the time of the commit."""
        ...

    async def end_login_token(self, digest: str) -> list[str]:
        """Delete a token and all that descend from it; return their digests."""
        ...

    async def purge_login_tokens(self, limit: int) -> int:
        """Delete at most ``limit`` tokens that have expired or whose parent is gone; return how many."""
        ...

    async def reseal_login_tokens(self, after: str, limit: int) -> str | None:
        """Authenticate the next tokens after the digest ``after`` under the data key in use.

        A row that is not authentic stays so. Returns the last digest, or None if there is none.
        """
        ...
