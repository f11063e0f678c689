"""Login tokens: each method is one job; a row has its MAC in itself, which covers all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from lessor_server.adapters.sql import login_statements as sql
from lessor_server.adapters.sql import rows
from lessor_server.adapters.sql.base import StorePart
from lessor_server.adapters.sql.columns import (
    Column,
    Malformed,
    Row,
    Table,
    anything,
    flag,
    instant,
    past,
    read_json,
    require_text,
    require_texts,
    span_us,
    text,
    whole,
)
from lessor_server.adapters.sql.row_macs import RowMacs
from lessor_server.adapters.sql.transaction import Transaction, require_row
from lessor_server.domain.access.login_token import (
    MAX_DEPTH,
    ClaimTexts,
    KeptCredential,
    KeptJwt,
    KeptToken,
    LoginToken,
)
from lessor_server.domain.errors.access import TooManyLoginTokens

_DIGEST: Final = re.compile("[0-9a-f]{64}")


class StoredLogins(StorePart):
    """The rows of login tokens."""

    async def add_login_token(self, token: LoginToken, limit: int) -> bool:
        """Store a new token; False if its parent has ended."""
        params = self._login_params(token)

        async def job(tx: Transaction) -> bool:
            now: rows.Params = {"now": self.now()}
            await tx.row(sql.LOCK_IDENTITY, params)
            if (await require_row(tx, sql.LIVE_TOKENS, params | now))[0] >= limit:
                raise TooManyLoginTokens.of(token.identity, limit)
            if token.parent and await tx.row(sql.IS_LIVE, params | now) is None:
                return False
            return await tx.change(sql.ADD_LOGIN_TOKEN, params) == 1

        async def again(tx: Transaction) -> bool:
            return await tx.row(sql.GET_LOGIN_TOKEN, params) is not None or await job(tx)

        return await self._jobs.write(job, again)

    async def read_login_chain(self, digest: str) -> tuple[LoginToken, ...]:
        """Return a token and its ancestors; empty if one of them is gone."""

        async def job(tx: Transaction) -> tuple[LoginToken, ...]:
            chain: list[LoginToken] = []
            wanted = digest
            while wanted and len(chain) <= MAX_DEPTH:
                row = await tx.row(sql.GET_LOGIN_TOKEN, {"digest": wanted})
                if row is None:
                    return ()
                chain.append(await self._reader.read(tx, LOGIN_TOKENS, row))
                wanted = chain[-1].parent
            return () if wanted else tuple(chain)

        return await self._jobs.read(job)

    async def renew_login_token(self, token: LoginToken) -> bool:
        """Write the new expiry of a token that has not ended."""
        params = self._login_params(token)

        async def job(tx: Transaction) -> bool:
            return await tx.change(sql.RENEW_LOGIN_TOKEN, params | {"now": self.now()}) == 1

        return await self._jobs.write(job, job)

    async def end_login_token(self, digest: str) -> list[str]:
        """Delete a token and its descendants."""

        async def job(tx: Transaction) -> list[str]:
            return [str(row[0]) for row in await tx.rows(sql.END_LOGIN_TOKEN, {"digest": digest})]

        return await self._jobs.write(job, job)

    async def purge_login_tokens(self, limit: int) -> int:
        """Delete tokens that have ended."""

        async def job(tx: Transaction) -> int:
            purged = await tx.change(sql.PURGE_EXPIRED, {"now": self.now(), "limit": limit})
            return purged + await tx.change(sql.PURGE_ORPHANS, {"limit": limit - purged})

        return await self._jobs.write(job)

    async def reseal_login_tokens(self, after: str, limit: int) -> str | None:
        """Authenticate the next rows again."""

        async def job(tx: Transaction) -> str | None:
            page = await tx.rows(sql.LOGIN_TOKENS_AFTER, {"after": after, "limit": limit})
            stale = (row for row in page if not self._macs.is_newest(row))
            authentic = [row for row in stale if self._macs.is_login_authentic(row)]
            macs: list[rows.Params] = [
                {"digest": row[1], "old_mac": row[-1], "mac": self._macs.mac_of_login_row(row)}
                for row in authentic
            ]
            await tx.change_many(sql.SET_LOGIN_MAC, macs)
            return next((row[1] for row in reversed(page) if isinstance(row[1], str)), None)

        return await self._jobs.write_alone(job)

    def _login_params(self, token: LoginToken) -> rows.Params:
        """Return the parameters that store a token, and its MAC."""
        params: rows.Params = {
            "accessor": token.accessor,
            "digest": token.digest,
            "identity": token.identity,
            "parent": token.parent,
            "depth": token.depth,
            "credential": json.dumps(_plain(token.credential)),
            "ttl_us": rows.us(token.ttl),
            "created_us": token.created_us,
            "renewed_us": token.renewed_us,
            "expires_us": token.expires_us,
            "max_expires_us": token.max_expires_us,
            "renewable": int(token.renewable),
        }
        return params | {"mac": self._macs.mac_of_login_row((*params.values(), b""))}


def _plain(credential: KeptCredential) -> dict[str, Any]:
    """Return a credential as JSON's values."""
    if isinstance(credential, KeptToken):
        return {"token": credential.digest}
    return {
        "issuer": credential.issuer,
        "algorithm": credential.algorithm,
        "audiences": credential.audiences,
        "claims": dict(credential.claims),
    }


def _credential(stored: object) -> KeptCredential:
    plain = read_json(stored, dict)
    if "token" in plain:
        return KeptToken(require_text(plain["token"], "token"))
    claims = plain.get("claims")
    if not isinstance(claims, dict):
        raise Malformed("claims is not an object")
    return KeptJwt(
        issuer=require_text(plain.get("issuer"), "issuer"),
        algorithm=require_text(plain.get("algorithm"), "algorithm"),
        audiences=require_texts(plain.get("audiences"), "audiences"),
        claims=_claims(claims),
    )


def _claims(plain: Mapping[str, object]) -> dict[str, ClaimTexts]:
    claims: dict[str, ClaimTexts] = {}
    for key, value in plain.items():
        if value is None:
            claims[key] = None
        elif isinstance(value, list):
            claims[key] = require_texts(value, "a claim")
        else:
            claims[key] = require_text(value, "a claim")
    return claims


def _token(row: Row) -> LoginToken:
    """Return the token of a row with ``LOGIN_COLUMNS``."""
    (
        accessor, digest, identity, parent, depth, credential, ttl_us, created_us, renewed_us, expires_us,
        max_expires_us, renewable, _,
    ) = row  # fmt: skip
    return LoginToken(
        digest=digest,
        accessor=accessor,
        identity=identity,
        credential=_credential(credential),
        created_us=created_us,
        expires_us=expires_us,
        max_expires_us=max_expires_us,
        ttl=rows.span(ttl_us),
        renewed_us=renewed_us,
        renewable=bool(renewable),
        parent=parent,
        depth=depth,
    )


def _digest(value: object) -> str:
    return text(value) or ("" if _DIGEST.fullmatch(str(value)) else "is not a SHA-256 in hex")


def _parent(value: object) -> str:
    return "" if value == "" else _digest(value)


LOGIN_TOKENS: Final = Table(
    "login_tokens",
    1,
    (
        Column("accessor", text),
        Column("digest", _digest),
        Column("identity", text),
        Column("parent", _parent),
        Column("depth", whole(0, MAX_DEPTH)),
        Column("credential", text),
        Column("ttl_us", span_us),
        Column("created_us", past),
        Column("renewed_us", past),
        Column("expires_us", instant),
        Column("max_expires_us", instant),
        Column("renewable", flag),
        Column("mac", anything),
    ),
    _token,
    is_authentic=RowMacs.is_login_authentic,
)
