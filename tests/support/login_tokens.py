"""Login tokens for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

from lessor_server.domain.access.login_token import KeptJwt, KeptToken, LoginToken
from lessor_server.engine.login_ports import LoginStore

HOUR = timedelta(hours=1)
HOUR_US = 3_600_000_000
FIXED = KeptToken(hashlib.sha256(b"fixed").hexdigest())
JWT = KeptJwt(
    "https://ci.example.org", "RS256", ("lessor",), {"sub": "job", "groups": ("a", "b"), "ref": None}
)


def digest(number: int) -> str:
    """Return the digest of a token of tests."""
    return hashlib.sha256(b"token %d" % number).hexdigest()


def login_token(number: int, now_us: int, **changes: Any) -> LoginToken:
    """Return a token of ``ci`` that was created at ``now_us`` for an hour."""
    values: dict[str, Any] = {
        "digest": digest(number),
        "accessor": f"accessor{number}",
        "identity": "ci",
        "credential": FIXED,
        "created_us": now_us,
        "expires_us": now_us + HOUR_US,
        "max_expires_us": now_us + 24 * HOUR_US,
        "ttl": HOUR,
    }
    return LoginToken(**(values | changes))


def login_calls(store: LoginStore, token: LoginToken) -> dict[str, Awaitable[object]]:
    """Call each method of a store about login tokens."""
    return {
        "add_login_token": store.add_login_token(token, 10),
        "read_login_chain": store.read_login_chain(token.digest),
        "renew_login_token": store.renew_login_token(token),
        "purge_login_tokens": store.purge_login_tokens(10),
        "reseal_login_tokens": store.reseal_login_tokens("", 10),
        "end_login_token": store.end_login_token(token.digest),
    }
