"""Checks what the access file needs besides its own text: tokens that are valid, and keys of issuers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from lessor.findings import Finding, count_left
from lessor_server.adapters.identity.key_set import KeySetUnusable, read_key_set
from lessor_server.adapters.identity.key_source import KeySource, KeysUnreadable
from lessor_server.adapters.identity.root_token import FILE_NAME, load_root_token
from lessor_server.domain.access.access_config import AccessConfig, JwtIssuer, TokenMatch
from lessor_server.domain.errors.base import LessorError, shown
from lessor_server.settings.model import Settings

LOW_TOKEN_SECONDS: Final = 14 * 86_400.0
MAX_ISSUERS_CHECKED: Final = 20


def check_root_token(settings: Settings) -> Iterator[Finding]:
    """Check that the root token can be used; the first start creates one if there is none."""
    if not settings.access.root_token:
        return
    own = settings.data_dir / FILE_NAME
    if settings.root_token is None and settings.root_token_file is None and not own.exists():
        return
    try:
        load_root_token(settings.data_dir, settings.root_token, settings.root_token_file)
    except LessorError as error:
        yield Finding.bad("access", error.message, error.fix)
    except OSError as error:
        fix = "let the server's user read it"
        yield Finding.bad("access", f"{error.filename} can't be read: {error.strerror}", fix)


def check_tokens(rules: AccessConfig, now: datetime) -> Iterator[Finding]:
    """Check how long the tokens of the access file are valid."""
    for one in rules.identities:
        if not isinstance(one.match, TokenMatch) or one.match.expires_at == math.inf:
            continue
        left = one.match.expires_at - now.timestamp()
        fix = "give it a new token with lessor token new, or remove the identity"
        name = f"the token of {shown(one.name)}"
        if left <= 0:
            ended = datetime.fromtimestamp(one.match.expires_at, UTC)
            yield Finding.doubtful("access", f"{name} expired on {ended:%Y-%m-%d %H:%M} UTC", fix)
        elif left < LOW_TOKEN_SECONDS:
            yield Finding.doubtful("access", f"{name} is valid for {count_left(left)}", fix)


async def check_issuers(rules: AccessConfig) -> list[Finding]:
    """Check that the keys of each issuer can be read, all at the same time; it may take 5 s."""
    source = KeySource()
    try:
        async with asyncio.TaskGroup() as group:
            issuers = rules.issuers[:MAX_ISSUERS_CHECKED]
            tasks = [group.create_task(_check_issuer(source, one)) for one in issuers]
        return [task.result() for task in tasks]
    finally:
        await source.close()


async def _check_issuer(source: KeySource, issuer: JwtIssuer) -> Finding:
    try:
        count = len(read_key_set(await source.read_keys(issuer)).keys)
    except KeysUnreadable as error:
        problem = str(error)
    except KeySetUnusable as error:
        problem = f"its key set {error}"
    else:
        return Finding.good("issuer", f"{issuer.name} has {count} keys")
    fix = "check the issuer, and the network and the authorities of this machine; correct jwks_url or ca_file"
    return Finding.bad("issuer", f"the keys of {issuer.name} can't be read: {problem}", fix)
