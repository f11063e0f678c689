"""Links that sign a person in to the console: each works once, and for a minute.

A link holds a login token, sealed by the keyring that all servers of one store share, so that any of them can
serve it and none must remember it. Until the link is used, the token lives for a minute. It is never in the
URL in the clear: what a browser keeps in its history signs nobody in.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from lessor_server.domain.access.caller import Peer, Principal
from lessor_server.domain.errors.base import Unauthenticated
from lessor_server.domain.errors.preconditions import SealBroken
from lessor_server.domain.secret import Secret
from lessor_server.engine.sealing_ports import Sealer
from lessor_server.services.logins import Logins

SIGN_IN_PATH: Final = "/sign-in/link/"
"""The path of a link's page, before the code."""
LINK_TTL: Final = timedelta(seconds=60)
SESSION_TTL: Final = timedelta(hours=8)
"""The longest life of a session of the console."""
MAX_CODE: Final = 512
_MAX_USED: Final = 1_000
_PLACE: Final = "sign-in link"
_VERSION: Final = "1"
NEW_LINK: Final = "create a new link with lessor ui"
LINK_REFUSED: Final = "the link was used before, has expired, or is not a link of this server"


@dataclass(frozen=True, slots=True)
class SignInLink:
    """The secret part of a link's URL, and when it ends, in microseconds since the epoch."""

    code: str
    expires_us: int

    def __repr__(self) -> str:
        """Hide the code."""
        return f"SignInLink(expires_us={self.expires_us})"


class SignInLinks:
    """Creates links, and turns each into a session."""

    def __init__(self, logins: Logins, sealer: Sealer) -> None:
        """Create login tokens by ``logins``; seal them by ``sealer``."""
        self._logins = logins
        self.sealer = sealer
        self._used: dict[str, None] = {}
        """Accessors of the links used last: two uses at the same time would find the same row."""

    async def create(self, principal: Principal, peer: Peer) -> SignInLink:
        """Return a link that signs in as ``principal``. Raises as ``Logins.create_child``."""
        new = await self._logins.create_child(principal, peer, ttl=LINK_TTL, max_ttl=SESSION_TTL)
        assert new.status.expires_us is not None
        return SignInLink(seal_token(self.sealer, new.token, _PLACE), new.status.expires_us)

    def open(self, code: str) -> Secret:
        """Return the login token in a link; raises ``Unauthenticated`` if it holds none."""
        token = open_token(self.sealer, code, _PLACE)
        if token is None:
            raise Unauthenticated(LINK_REFUSED)
        return token

    async def use(self, principal: Principal, peer: Peer) -> None:
        """Let the login token of a link be that of a session, once.

        Raises:
            Unauthenticated: The link was used before.
        """
        login = principal.login
        if login is None or login.renewed_us or login.accessor in self._used:
            raise Unauthenticated(LINK_REFUSED)
        self._used[login.accessor] = None
        if await self._logins.read_whether_renewed(login):  # another server has let it be used
            raise Unauthenticated(LINK_REFUSED)
        if len(self._used) > _MAX_USED:
            del self._used[next(iter(self._used))]
        await self._logins.renew_self(principal, peer, SESSION_TTL)


def seal_token(sealer: Sealer, token: Secret, place: str) -> str:
    """Return a token sealed for one place, in characters that URLs and cookies allow."""
    sealed = sealer.seal(token.reveal().encode(), place, _VERSION)
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def open_token(sealer: Sealer, text: str, place: str) -> Secret | None:
    """Return the token that was sealed for a place, or None if ``text`` holds none."""
    if len(text) > MAX_CODE or not text.isascii():
        return None
    try:
        sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return Secret(sealer.open(sealed, place, _VERSION).decode())
    except (SealBroken, binascii.Error, ValueError):
        return None
