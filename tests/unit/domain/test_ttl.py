"""Checks the ttl of a new lease and of a renewal."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor_server.domain import durations, ttl
from lessor_server.domain.access.acl import EVERYTHING, Capability, Grant
from lessor_server.domain.access.issue_limits import IssueLimits
from lessor_server.domain.errors.base import Invalid
from lessor_server.domain.mount import Mount
from lessor_server.domain.role import CredentialType, Role

HOUR = timedelta(hours=1)
MOUNT = Mount("aws")
USER = Role("aws", "app", CredentialType.IAM_USER)
STS = Role("aws", "app", CredentialType.ASSUMED_ROLE)
SPANS = st.integers(min_value=1, max_value=315_360_000).map(lambda seconds: timedelta(seconds=seconds))
MAYBE = st.none() | SPANS
INSTANTS = st.integers(min_value=0, max_value=4 * 10**15)


def test_an_iam_user_lives_768_hours_by_default() -> None:
    assert ttl.grant(None, USER, MOUNT) == ttl.GrantedTtl(768 * HOUR, 768 * HOUR)


@pytest.mark.parametrize(
    ("asked", "role_ttl", "lease", "granted"),
    [(1, 2, 3, 1), (None, 2, 3, 2), (None, None, 3, 3), (None, None, None, 4), (0, 2, 3, 2)],
)
def test_the_nearest_default_decides(
    asked: int | None, role_ttl: int | None, lease: int | None, granted: int
) -> None:
    """The order is request, role, lease defaults, mount."""
    hours = {None: None} | {number: number * HOUR for number in range(5)}
    role = replace(USER, default_ttl=hours[role_ttl])
    mount = replace(MOUNT, default_lease_ttl=4 * HOUR, lease=hours[lease])
    assert ttl.grant(hours[asked], role, mount).ttl == granted * HOUR


def test_a_session_lives_no_longer_than_its_root_allows() -> None:
    capped = ttl.grant(2 * HOUR, STS, MOUNT, HOUR)
    assert (capped.ttl, capped.max_ttl) == (HOUR, HOUR)
    assert capped.warnings == ("ttl 2h was capped to 1h by the kind of the mount's root",)
    assert ttl.grant(2 * HOUR, STS, MOUNT, 12 * HOUR) == ttl.grant(2 * HOUR, STS, MOUNT)
    assert ttl.grant(None, STS, MOUNT, HOUR) == ttl.GrantedTtl(HOUR, HOUR)


@pytest.mark.parametrize(
    ("role_max", "lease_max", "mount_max", "name"),
    [
        (1, 2, 3, "the role's max_ttl"),
        (3, 1, 2, "the mount's lease_max"),
        (3, 2, 1, "the mount's max_lease_ttl"),
    ],
)
def test_the_lowest_cap_holds_and_is_named(role_max: int, lease_max: int, mount_max: int, name: str) -> None:
    role = replace(USER, max_ttl=role_max * HOUR)
    mount = replace(MOUNT, lease_max=lease_max * HOUR, max_lease_ttl=mount_max * HOUR)
    grant = ttl.grant(9 * HOUR, role, mount)
    assert (grant.ttl, grant.max_ttl) == (HOUR, HOUR)
    assert grant.warnings == (f"ttl 9h was capped to 1h by {name}",)


def test_a_session_lives_an_hour_by_default_and_is_not_extended() -> None:
    assert ttl.grant(None, STS, MOUNT) == ttl.GrantedTtl(HOUR, HOUR)
    assert ttl.grant(None, replace(STS, default_sts_ttl=2 * HOUR), MOUNT).ttl == 2 * HOUR


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        (CredentialType.ASSUMED_ROLE, 43_200),
        (CredentialType.FEDERATION_TOKEN, 129_600),
        (CredentialType.SESSION_TOKEN, 129_600),
    ],
)
def test_a_session_is_capped_by_awss_maximum(kind: CredentialType, seconds: int) -> None:
    grant = ttl.grant(100 * HOUR, replace(STS, credential_type=kind), MOUNT)
    assert grant.ttl == timedelta(seconds=seconds)
    assert "AWS's ceiling" in grant.warnings[0]


@pytest.mark.parametrize(
    ("asked", "mount"),
    [(timedelta(seconds=899), MOUNT), (HOUR, replace(MOUNT, max_lease_ttl=timedelta(seconds=300)))],
)
def test_a_session_below_awss_minimum_is_refused(asked: timedelta, mount: Mount) -> None:
    """It is not silently made longer."""
    with pytest.raises(Invalid, match="900s") as caught:
        ttl.grant(asked, STS, mount)
    assert caught.value.violations[0].field == "ttl"


@pytest.mark.parametrize("asked", [timedelta(seconds=-1), timedelta(seconds=1.5), timedelta(days=3651)])
def test_an_invalid_duration_is_refused(asked: timedelta) -> None:
    with pytest.raises(Invalid):
        ttl.grant(asked, USER, MOUNT)
    with pytest.raises(Invalid):
        ttl.renewal(0, asked, ttl.Term(HOUR, 0, 10**9, 10**10), HOUR)


@given(MAYBE, st.tuples(MAYBE, MAYBE), st.tuples(MAYBE, MAYBE), SPANS)
def test_a_ttl_never_exceeds_a_cap(
    asked: timedelta | None,
    roles: tuple[timedelta | None, timedelta | None],
    leases: tuple[timedelta | None, timedelta | None],
    mount_max: timedelta,
) -> None:
    role = replace(USER, default_ttl=roles[0], max_ttl=roles[1])
    mount = replace(MOUNT, max_lease_ttl=mount_max, lease=leases[0], lease_max=leases[1])
    grant = ttl.grant(asked, role, mount)
    caps = [cap for cap in (roles[1], leases[1], mount_max) if cap is not None]
    assert timedelta(0) < grant.ttl <= grant.max_ttl == min(caps) == ttl.longest(role, mount)
    wanted = asked or roles[0] or leases[0] or MOUNT.default_lease_ttl
    assert bool(grant.warnings) == (grant.ttl < wanted)


@given(INSTANTS, st.none() | SPANS, SPANS, st.tuples(INSTANTS, INSTANTS, INSTANTS), SPANS)
def test_a_renewal_stays_within_its_bounds(
    now_us: int,
    increment: timedelta | None,
    own: timedelta,
    instants: tuple[int, int, int],
    todays_max: timedelta,
) -> None:
    term = ttl.Term(own, *instants)
    answer = ttl.renewal(now_us, increment, term, todays_max)
    soonest = min(now_us + 1_000_000, term.expires_us)
    today_us = term.issue_us + todays_max // timedelta(microseconds=1)
    assert answer.expires_us >= soonest
    assert answer.expires_us <= max(soonest, min(term.max_expires_us, today_us))
    asked_us = now_us + (increment or own) // timedelta(microseconds=1)
    said = " ".join(answer.warnings)
    assert ("capped" in said) == (answer.expires_us < asked_us)
    assert ("earlier" in said) == (answer.expires_us < term.expires_us)


def test_repeated_renewals_add_nothing_to_a_lease_at_its_maximum() -> None:
    """Otherwise a lease that is renewed in its last second would never end."""
    second = timedelta(seconds=1)
    term = ttl.Term(20 * second, 0, 20_000_000, 20_000_000)
    for now_us in (0, 18_999_999, 19_000_000, 19_200_000, 19_999_999):
        assert ttl.renewal(now_us, 20 * second, term, 40 * second).expires_us == 20_000_000
    lowered = ttl.renewal(10_000_000, 20 * second, term, 3 * second)
    assert lowered.expires_us == 11_000_000
    ending = ttl.Term(20 * second, 0, lowered.expires_us, 20_000_000)
    assert ttl.renewal(10_900_000, 20 * second, ending, 3 * second).expires_us == lowered.expires_us


@given(INSTANTS, SPANS, SPANS)
def test_an_uncapped_renewal_gives_exactly_its_increment(
    now_us: int, increment: timedelta, own: timedelta
) -> None:
    term = ttl.Term(own, now_us, now_us, now_us + 2 * 10**15)
    assert ttl.renewal(now_us, increment, term, 2 * durations.MAX_DURATION).ttl == increment
    assert ttl.renewal(now_us, None, term, 2 * durations.MAX_DURATION).ttl == own
    assert ttl.renewal(now_us, timedelta(0), term, 2 * durations.MAX_DURATION).ttl == own


def test_a_renewal_that_shortens_a_lease_warns() -> None:
    term = ttl.Term(HOUR, 0, 7_200_000_000, 36_000_000_000)
    answer = ttl.renewal(0, timedelta(minutes=30), term, 10 * HOUR)
    assert answer == ttl.RenewedTtl(
        timedelta(minutes=30), 1_800_000_000, ("the lease now ends 1h30m earlier than before",)
    )


def test_a_lowered_max_ttl_counts_at_the_next_renewal() -> None:
    """A lease that is past it keeps one second."""
    term = ttl.Term(HOUR, 0, 7_200_000_000, 36_000_000_000)
    answer = ttl.renewal(3_600_000_000, HOUR, term, timedelta(minutes=10))
    assert answer.expires_us == 3_601_000_000
    assert answer.ttl == timedelta(seconds=1)


def test_a_lease_whose_role_was_deleted_is_capped_by_its_mount() -> None:
    assert ttl.longest_user(MOUNT) == 768 * HOUR
    assert ttl.longest_user(replace(MOUNT, lease_max=HOUR)) == HOUR
    assert ttl.longest_user(replace(MOUNT, lease_max=2 * HOUR, max_lease_ttl=HOUR)) == HOUR


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (1, "1s"), (900, "15m"), (5400, "1h30m"), (3601, "1h1s"), (1.5, "1.5s"), (-60, "-1m")],
)
def test_a_duration_is_formatted_in_hours_minutes_and_seconds(seconds: float, text: str) -> None:
    assert durations.format_duration(timedelta(seconds=seconds)) == text


def rule(longest: timedelta | None) -> Grant:
    """Return a grant with a max_ttl."""
    return Grant("aws/creds/*", frozenset({Capability.READ}), IssueLimits(max_ttl=longest))


@pytest.mark.parametrize("role", [USER, STS])
def test_a_rule_caps_the_ttl_and_the_life_and_is_named(role: Role) -> None:
    granted = ttl.grant(2 * HOUR, role, MOUNT, rule=rule(HOUR))
    assert (granted.ttl, granted.max_ttl) == (HOUR, HOUR)
    assert granted.warnings == ("ttl 2h was capped to 1h by the rule aws/creds/*",)


def test_a_rule_caps_the_default_too() -> None:
    granted = ttl.grant(None, USER, MOUNT, rule=rule(HOUR))
    assert (granted.ttl, granted.warnings) == (HOUR, ("ttl 768h was capped to 1h by the rule aws/creds/*",))


def test_a_rule_bounds_the_life_of_a_shorter_lease_without_a_warning() -> None:
    assert ttl.grant(HOUR, USER, MOUNT, rule=rule(2 * HOUR)) == ttl.GrantedTtl(HOUR, 2 * HOUR)


def test_the_lowest_of_rule_root_and_role_is_named() -> None:
    role = replace(STS, max_sts_ttl=3 * HOUR)
    for by_rule, by_root, name in (
        (2, 1, "the kind of the mount's root"),
        (1, 2, "the rule aws/creds/*"),
        (4, 5, "the role's max_sts_ttl"),
    ):
        granted = ttl.grant(9 * HOUR, role, MOUNT, by_root * HOUR, rule=rule(by_rule * HOUR))
        assert granted.warnings[0].endswith(f"by {name}")


def test_a_short_session_is_refused_for_its_own_ttl_under_a_longer_rule() -> None:
    with pytest.raises(Invalid, match="ask for 900s or more"):
        ttl.grant(timedelta(seconds=60), STS, MOUNT, rule=rule(HOUR))


@given(MAYBE, MAYBE, MAYBE)
def test_no_rule_lengthens_a_lease(
    asked: timedelta | None, longest: timedelta | None, role_max: timedelta | None
) -> None:
    role = replace(USER, max_ttl=role_max)
    free, ruled = (ttl.grant(asked, role, MOUNT, rule=grant) for grant in (EVERYTHING, rule(longest)))
    assert ruled.ttl <= ruled.max_ttl <= free.max_ttl
    assert ruled.ttl <= free.ttl
    assert longest is None or ruled.max_ttl <= longest
    assert bool(ruled.warnings) >= (ruled.ttl < free.ttl)


def test_a_renewal_names_the_rule_that_caps_it() -> None:
    term = ttl.Term(HOUR, 0, HOUR // durations.MICROSECOND, 9 * HOUR // durations.MICROSECOND)
    renewed = ttl.renewal(0, 5 * HOUR, term, 8 * HOUR, 2 * HOUR)
    assert (renewed.ttl, renewed.expires_us) == (2 * HOUR, 2 * HOUR // durations.MICROSECOND)
    assert renewed.warnings == ("increment 5h was capped to 2h by the max_ttl of the rule that allows it",)
    assert ttl.renewal(0, 5 * HOUR, term, 2 * HOUR, 2 * HOUR).warnings[0].endswith("by the lease's maximum")


@given(INSTANTS, MAYBE, INSTANTS, SPANS, MAYBE)
def test_a_renewal_is_within_the_rule_or_a_second(
    now_us: int, increment: timedelta | None, issue_us: int, todays: timedelta, by_rule: timedelta | None
) -> None:
    term = ttl.Term(HOUR, issue_us, issue_us, issue_us + 9 * HOUR // durations.MICROSECOND)
    renewed = ttl.renewal(now_us, increment, term, todays, by_rule)
    free = ttl.renewal(now_us, increment, term, todays)
    assert renewed.expires_us <= free.expires_us
    if by_rule is not None:
        latest_us = issue_us + by_rule // durations.MICROSECOND
        assert renewed.expires_us <= max(latest_us, now_us + durations.SECOND_US)
