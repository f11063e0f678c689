"""Wires login tokens to the store, the access rules and the audit."""

from __future__ import annotations

import random

from lessor_server.adapters.identity.identifier import Identifier
from lessor_server.adapters.identity.jwt_limiter import JwtLimiter, JwtLimits
from lessor_server.adapters.identity.known_logins import KnownLogins
from lessor_server.engine.login_ports import LoginStore
from lessor_server.engine.logins import LoginTokens
from lessor_server.engine.ports import Report
from lessor_server.services.audit import CallAudit
from lessor_server.services.logins import Logins
from lessor_server.settings.model import Settings


def jwt_limits(settings: Settings) -> JwtLimits:
    """Return how many new JWTs a second are verified, login tokens looked up, and logins served."""
    return JwtLimits(settings.limits.new_jwts_per_peer, settings.limits.new_jwts)


def open_logins(
    settings: Settings, store: LoginStore, identifier: Identifier, rng: random.Random
) -> LoginTokens:
    """Return the login tokens of a store, with which ``identifier`` then knows callers."""
    identifier.logins = KnownLogins(store, jwt_limits(settings))
    return LoginTokens(store, rng)


def build_logins(
    settings: Settings, identifier: Identifier, tokens: LoginTokens, audit: CallAudit, report: Report
) -> Logins:
    """Return what serves logins to every transport."""
    return Logins(identifier, tokens, audit, JwtLimiter(jwt_limits(settings), "logins").admit, report)
