"""What is kept of a JWT that was exchanged for a login token, and who its bearer is by a later access file.

Only claims that the access file names are kept. A later file may name another one first: then nobody knows
whom the JWT would match, and the token is refused until its bearer logs in again.
"""

from __future__ import annotations

from lessor_server.domain.access.access_config import AccessConfig, JwtIssuer
from lessor_server.domain.access.claims import ABSENT, Claims, claim_text, find_claim
from lessor_server.domain.access.identify import Identified, identify_claims, named_claims
from lessor_server.domain.access.login_token import ClaimTexts, KeptJwt
from lessor_server.domain.errors.base import Unauthenticated, shown


def keep_jwt(config: AccessConfig, issuer: JwtIssuer, algorithm: str, claims: Claims) -> KeptJwt:
    """Return what is kept of a verified JWT."""
    audience = claims.get("aud")
    members = audience if isinstance(audience, list) else [audience]
    return KeptJwt(
        issuer=issuer.url,
        algorithm=algorithm,
        audiences=tuple(one for one in members if isinstance(one, str)),
        claims={key: _texts(find_claim(claims, key)) for key in named_claims(config, issuer.name)},
    )


def identify_kept(config: AccessConfig, kept: KeptJwt) -> Identified:
    """Return who the bearer of a JWT is by ``config``.

    Raises:
        Unauthenticated: The issuer has left the file or accepts such a JWT no longer, no identity matches, or
            an identity needs a claim that was not kept.
    """
    issuer = next((one for one in config.issuers if one.url == kept.issuer), None)
    if issuer is None:
        raise Unauthenticated(f"the access file has no issuer {shown(kept.issuer)}")
    if kept.algorithm not in issuer.algorithms:
        raise Unauthenticated(f"the issuer does not accept the algorithm {shown(kept.algorithm)}")
    if not set(kept.audiences) & set(issuer.audiences):
        raise Unauthenticated("the login token was issued for a JWT for another audience")
    return identify_claims(config, issuer.name, kept.claims, _find_kept)


def _texts(value: object) -> ClaimTexts:
    if value is ABSENT:
        return None
    if isinstance(value, list):
        return tuple(text for text in map(claim_text, value) if text is not None)
    return claim_text(value)


def _find_kept(claims: Claims, key: str) -> object:
    if key not in claims:
        raise Unauthenticated(
            f"the access file names the claim {shown(key)}, which was not kept for the login token",
            fix="log in again",
        )
    value = claims[key]
    if value is None:
        return ABSENT
    return list(value) if isinstance(value, tuple) else value
