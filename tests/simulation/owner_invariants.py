"""Invariants of owners and of the limits of rules, checked with those of ``row_invariants.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lessor_server.domain.lease import LIVE, State
from tests.simulation.journal import suffix
from tests.simulation.row_invariants import Found

if TYPE_CHECKING:
    from tests.simulation.disk import Change
    from tests.simulation.world import World


def no_rule_has_more_leases_than_its_limit(world: World, change: Change) -> Found:
    """8: no intent is written if its rule admits no more; a session counts until AWS ends it."""
    lease_id, old, new = change
    if old is not None or new is None or new.lease.state is not State.INTENT:
        return None
    owner, rule = new.lease.owner, new.lease.policy_rule
    most = world.rules.limits.get((owner, rule))
    if most is None:
        return None if not rule else (suffix(lease_id), f"{owner} has no rule {rule}")
    now, counted = world.store.now(), 0
    for row in world.store.rows.values():
        lease = row.lease
        if (lease.owner, lease.policy_rule) != (owner, rule):
            continue
        works = not lease.footprint.user_name and lease.max_expires_us > now
        counted += lease.state in LIVE or (lease.state is State.GONE and works)
    if counted > most:
        return suffix(lease_id), f"{owner} has {counted} leases by the rule {rule}, which allows {most}"
    return None


def every_lease_of_a_tenant_has_its_rule(world: World, change: Change) -> Found:
    """The rule that admitted a lease is in its row."""
    lease_id, old, new = change
    if old is not None or new is None or new.lease.owner not in world.rules.names:
        return None
    known = (new.lease.owner, new.lease.policy_rule) in world.rules.limits
    return None if known else (suffix(lease_id), f"it has the rule {new.lease.policy_rule!r}")


def owner_and_rule_never_change(_: World, change: Change) -> Found:
    """Whose a lease is, and what admitted it, is decided when it begins."""
    lease_id, old, new = change
    if old is None or new is None:
        return None
    before, after = ((row.lease.owner, row.lease.policy_rule) for row in (old, new))
    return None if before == after else (suffix(lease_id), f"{before} became {after}")


def only_what_a_prefix_covers_is_put_up(world: World, change: Change) -> Found:
    """A bulk revocation of one owner changes no lease of another."""
    lease_id, old, new = change
    if world.write_name != "mark_range_revoking" or old is None or new is None:
        return None
    owner = old.lease.owner
    for prefix in world.prefixes:
        if prefix.ids.covers(lease_id) and prefix.owner in ("", owner):
            return None
    return suffix(lease_id), f"a lease of {owner} was put up for revocation, and nobody asked for that"


ON_CHANGE = (
    no_rule_has_more_leases_than_its_limit,
    every_lease_of_a_tenant_has_its_rule,
    owner_and_rule_never_change,
    only_what_a_prefix_covers_is_put_up,
)
