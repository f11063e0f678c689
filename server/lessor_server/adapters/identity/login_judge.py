"""Judges login tokens by the access rules: each is worth what the credential behind it is worth now."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from lessor_server.adapters.identity.known_callers import KnownCaller
from lessor_server.domain.access.access_config import AccessConfig, Identity, TokenMatch
from lessor_server.domain.access.acl import Acls
from lessor_server.domain.access.caller import AuthMethod
from lessor_server.domain.access.claims import Validity
from lessor_server.domain.access.identify import Identified, fill_identity
from lessor_server.domain.access.kept_claims import identify_kept
from lessor_server.domain.access.login_token import DEFAULT_MAX_TTL, KeptCredential, KeptJwt, LoginToken
from lessor_server.domain.access.names import ROOT_NAME
from lessor_server.domain.durations import MICROSECOND
from lessor_server.domain.errors.base import Unauthenticated, shown

_ROOT: Final = Identity(ROOT_NAME, TokenMatch(()), (ROOT_NAME,))
"""Whose identity a login token of the root token has."""


@dataclass(frozen=True, slots=True)
class LoginRules:
    """The rules by which login tokens are judged; ``root_digest`` is the root token's in hex, or empty."""

    config: AccessConfig
    acls: Acls
    root_digest: str
    find_token: Callable[[bytes], KnownCaller | None]


def judge_login(
    rules: LoginRules, chain: tuple[LoginToken, ...], now_us: int, wall_clock: float
) -> KnownCaller:
    """Return the caller of a login token, with its ancestors behind it in ``chain``.

    It is as long-lived as the shortest-lived of them, each under today's ``token_max_ttl``. ``now_us`` is the
    store's time, which decides; calls and streams end by the machine's, ``wall_clock`` in seconds.

    Raises:
        Unauthenticated: It has ended, the rules no longer accept its credential, or map it to another caller.
    """
    token = chain[0]
    identified, is_root, until = _identify(rules, token.credential)
    if identified.name != token.identity:
        raise Unauthenticated(f"the access file now maps the login token to {shown(identified.name)}")
    max_us = (identified.identity.token_max_ttl or DEFAULT_MAX_TTL) // MICROSECOND
    expires_us = min(min(one.expires_us, one.created_us + max_us) for one in chain)
    if until != math.inf:
        expires_us = min(expires_us, int(until * 1e6))
    if expires_us <= now_us:
        raise Unauthenticated("the login token has ended")
    effective = replace(token, expires_us=expires_us)
    return KnownCaller(
        None if is_root else rules.acls,
        identified,
        AuthMethod.LOGIN,
        Validity(expires_at=wall_clock + (expires_us - now_us) / 1e6),
        effective,
        login=effective,
    )


def _identify(rules: LoginRules, credential: KeptCredential) -> tuple[Identified, bool, float]:
    """Return whose credential it is, whether that is root's, and when it ends, in seconds since the epoch."""
    if isinstance(credential, KeptJwt):
        return identify_kept(rules.config, credential), False, math.inf
    if rules.root_digest and credential.digest == rules.root_digest:
        return Identified(_ROOT, ROOT_NAME, {}), True, math.inf
    fixed = rules.find_token(bytes.fromhex(credential.digest))
    if fixed is None:
        raise Unauthenticated("the token that the login token was issued for is no longer accepted")
    return fill_identity(fixed.identity, {}), False, fixed.validity.expires_at
