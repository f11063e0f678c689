"""Sessions of the console: who signs in, and by which token its calls are then made."""

from __future__ import annotations

from typing import Protocol

from aiohttp.web import BaseRequest


class Sessions(Protocol):
    """Begins and ends sessions."""

    async def begin(self, request: BaseRequest, token: str) -> str:
        """Return the token of a new session for the holder of ``token``: a token, or a JWT.

        Raises:
            CallFailed: The token is not accepted.
        """
        ...

    async def begin_by_link(self, request: BaseRequest, code: str) -> str:
        """Return the token of a new session for the maker of a link, which works once.

        Raises:
            CallFailed: The link was used before, has expired, or was never made.
        """
        ...

    async def end(self, request: BaseRequest, session: str) -> None:
        """End a session; one that has ended already is no error."""
        ...
