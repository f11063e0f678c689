"""The service config of a channel: the calls that gRPC retries while the server is briefly unreachable.

A call is listed if it is idempotent and does not wait for AWS: reads, and writes that set a final state.
GenerateCredentials is not listed, because a retry without a ``request_id`` creates a second lease. Writes
that fail the second time because of an ``etag`` or an existing name are not listed either.

The waits add up to at least 10 s, which is longer than a restart. A call that arrives while the server closes
its port ends with CANCELLED, because gRPC's core cancels calls that no handler has accepted.

Sources: gRPC proposal A6, "Client retries" (at most 5 attempts; each wait is off by up to 20 %), and
service_config.proto.
"""

from __future__ import annotations

import json
from typing import Final

REPEATED: Final = {
    "ConfigService": ("ListMounts", "GetRoot", "SetLeaseDefaults", "GetLeaseDefaults"),
    "RoleService": ("GetRole", "ListRoles", "GetStaticRole", "ListStaticRoles", "ListUsableRoles"),
    "CredsService": ("GetStaticCredentials",),
    "LeaseService": (
        "LookupLease",
        "ListLeases",
        "CountLeases",
        "RenewLease",
        "RevokeLease",
        "RevokePrefix",
        "AbandonLeases",
        "WatchLeases",
    ),
    "SystemService": ("GetInfo", "WhoAmI", "HoldExpiry"),
}
"""By service: the calls that are safe to repeat."""

RETRY_POLICY: Final = {
    "maxAttempts": 5,
    "initialBackoff": "1s",
    "maxBackoff": "5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}


def service_config() -> str:
    """Return the service config as JSON."""
    names = [
        {"service": f"lessor.v1.{service}", "method": method}
        for service, methods in REPEATED.items()
        for method in methods
    ]
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": RETRY_POLICY}]}, indent=2)
