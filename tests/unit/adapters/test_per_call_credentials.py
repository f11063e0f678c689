"""Checks that a key for one call is available only while the call runs."""

from __future__ import annotations

import contextvars
import gc

import pytest

from lessor_server.adapters.aws.per_call_credentials import PerCallCredentials, signing_key
from lessor_server.domain.aws.iam_calls import AccessKey
from lessor_server.domain.secret import Secret

KEY = AccessKey("AKIAEXAMPLE", Secret("not-a-secret"))


async def test_a_call_is_signed_with_its_key_and_nothing_after_it() -> None:
    with signing_key(KEY):
        frozen = await PerCallCredentials().get_frozen_credentials()
    assert (frozen.access_key, frozen.secret_key, frozen.token) == ("AKIAEXAMPLE", "not-a-secret", None)
    with pytest.raises(LookupError):
        await PerCallCredentials().get_frozen_credentials()


def test_a_context_copied_during_a_call_loses_the_key_too() -> None:
    """A connection that the call opened keeps its context for as long as it is open."""
    with signing_key(KEY):
        kept = contextvars.copy_context()
    holders = [value for value in kept.values() if KEY in gc.get_referents(value)]
    assert holders == []
    assert KEY not in kept.values()
