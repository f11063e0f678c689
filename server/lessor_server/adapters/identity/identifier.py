"""Identifies callers (temporary: the root token only)."""

from __future__ import annotations

from lessor_server.domain.access.access_rules import AccessRules
from lessor_server.domain.access.caller import ROOT, Credential, Principal
from lessor_server.domain.errors.base import Unauthenticated
from lessor_server.domain.secret import TokenHash


class Identifier:
    """Identifies callers by the rules of now."""

    def __init__(self, root_token: TokenHash | None) -> None:
        """Accept ``root_token``."""
        self._root_token = root_token
        self.version = 0

    async def identify(self, credential: Credential) -> Principal:
        """Return the caller."""
        if len(credential.authorization) == 1 and isinstance(credential.authorization[0], str):
            scheme, _, token = credential.authorization[0].partition(" ")
            if scheme.lower() == "bearer" and self._root_token and self._root_token.matches(token.strip()):
                return ROOT
        raise Unauthenticated("the token is missing or unknown")

    async def identify_again(self, principal: Principal) -> Principal:
        """Return the caller."""
        return principal

    def use(self, rules: AccessRules) -> None:
        """Use other rules."""
        self.version += 1

    def may_match(self, name: str) -> bool:
        """Return whether it may."""
        return name == "root"

    def warnings(self) -> list[str]:
        """Return none."""
        return []
