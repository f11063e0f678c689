"""Credentials by call: one client signs each call with another key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from aiobotocore.credentials import AioCredentials
from botocore.credentials import ReadOnlyCredentials

from lessor_server.domain.aws.iam_calls import AccessKey


@dataclass(slots=True)
class _Holder:
    """The key of a block; empty after it, because connections and timers keep its context longer."""

    key: AccessKey | None


_KEY: ContextVar[_Holder] = ContextVar("key of the call")


@contextmanager
def signing_key(key: AccessKey) -> Iterator[None]:
    """Sign the calls of this block, in this task only, with ``key``."""
    holder = _Holder(key)
    token = _KEY.set(holder)
    try:
        yield
    finally:
        _KEY.reset(token)
        holder.key = None


class PerCallCredentials(AioCredentials):  # type: ignore[misc]  # aiobotocore ships no types
    """The credentials of clients that verify keys: those that the current call verifies."""

    def __init__(self) -> None:
        """Begin without a key; nothing can be signed outside of ``signing_key``."""
        super().__init__("", "", "")

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return the current call's key, or raise ``LookupError`` if it has none."""
        key = _KEY.get().key
        if key is None:
            raise LookupError("the call that the key was for has ended")
        return ReadOnlyCredentials(key.access_key_id, key.secret.reveal(), key.token.reveal() or None)
