"""How long credentials live: the span a new lease gets, and the expiry that a renewal gives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from lessor_server.domain import durations
from lessor_server.domain.durations import MICROSECOND, SECOND_US, format_duration
from lessor_server.domain.errors.base import Invalid, Violation, require
from lessor_server.domain.mount import Mount
from lessor_server.domain.role import STS_CEILINGS, STS_FLOOR, CredentialType, Role

DEFAULT_SESSION: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class GrantedTtl:
    """Hold what a new lease gets: its ``ttl``, and ``max_ttl``, the bound of all its renewals.

    Both are whole seconds from activation on; ``warnings`` say what was capped, and by what.
    """

    ttl: timedelta
    max_ttl: timedelta
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Term:
    """Hold what a renewal needs to know of a lease: its own ``ttl`` and its times in microseconds."""

    ttl: timedelta
    issue_us: int
    expires_us: int
    max_expires_us: int


@dataclass(frozen=True, slots=True)
class RenewedTtl:
    """Hold a renewal's answer: the whole seconds granted from now, and the new expiry in microseconds."""

    ttl: timedelta
    expires_us: int
    warnings: tuple[str, ...] = ()


def grant(
    requested: timedelta | None, role: Role, mount: Mount, by_root: timedelta | None = None
) -> GrantedTtl:
    """Return the span of a new lease of ``role``; ``None`` or zero asks for the default.

    ``by_root`` is the longest session that the mount's root can make (``root_kind.longest_session``).
    Raises ``Invalid`` for the field ``ttl`` where the span is not in whole seconds, or where it is below
    the 900 s that AWS asks of every session, after the caps too.
    """
    require(durations.violations("ttl", requested or None))
    bound, by = _bound(role, mount)
    if by_root is not None and by_root < bound:
        bound, by = by_root, "the kind of the mount's root"
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
    """Return what is wrong with the ttl asked for, to be reported together with all other violations."""
    try:
        grant(requested, role, mount)
    except Invalid as error:
        return list(error.violations)
    return []


def longest(role: Role, mount: Mount) -> timedelta:
    """Return the longest that a lease of ``role`` may live in all, by today's role and mount."""
    return _bound(role, mount)[0]


def longest_user(mount: Mount) -> timedelta:
    """Return the longest that an IAM user may live in all by the mount alone, its role being gone."""
    return min(mount.lease_max or mount.max_lease_ttl, mount.max_lease_ttl)


def renewal(now_us: int, increment: timedelta | None, term: Term, todays_max: timedelta) -> RenewedTtl:
    """Return the new expiry of a lease renewed at ``now_us`` by ``increment`` (none or zero: its own ttl).

    It is now + increment, capped by the row's max and by issue time + ``todays_max``, but never
    below now + 1 s. Raises ``Invalid`` for ``increment`` where that is not in whole seconds.
    """
    require(durations.violations("increment", increment or None))
    wanted = increment or term.ttl
    wanted_us = now_us + wanted // MICROSECOND
    bound_us = min(term.max_expires_us, term.issue_us + todays_max // MICROSECOND)
    expires_us = max(min(wanted_us, bound_us), now_us + SECOND_US)
    ttl = timedelta(seconds=(expires_us - now_us) // SECOND_US)
    warnings = []
    if expires_us < wanted_us:
        warnings.append(
            f"increment {format_duration(wanted)} was capped to {format_duration(ttl)} by the lease's maximum"
        )
    if expires_us < term.expires_us:
        less = timedelta(seconds=-((expires_us - term.expires_us) // SECOND_US))
        warnings.append(f"the lease now ends {format_duration(less)} earlier than before")
    return RenewedTtl(ttl, expires_us, tuple(warnings))


def _default(role: Role, mount: Mount) -> timedelta:
    if role.credential_type is CredentialType.IAM_USER:
        return role.default_ttl or mount.lease or mount.default_lease_ttl
    return role.default_sts_ttl or DEFAULT_SESSION


def _bound(role: Role, mount: Mount) -> tuple[timedelta, str]:
    """Return the least of all caps, and the name of the one that gave it."""
    if role.credential_type is CredentialType.IAM_USER:
        caps = [(role.max_ttl, "the role's max_ttl"), (mount.lease_max, "the mount's lease_max")]
    else:
        caps = [
            (role.max_sts_ttl, "the role's max_sts_ttl"),
            (STS_CEILINGS[role.credential_type], f"AWS's ceiling for {role.credential_type.name}"),
        ]
    caps.append((mount.max_lease_ttl, "the mount's max_lease_ttl"))
    return min(((cap, name) for cap, name in caps if cap is not None), key=lambda pair: pair[0])
