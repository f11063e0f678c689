"""The rules of the tenants: callers that share an identity, and whose leases are limited."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from lessor_server.domain.access.acl import Capability, Grant
from lessor_server.domain.access.issue_limits import IssueLimits
from lessor_server.engine.issuing.issuer import Issuer
from lessor_server.engine.issuing.request import Credentials, IssueRequest

if TYPE_CHECKING:
    from tests.simulation.options import Options

NAMES = ("ci", "ci-2", "c", "CI")
"""Names of which one is the beginning of another, and two differ in case only."""
MOST = 3
"""The greatest limit of a rule."""


class Rules:
    """The rules of the tenants: two for each, whose limits are drawn once in a run."""

    def __init__(self, options: Options) -> None:
        """Draw the limits of a run."""
        self.names = NAMES[: options.tenants]
        patterns = ("aws/creds/app*", "aws/creds/*")
        self.limits = {
            (name, pattern): options.rng(f"limit/{name}/{pattern}").randint(1, MOST)
            for name in self.names
            for pattern in patterns
        }

    def admit(self, asked: IssueRequest) -> IssueRequest:
        """Return a request with the rule that allows it, if its caller is a tenant."""
        if asked.owner not in self.names:
            return asked
        pattern = "aws/creds/app*" if asked.role.startswith("app") else "aws/creds/*"
        limits = IssueLimits(max_leases=self.limits[asked.owner, pattern])
        return replace(asked, grant=Grant(pattern, frozenset({Capability.READ}), limits))


class RuledIssuer:
    """An issuer behind the rules of the tenants."""

    def __init__(self, issuer: Issuer, rules: Rules) -> None:
        """Issue by ``issuer``."""
        self._issuer = issuer
        self._rules = rules

    async def generate(self, asked: IssueRequest, seconds: float) -> Credentials:
        """Issue what the rules allow."""
        return await self._issuer.generate(self._rules.admit(asked), seconds)


def ruled(issuer: Issuer, rules: Rules) -> Issuer:
    """Return an issuer that gives each tenant's request its rule."""
    return cast("Issuer", RuledIssuer(issuer, rules)) if rules.names else issuer
