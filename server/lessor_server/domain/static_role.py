"""A static role: an existing IAM user, whose access keys are rotated."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lessor_server.domain import root, schedule
from lessor_server.domain.errors.base import Violation, shown
from lessor_server.domain.lease_id import name_violations
from lessor_server.domain.root import Hop
from lessor_server.domain.schedule import Schedule

MAX_KEYS: Final = 2
"""AWS lets a user have two access keys (IAM User Guide, "IAM and AWS STS quotas")."""

_USER_NAME: Final = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}")


@dataclass(frozen=True, slots=True)
class StaticRole:
    """A static role as requested; ``live_keys`` is 1 or 2."""

    mount: str
    name: str
    username: str
    schedule: Schedule
    live_keys: int = MAX_KEYS
    assume_chain: tuple[Hop, ...] = ()
    held: bool = False


def violations(role: StaticRole) -> list[Violation]:
    """Return every violation of ``role``; field paths begin at it."""
    found = name_violations("name", role.name)
    if not _USER_NAME.fullmatch(role.username):
        problem = f"{shown(role.username)} is not a valid IAM user name" if role.username else "is missing"
        fix = "give 1 to 64 letters, digits and _ + = , . @ -"
        found.append(Violation("username", problem, fix))
    if role.schedule.period is None and not role.schedule.cron:
        found.append(Violation("rotation_period", "is missing", "give it, or rotation_schedule"))
    found += schedule.violations(role.schedule)
    if not 1 <= role.live_keys <= MAX_KEYS:
        problem = f"{role.live_keys} is out of range"
        found.append(Violation("live_keys", problem, "give 1 or 2, or 0 for 2"))
    found += root.chain_violations(role.assume_chain)
    return found
