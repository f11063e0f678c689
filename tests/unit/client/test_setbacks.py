"""Checks what a refused renewal means, which is one rule for clients, ``exec`` and ``agent``."""

from __future__ import annotations

import pytest

from lessor import errors
from lessor.channel import BadConnection
from lessor.leases import setback_of
from lessor.refresh import Setback


@pytest.mark.parametrize(
    ("error", "setback"),
    [
        (errors.NotFound("x", reason_name="NOT_FOUND"), Setback.LOST),
        (errors.Precondition("x", reason_name="LEASE_REVOKING"), Setback.LOST),
        (errors.PermissionDenied("x", reason_name="NOT_YOUR_LEASE"), Setback.LOST),
        (errors.Precondition("x", reason_name="NOT_RENEWABLE"), Setback.DENIED),
        (errors.PermissionDenied("x", reason_name="PERMISSION_DENIED"), Setback.DENIED),
        (errors.Invalid("x", reason_name="INVALID_REQUEST"), Setback.DENIED),
        (errors.Unavailable("x"), Setback.AWAY),
        (BadConnection("x"), Setback.AWAY),
    ],
    ids=lambda one: getattr(one, "reason_name", None) or type(one).__name__,
)
def test_a_refused_renewal_ends_the_lease_or_the_renewals_or_neither(
    error: errors.Error | BadConnection, setback: Setback
) -> None:
    assert setback_of(error) is setback
