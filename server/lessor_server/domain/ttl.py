"""The lifetime of credentials: the ttl of a new lease, and the expiry after a renewal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from lessor_server.domain import durations
from lessor_server.domain.access.acl import EVERYTHING, Grant
from lessor_server.domain.durations import MICROSECOND, SECOND_US, format_duration
from lessor_server.domain.errors.base import Invalid, Violation, require
from lessor_server.domain.mount import Mount
from lessor_server.domain.role import STS_CEILINGS, STS_FLOOR, CredentialType, Role

DEFAULT_SESSION: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class GrantedTtl:
    """Hold a new lease's ``ttl``, and ``max_ttl``, the limit of all its renewals.

    Both are whole seconds from activation on; ``warnings`` name each cap and its source.
    """

    ttl: timedelta
    max_ttl: timedelta
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Term:
    """Hold the fields of a lease for a renewal: its own ``ttl`` and its times in microseconds."""

    ttl: timedelta
    issue_us: int
    expires_us: int
    max_expires_us: int


@dataclass(frozen=True, slots=True)
class RenewedTtl:
    """Hold the result of a renewal: the seconds granted from now, and the new expiry in microseconds."""

    ttl: timedelta
    expires_us: int
    warnings: tuple[str, ...] = ()


def grant(
    requested: timedelta | None,
    role: Role,
    mount: Mount,
    by_root: timedelta | None = None,
    *,
    rule: Grant = EVERYTHING,
) -> GrantedTtl:
    """Return the ttl of a new lease of ``role``; ``None`` or zero means the default.

    ``by_root`` is the longest session that the mount's root can create (``root_kind.longest_session``), and
    ``rule`` what allows the request (``access.issue_limits.require_allowed`` has accepted it).
    Raises ``Invalid`` for the field ``ttl`` unless it is in whole seconds and, for a session, at least AWS's
    minimum of 900 s, before and after the caps.
    """
    require(durations.violations("ttl", requested or None))
    bound, by = _bound(role, mount)
    if by_root is not None and by_root < bound:
        bound, by = by_root, "the kind of the mount's root"
    if rule.limits.max_ttl is not None and rule.limits.max_ttl < bound:
        bound, by = rule.limits.max_ttl, f"the rule {rule.pattern}"
    wanted = requested or _default(role, mount)
    ttl = min(wanted, bound)
    warnings = (
        ()
        if ttl == wanted
        else (f"ttl {format_duration(wanted)} was capped to {format_duration(bound)} by {by}",)
    )
    if role.credential_type is CredentialType.IAM_USER:
        return GrantedTtl(ttl, bound, warnings)
    if ttl < STS_FLOOR:
        why = f"{format_duration(ttl)} is below 900s, the shortest session that AWS gives"
        fix = "ask for 900s or more" if bound >= STS_FLOOR else f"raise {by} to 900s or more"
        require([Violation("ttl", why, fix)])
    return GrantedTtl(ttl, ttl, warnings)


def violations(requested: timedelta | None, role: Role, mount: Mount) -> list[Violation]:
    """Return the violations of the requested ttl, to be reported together with all others."""
    if role.credential_type is CredentialType.IAM_USER:
        return durations.violations("ttl", requested or None)  # the caps never make it too short
    try:
        grant(requested, role, mount)
    except Invalid as error:
        return list(error.violations)
    return []


def longest(role: Role, mount: Mount) -> timedelta:
    """Return the maximum lifetime of a lease of ``role``, by the current role and mount."""
    return _bound(role, mount)[0]


def longest_user(mount: Mount) -> timedelta:
    """Return the maximum lifetime of an IAM user by the mount only, if its role is deleted."""
    return min(mount.lease_max or mount.max_lease_ttl, mount.max_lease_ttl)


def renewal(
    now_us: int,
    increment: timedelta | None,
    term: Term,
    todays_max: timedelta,
    by_rule: timedelta | None = None,
) -> RenewedTtl:
    """Return the new expiry of a lease renewed at ``now_us`` by ``increment`` (none or zero: its own ttl).

    It is now + increment, capped by the row's maximum, by issue time + ``todays_max`` and by issue time +
    ``by_rule``, the max_ttl of the rule that allows the renewal. It is at least now + 1 s, but that second is
    not added to a lease that ends sooner: repeated renewals would have no end. Raises ``Invalid`` for
    ``increment`` unless it is in whole seconds.
    """
    require(durations.violations("increment", increment or None))
    wanted = increment or term.ttl
    wanted_us = now_us + wanted // MICROSECOND
    bound_us = min(term.max_expires_us, term.issue_us + todays_max // MICROSECOND)
    by = "the lease's maximum"
    if by_rule is not None and (ruled_us := term.issue_us + by_rule // MICROSECOND) < bound_us:
        bound_us, by = ruled_us, "the max_ttl of the rule that allows it"
    expires_us = max(min(wanted_us, bound_us), min(now_us + SECOND_US, term.expires_us))
    ttl = timedelta(seconds=max(expires_us - now_us, 0) // SECOND_US)
    warnings = []
    if expires_us < wanted_us:
        warnings.append(f"increment {format_duration(wanted)} was capped to {format_duration(ttl)} by {by}")
    if expires_us < term.expires_us:
        less = timedelta(seconds=-((expires_us - term.expires_us) // SECOND_US))
        warnings.append(f"the lease now ends {format_duration(less)} earlier than before")
    return RenewedTtl(ttl, expires_us, tuple(warnings))


def _default(role: Role, mount: Mount) -> timedelta:
    if role.credential_type is CredentialType.IAM_USER:
        return role.default_ttl or mount.lease or mount.default_lease_ttl
    return role.default_sts_ttl or DEFAULT_SESSION


def _bound(role: Role, mount: Mount) -> tuple[timedelta, str]:
    """Return the lowest cap, and its name."""
    if role.credential_type is CredentialType.IAM_USER:
        own, other = (role.max_ttl, "the role's max_ttl"), (mount.lease_max, "the mount's lease_max")
    else:
        own = role.max_sts_ttl, "the role's max_sts_ttl"
        ceiling = STS_CEILINGS[role.credential_type]
        other = ceiling, f"AWS's ceiling for {role.credential_type.name}"
    lowest = mount.max_lease_ttl, "the mount's max_lease_ttl"
    for cap, name in (other, own):
        if cap is not None and cap <= lowest[0]:
            lowest = cap, name
    return lowest
