"""Credentials that change from call to call: one client signs for many keys, each call with its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from aiobotocore.credentials import AioCredentials
from botocore.credentials import ReadOnlyCredentials

from lessor_server.domain.calls import MadeKey

_KEY: ContextVar[MadeKey] = ContextVar("key of the call")


@contextmanager
def signed_with(key: MadeKey) -> Iterator[None]:
    """Have the calls of this block, and of no other task, signed with ``key`` where ``KeyOfCall`` signs."""
    token = _KEY.set(key)
    try:
        yield
    finally:
        _KEY.reset(token)


class KeyOfCall(AioCredentials):  # type: ignore[misc]  # aiobotocore ships no types
    """What clients sign with that prove keys: the key that the running call is about."""

    def __init__(self) -> None:
        """Begin without a key; outside of ``signed_with`` nothing can be signed."""
        super().__init__("", "", "")

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return the running call's key, or raise ``LookupError`` where it has none."""
        key = _KEY.get()
        return ReadOnlyCredentials(key.access_key_id, key.secret.reveal(), key.token.reveal() or None)
