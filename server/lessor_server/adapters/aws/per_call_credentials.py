"""Credentials that change from call to call: one client signs for many keys, each call with its own."""

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
    """The key of a block, until the block ends; connections and timers made in it keep its context longer."""

    key: AccessKey | None


_KEY: ContextVar[_Holder] = ContextVar("key of the call")


@contextmanager
def signing_key(key: AccessKey) -> Iterator[None]:
    """Sign the calls of this block, and of no other task, with ``key``."""
    holder = _Holder(key)
    token = _KEY.set(holder)
    try:
        yield
    finally:
        _KEY.reset(token)
        holder.key = None


class PerCallCredentials(AioCredentials):  # type: ignore[misc]  # aiobotocore ships no types
    """The credentials of clients that verify keys: the key that the running call verifies."""

    def __init__(self) -> None:
        """Begin without a key; outside of ``signing_key`` nothing can be signed."""
        super().__init__("", "", "")

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return the running call's key, or raise ``LookupError`` where it has none."""
        key = _KEY.get().key
        if key is None:
            raise LookupError("the call that the key was for has ended")
        return ReadOnlyCredentials(key.access_key_id, key.secret.reveal(), key.token.reveal() or None)
