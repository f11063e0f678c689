"""Checks the rules of a mount."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from lessor_server.domain.mount import Mount, MountState, new_violations, violations

HOUR = timedelta(hours=1)
MOUNT = Mount("aws")


def test_the_defaults_of_a_mount_are_valid() -> None:
    assert violations(MOUNT) == []
    assert (MOUNT.default_lease_ttl, MOUNT.max_lease_ttl) == (768 * HOUR, 768 * HOUR)
    assert (MOUNT.max_users, MOUNT.state) == (5_000, MountState.ENABLED)
    assert (MOUNT.lease, MOUNT.lease_max) == (None, None)


@pytest.mark.parametrize(
    ("mount", "field"),
    [
        (replace(MOUNT, name=".."), "mount"),
        (replace(MOUNT, description="x" * 1_001), "description"),
        (replace(MOUNT, default_lease_ttl=timedelta(0)), "default_lease_ttl"),
        (replace(MOUNT, default_lease_ttl=timedelta(seconds=1.5)), "default_lease_ttl"),
        (replace(MOUNT, max_lease_ttl=timedelta(days=3651)), "max_lease_ttl"),
        (replace(MOUNT, max_lease_ttl=HOUR), "default_lease_ttl"),
        (replace(MOUNT, lease=timedelta(seconds=-1)), "lease"),
        (replace(MOUNT, lease=2 * HOUR, lease_max=HOUR), "lease"),
        (replace(MOUNT, lease=769 * HOUR), "lease"),
        (replace(MOUNT, lease_max=timedelta(0)), "lease_max"),
        (replace(MOUNT, max_users=0), "max_users"),
    ],
)
def test_an_invalid_field_of_a_mount_is_named(mount: Mount, field: str) -> None:
    assert [violation.field for violation in violations(mount)] == [field]


def test_all_violations_of_a_mount_are_reported() -> None:
    bad = Mount("a/b", default_lease_ttl=2 * HOUR, max_lease_ttl=HOUR, max_users=-1, lease=timedelta(0))
    assert {violation.field for violation in violations(bad)} == {
        "mount",
        "default_lease_ttl",
        "lease",
        "max_users",
    }


@pytest.mark.parametrize("name", ["sys", "auth"])
def test_a_new_mount_can_not_have_a_name_of_the_systems_paths(name: str) -> None:
    (violation,) = new_violations(Mount(name))
    assert violation.field == "mount"
    assert not violations(Mount(name)), "one that exists can be changed"
