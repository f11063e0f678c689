"""Lease ids, the names of mounts and roles in them, and ranges of ids.

A lease id is ``<mount>/creds/<role>/<suffix>``. Its suffix is 24 base62 characters: 7 of the time in
milliseconds, so that ids created in sequence are neighbours in an index, and 17 random ones. The alphabet is
in ASCII order, so ids sort by time if text is compared by bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lessor_server.domain.base62 import base62
from lessor_server.domain.errors.base import Invalid, Violation, shown

TIME_DIGITS: Final = 7
RANDOM_DIGITS: Final = 17
SUFFIX_DIGITS: Final = TIME_DIGITS + RANDOM_DIGITS
RANDOM_BOUND: Final = 62**RANDOM_DIGITS
"""The bound of a suffix's random number, about 101 bits."""
_MAX_TIME_MS: Final = 62**TIME_DIGITS - 1

MAX_NAME: Final = 64
"""The maximum length of a mount's or role's name."""
CREDS: Final = "/creds/"
"""The separator of mount and role."""
MAX_LEASE_ID: Final = 2 * MAX_NAME + len(CREDS) + 1 + SUFFIX_DIGITS
"""The length of the longest lease id, and of the longest prefix of lease ids."""

_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?")
_SUFFIX: Final = re.compile(rf"[0-9A-Za-z]{{{SUFFIX_DIGITS}}}")


def is_name(text: str) -> bool:
    """Return whether ``text`` is a valid name of a mount or role."""
    return _NAME.fullmatch(text) is not None


def is_suffix(text: str) -> bool:
    """Return whether ``text`` is a valid suffix of a lease id."""
    return _SUFFIX.fullmatch(text) is not None


def name_violations(field: str, text: str) -> list[Violation]:
    """Return the violation of ``text`` as the name of a mount or role, if any."""
    if is_name(text):
        return []
    rule = "use 1 to 64 of A-Z a-z 0-9 _ . - that begin and end with a letter, a digit or _"
    return [Violation(field, f"{shown(text)} is not a valid name", rule)]


@dataclass(frozen=True, slots=True, order=True)
class LeaseId:
    """Name one lease; ``str()`` gives ``<mount>/creds/<role>/<suffix>``."""

    mount: str
    role: str
    suffix: str

    def __str__(self) -> str:
        """Return the id as callers see it."""
        return f"{self.mount}{CREDS}{self.role}/{self.suffix}"

    @classmethod
    def parse(cls, text: str, field: str = "lease_id") -> LeaseId:
        """Parse an id; raise ``Invalid`` that names ``field`` for any other text."""
        match _segments(text):
            case [mount, "creds", role, suffix] if all(map(is_name, (mount, role))) and is_suffix(suffix):
                return cls(mount, role, suffix)
        fix = f"give <mount>/creds/<role>/<{SUFFIX_DIGITS} letters and digits>"
        raise Invalid((Violation(field, f"{shown(text)} is not a valid lease id", fix),))


def is_lease_id(text: str) -> bool:
    """Return whether ``text`` is a lease id."""
    try:
        LeaseId.parse(text)
    except Invalid:
        return False
    return True


@dataclass(frozen=True, slots=True)
class IdRange:
    """A half-open range of ids, ``low <= id < high`` by bytes; both empty means all."""

    low: str = ""
    high: str = ""

    @classmethod
    def of_prefix(cls, prefix: str) -> IdRange:
        """Return the range of all ids that begin with an ASCII text."""
        return cls(prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))

    @classmethod
    def of_mount(cls, mount: str) -> IdRange:
        """Return the range of all leases of a mount."""
        return cls.of_prefix(f"{mount}/")

    @classmethod
    def of_role(cls, mount: str, role: str) -> IdRange:
        """Return the range of all leases of a role."""
        return cls.of_prefix(f"{mount}{CREDS}{role}/")

    @classmethod
    def parse(cls, text: str, field: str = "prefix") -> IdRange:
        """Parse a prefix in one of its four forms; raise ``Invalid`` that names ``field`` for others."""
        match _segments(text):
            case [mount, ""] | [mount, "creds", ""] if is_name(mount):
                return cls.of_prefix(text)
            case [mount, "creds", role, ""] if all(map(is_name, (mount, role))):
                return cls.of_prefix(text)
            case [mount, "creds", role, suffix] if all(map(is_name, (mount, role))) and is_suffix(suffix):
                return cls.of_prefix(text)
            case [mount] | [mount, "creds"] if is_name(mount):
                fix = f"write {text}/"
            case [mount, "creds", role] if all(map(is_name, (mount, role))):
                fix = f"write {text}/"
            case _:
                fix = "give <mount>/, <mount>/creds/, <mount>/creds/<role>/ or a whole lease id"
        raise Invalid((Violation(field, f"{shown(text)} is not a valid prefix", fix),))

    @property
    def mount(self) -> str:
        """Return the mount that contains the range."""
        return self.low.partition("/")[0]

    def covers(self, text: str) -> bool:
        """Return whether the range contains ``text``."""
        return self.low <= text and (not self.high or text < self.high)

    def covers_role(self, mount: str, role: str) -> bool:
        """Return whether the range contains the leases of a role."""
        return self.covers(f"{mount}{CREDS}{role}/")


EVERYTHING: Final = IdRange()


def _segments(text: str) -> list[str]:
    """Return the parts between the slashes; none if the text is too long for an id."""
    return text.split("/") if len(text) <= MAX_LEASE_ID else []


def suffix_of(time_ms: int, number: int) -> str:
    """Return the suffix for ``time_ms`` since the epoch and an already drawn ``number``.

    A time past 62^7 ms (in 2081) becomes the last that fits: ids stay unique, but lose their order.
    Raises ``ValueError`` unless 0 <= number < ``RANDOM_BOUND``.
    """
    if not 0 <= number < RANDOM_BOUND:
        message = f"{number} does not fit {RANDOM_DIGITS} base62 digits"
        raise ValueError(message)
    return base62(min(max(time_ms, 0), _MAX_TIME_MS) * RANDOM_BOUND + number, SUFFIX_DIGITS)
