"""The service config of a channel: which calls gRPC retries automatically when the server is briefly away.

A call is listed if doing it twice does no more than doing it once, and if it doesn't wait for AWS: reads,
and writes that state an end. Issuing is not listed: a repeat without a ``request_id`` is a second lease. Nor
is a write that an ``etag`` or an existing name makes fail the second time.

The waits add up to 10 s or more, longer than a restart takes. A call that reaches a server while it closes
its port ends with CANCELLED: gRPC's core cancels what no handler has taken.

Sources: gRPC proposal A6, "Client retries" (at most 5 attempts; each wait is off by up to 20 %), and
service_config.proto.
"""

from __future__ import annotations

import json
from typing import Final

REPEATED: Final = {
    "ConfigService": ("ListMounts", "GetRoot", "SetLeaseDefaults", "GetLeaseDefaults"),
    "RoleService": ("GetRole", "ListRoles", "GetStaticRole", "ListStaticRoles"),
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
