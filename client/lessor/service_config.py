"""The service config of a channel: the calls that gRPC retries while the server is briefly unreachable.

A call is listed if it is idempotent and does not wait for AWS: reads, and writes that set a final state.
GenerateCredentials is listed only for the Python clients, which always send a ``request_id``: without one, a
retry creates a second lease. Writes that fail the second time because of an ``etag`` or an existing name are
not listed either.

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


REPEATED_BY_ID: Final = ("GenerateCredentials", "WatchCredentials")
"""The calls of CredsService that are safe to repeat if each has a ``request_id``."""


def service_config(*, has_request_ids: bool = False) -> str:
    """Return the service config as JSON; ``has_request_ids``: each call that may have one has one."""
    names = [
        {"service": f"lessor.v1.{service}", "method": method}
        for service, methods in REPEATED.items()
        for method in methods
    ]
    if has_request_ids:
        names += [{"service": "lessor.v1.CredsService", "method": method} for method in REPEATED_BY_ID]
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": RETRY_POLICY}]}, indent=2)
