"""The endpoints of a service, and their order: one that failed is tried last for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from lessor_server.domain.root import RootConfig

BACK_SECONDS = 30.0
"""How long an endpoint that failed is tried last."""


class Endpoint(NamedTuple):
    """The URL and region of a service; empty means the SDK's default."""

    url: str
    region: str

    def __str__(self) -> str:
        """Return its name for the log."""
        return self.url or f"AWS's endpoint in {self.region or 'the default region'}"


def endpoints_of(config: RootConfig, service: str) -> tuple[Endpoint, ...]:
    """Return the endpoints of ``service``, in the configured order; STS may have fallbacks."""
    if service == "iam":
        return (Endpoint(config.iam_endpoint, config.region),)
    fallbacks = zip(config.sts_fallback_endpoints, config.sts_fallback_regions, strict=True)
    first = Endpoint(config.sts_endpoint, config.sts_region or config.region)
    return (first, *(Endpoint(url, region) for url, region in fallbacks))


class EndpointHealth:
    """Remembers which endpoints failed lately."""

    def __init__(self) -> None:
        """Begin with none."""
        self._until: dict[Endpoint, float] = {}

    def order(self, wanted: Sequence[Endpoint]) -> list[Endpoint]:
        """Return the endpoints in the order to try them: as configured, but those that failed lately last.

        Of those, the one that failed longest ago comes first.
        """
        now = asyncio.get_running_loop().time()
        until = {endpoint: self._until.get(endpoint, 0.0) for endpoint in wanted}
        return sorted(wanted, key=lambda endpoint: max(until[endpoint] - now, 0.0))

    def failed(self, endpoint: Endpoint) -> None:
        """Record that an endpoint failed now, and forget old failures."""
        now = asyncio.get_running_loop().time()
        self._until = {one: until for one, until in self._until.items() if until > now}
        self._until[endpoint] = now + BACK_SECONDS
