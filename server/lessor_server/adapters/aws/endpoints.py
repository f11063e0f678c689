"""Where a service is, and which place to try first: one that failed goes to the back for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from lessor_server.domain.root import RootConfig

BACK_SECONDS = 30.0
"""How long a place that failed is tried last: not every call must wait for it to fail again."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service is: an endpoint and a region; empty means the SDK's default."""

    endpoint: str
    region: str

    def __str__(self) -> str:
        """Name the place for the log."""
        return self.endpoint or f"AWS's endpoint in {self.region or 'the default region'}"


def places(config: RootConfig, service: str) -> tuple[Place, ...]:
    """Return where to find ``service``, in the order to try; STS may have places to fall back on."""
    if service == "iam":
        return (Place(config.iam_endpoint, config.region),)
    fallbacks = zip(config.sts_fallback_endpoints, config.sts_fallback_regions, strict=True)
    first = Place(config.sts_endpoint, config.sts_region or config.region)
    return (first, *(Place(endpoint, region) for endpoint, region in fallbacks))


class EndpointHealth:
    """Remembers which places failed lately."""

    def __init__(self) -> None:
        """Begin with none."""
        self._until: dict[Place, float] = {}

    def order(self, wanted: Sequence[Place]) -> list[Place]:
        """Return the places in the order to try them: as wanted, but those that failed lately last.

        Of those, the one that failed longest ago comes first.
        """
        now = asyncio.get_running_loop().time()
        until = {place: self._until.get(place, 0.0) for place in wanted}
        return sorted(wanted, key=lambda place: max(until[place] - now, 0.0))

    def failed(self, place: Place) -> None:
        """Take note that a place failed just now, and forget those that did so long ago."""
        now = asyncio.get_running_loop().time()
        self._until = {one: until for one, until in self._until.items() if until > now}
        self._until[place] = now + BACK_SECONDS
