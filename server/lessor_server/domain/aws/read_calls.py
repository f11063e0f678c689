"""Calls that only look: at groups, at what a role names, and at what the root may do."""

from __future__ import annotations

from dataclasses import dataclass

from lessor_server.domain.aws.calls import AccessKey, Call


@dataclass(frozen=True, slots=True)
class Names:
    """One page of names or ARNs, and the marker of the next page, empty on the last."""

    names: tuple[str, ...]
    marker: str = ""


@dataclass(frozen=True, slots=True)
class ListGroupPolicies(Call[Names]):
    """List the names of a group's inline policies, one page of them."""

    group: str
    marker: str = ""


@dataclass(frozen=True, slots=True)
class GetGroupPolicy(Call[str]):
    """Read one inline policy of a group, as JSON text."""

    group: str
    policy_name: str


@dataclass(frozen=True, slots=True)
class ListAttachedGroupPolicies(Call[Names]):
    """List the ARNs of a group's managed policies, one page of them."""

    group: str
    marker: str = ""


@dataclass(frozen=True, slots=True)
class GetGroup(Call[None]):
    """See whether a group exists."""

    group: str


@dataclass(frozen=True, slots=True)
class GetPolicy(Call[None]):
    """See whether a managed policy exists."""

    policy_arn: str


@dataclass(frozen=True, slots=True)
class VerifyKeyOnIam(Call[None]):
    """Ask IAM whether it accepts an access key of ``user_name``, signing with that key itself."""

    key: AccessKey
    user_name: str


@dataclass(frozen=True, slots=True)
class Simulated:
    """Some of what IAM's simulator says, as (action, resource, verdict), and the marker of the next page.

    The verdicts are ``allowed``, ``explicitDeny`` and ``implicitDeny`` (IAM API Reference, EvaluationResult).
    """

    verdicts: tuple[tuple[str, str, str], ...]
    marker: str = ""


@dataclass(frozen=True, slots=True)
class SimulatePrincipalPolicy(Call[Simulated]):
    """Ask IAM's simulator whether a principal may do each action on each resource."""

    source_arn: str
    actions: tuple[str, ...]
    resource_arns: tuple[str, ...]
    marker: str = ""


@dataclass(frozen=True, slots=True)
class UserRoom:
    """How many users an account has, and how many it may have; 0 where AWS does not say."""

    users: int
    quota: int


@dataclass(frozen=True, slots=True)
class GetAccountSummary(Call[UserRoom]):
    """Ask how full the account is."""
