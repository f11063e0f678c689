"""Names: of mounts and roles, lease ids and prefixes over them, and the users made on AWS.

A lease id is ``<mount>/creds/<role>/<suffix>``. Its suffix is 24 base62 characters: 7 of time in
milliseconds, so that ids made one after another lie side by side in an index, and 17 of chance.
The alphabet stands in ASCII order, so that ids sort by time wherever text is compared by bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from lessor_server.domain.errors.base import Invalid, Violation
from lessor_server.domain.policy import placeholders

BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TIME_DIGITS: Final = 7
RANDOM_DIGITS: Final = 17
SUFFIX_DIGITS: Final = TIME_DIGITS + RANDOM_DIGITS
RANDOM_BOUND: Final = 62**RANDOM_DIGITS
"""A suffix takes a number below this, about 101 bits of chance."""

USER_NAME_LIMIT: Final = 64
"""The longest name that IAM takes of a user, and STS of an assumed role's session."""
FEDERATION_LIMIT: Final = 32
"""The longest name that STS takes of a federated session."""
MIN_RANDOM: Final = 12
"""The least number of random characters in a user's name.

IAM compares names without case, so a letter counts half: of two random base62 characters one pair
in 33.7 is equal that way, 5.07 bits each. All 17 are 86 bits: among a billion names ever made, the
chance that any two are equal is below one in 10^8. Twelve are 61 bits: among the 5,000 users that
an account holds at a time it is below one in 10^11, and the time part usually differs as well.
"""
MAX_NAME: Final = 64
"""The most characters in the name of a mount or a role."""
MAX_LEASE_ID: Final = 2 * MAX_NAME + len("/creds//") + SUFFIX_DIGITS
"""The length of the longest lease id, and of the longest prefix of lease ids."""
DEFAULT_TEMPLATE: Final = "lessor-{{mount}}-{{role}}-{{suffix}}"

_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?")
_SUFFIX: Final = re.compile(rf"[0-9A-Za-z]{{{SUFFIX_DIGITS}}}")
IDENTITY: Final = re.compile(r"identity\.(?:name|name_sha256|labels\.[A-Za-z0-9_.:/@-]{1,128})")
"""The fields that identify the caller; ``domain/template.py`` fills them."""
_NOT_IAM: Final = re.compile(r"[^A-Za-z0-9_+=,.@-]")
_FIELDS: Final = ("mount", "role", "suffix")
_FIELDS_FIX: Final = "use {{mount}}, {{role}}, {{suffix}}, {{identity.name}}, {{identity.labels.KEY}}"
_SHOWN: Final = 64


def shown(text: str) -> str:
    """Return a caller's text for a message: quoted, on one line, cut to 64 characters."""
    cut = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
    return '"' + "".join(letter if letter.isprintable() else "�" for letter in cut) + '"'


def too_long(field: str, text: str, limit: int) -> Violation:
    """Return the violation of a text that has more than ``limit`` characters."""
    return Violation(field, f"has {len(text)} characters", f"give at most {limit}")


# --- mounts and roles -----------------------------------------------------------------------------


def is_name(text: str) -> bool:
    """Return whether ``text`` may name a mount or a role."""
    return _NAME.fullmatch(text) is not None


def is_suffix(text: str) -> bool:
    """Return whether ``text`` may end a lease id."""
    return _SUFFIX.fullmatch(text) is not None


def name_violations(field: str, text: str) -> list[Violation]:
    """Return what is wrong with ``text`` as the name of a mount or a role."""
    if is_name(text):
        return []
    rule = "use 1 to 64 of A-Z a-z 0-9 _ . - that begin and end with a letter, a digit or _"
    return [Violation(field, f"{shown(text)} is not a valid name", rule)]


# --- lease ids ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class LeaseId:
    """Name one lease; ``str()`` gives ``<mount>/creds/<role>/<suffix>``."""

    mount: str
    role: str
    suffix: str

    def __str__(self) -> str:
        """Return the id as callers see it."""
        return f"{self.mount}/creds/{self.role}/{self.suffix}"

    @classmethod
    def parse(cls, text: str, field: str = "lease_id") -> LeaseId:
        """Read an id; raise ``Invalid`` that names ``field`` for any other shape."""
        match _segments(text):
            case [mount, "creds", role, suffix] if all(map(is_name, (mount, role))) and is_suffix(suffix):
                return cls(mount, role, suffix)
        fix = f"give <mount>/creds/<role>/<{SUFFIX_DIGITS} letters and digits>"
        raise Invalid((Violation(field, f"{shown(text)} is not a valid lease id", fix),))


def is_lease_id(text: str) -> bool:
    """Return whether ``text`` names one lease."""
    try:
        LeaseId.parse(text)
    except Invalid:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Prefix:
    """Name a range of leases: those whose id is at least ``low`` and below ``high``, by bytes.

    ``role`` is empty where the prefix covers a whole mount.
    """

    mount: str
    role: str
    low: str

    def __str__(self) -> str:
        """Return the prefix as the caller wrote it."""
        return self.low

    @property
    def high(self) -> str:
        """Give the least text above every text that begins with ``low``; pure ASCII."""
        return self.low[:-1] + chr(ord(self.low[-1]) + 1)

    def covers(self, lease_id: str) -> bool:
        """Return whether ``lease_id`` lies in the range."""
        return self.low <= lease_id < self.high

    @classmethod
    def parse(cls, text: str, field: str = "prefix") -> Prefix:
        """Read a prefix of one of the four shapes; raise ``Invalid`` that names ``field`` for others."""
        match _segments(text):
            case [mount, ""] | [mount, "creds", ""] if is_name(mount):
                return cls(mount, "", text)
            case [mount, "creds", role, ""] if all(map(is_name, (mount, role))):
                return cls(mount, role, text)
            case [mount, "creds", role, suffix] if all(map(is_name, (mount, role))) and is_suffix(suffix):
                return cls(mount, role, text)
        match _segments(text):
            case [mount] | [mount, "creds"] if is_name(mount):
                fix = f"write {text}/"
            case [mount, "creds", role] if all(map(is_name, (mount, role))):
                fix = f"write {text}/"
            case _:
                fix = "give <mount>/, <mount>/creds/, <mount>/creds/<role>/ or a whole lease id"
        raise Invalid((Violation(field, f"{shown(text)} is not a valid prefix", fix),))


def _segments(text: str) -> list[str]:
    """Return the parts between the slashes; none of a text that is too long to be an id."""
    return text.split("/") if len(text) <= MAX_LEASE_ID else []


def suffix_of(time_ms: int, number: int) -> str:
    """Return the suffix for ``time_ms`` since the epoch and an already drawn ``number``.

    A time past 62^7 ms (in 2081) counts as the last that fits: ids stay unique, and lose their order alone.
    Raises ``ValueError`` unless 0 <= number < ``RANDOM_BOUND``.
    """
    return _base62(min(max(time_ms, 0), 62**TIME_DIGITS - 1), TIME_DIGITS) + _base62(number, RANDOM_DIGITS)


def _base62(number: int, digits: int) -> str:
    if not 0 <= number < 62**digits:
        message = f"{number} does not fit {digits} base62 digits"
        raise ValueError(message)
    letters = []
    for _ in range(digits):
        number, digit = divmod(number, 62)
        letters.append(BASE62[digit])
    return "".join(reversed(letters))


# --- users and sessions on AWS ----------------------------------------------------------------------

Named = Callable[[str], str]
"""Gives the value of a field of a template."""


def user_name(template: str, mount: str, role: str, suffix: str, identity: Named | None = None) -> str:
    """Return the name of a lease's IAM user or assumed role: at most 64 characters that IAM takes.

    ``template`` is one that ``template_violations`` passes; empty means the default. Its own text
    always stays, then the suffix from its right (all of it by the default template), and the values
    share what is left. Characters that IAM doesn't take become ``_``. ``identity`` gives the fields
    that identify the caller.
    """
    values = _values(mount, role, identity)
    return _filled(placeholders.split(template or DEFAULT_TEMPLATE), values, suffix, USER_NAME_LIMIT)


def federation_name(template: str, mount: str, role: str, suffix: str, identity: Named | None = None) -> str:
    """Return the name of a federated session: at most 32 characters.

    A template whose own text leaves no room for the random characters gives way to ``lessor-<suffix>``,
    and so does the default, which would leave none for the names.
    """
    parts = placeholders.split(template or DEFAULT_TEMPLATE)
    if not template or FEDERATION_LIMIT - _own_length(parts) < RANDOM_DIGITS:
        return f"lessor-{suffix}"
    return _filled(parts, _values(mount, role, identity), suffix, FEDERATION_LIMIT)


def _values(mount: str, role: str, identity: Named | None) -> Named:
    known = {"mount": mount, "role": role}

    def value(field: str) -> str:
        return known[field] if identity is None or field in known else identity(field)

    return value


def _filled(parts: list[tuple[str, str | None]], value: Named, suffix: str, limit: int) -> str:
    room = limit - _own_length(parts)
    kept = suffix[-min(room, SUFFIX_DIGITS) :]
    named = [value(field) for _, field in parts if field not in (None, "suffix")]
    cut = iter(_fairly(named, room - len(kept)))
    filled = (own + (kept if field == "suffix" else next(cut) if field else "") for own, field in parts)
    return _NOT_IAM.sub("_", "".join(filled))


def user_path(instance: str, path: str) -> str:
    """Return the IAM path of a role's users: ``path`` (empty or ``/…/``) below the instance's own."""
    return f"/lessor/{instance}{path or '/'}"


def template_violations(field: str, template: str) -> list[Violation]:
    """Return every violation of a template of user names; empty stands for the default and is valid.

    A template is text with ``{{mount}}``, ``{{role}}``, ``{{identity.…}}`` and, exactly once,
    ``{{suffix}}``.
    """
    if not template:
        return []
    if len(template) > placeholders.MAX_TEMPLATE:
        return [too_long(field, template, placeholders.MAX_TEMPLATE)]
    parts = placeholders.split(template)
    found = [
        Violation(field, f"{{{{{shown(name)[1:-1]}}}}} is not a field of a user name", _FIELDS_FIX)
        for _, name in parts
        if name is not None and name not in _FIELDS and not IDENTITY.fullmatch(name)
    ]
    if any("{{" in own or "}}" in own for own, _ in parts):
        problem = "has braces that belong to no field"
        found.append(Violation(field, problem, _FIELDS_FIX))
    if [name for _, name in parts].count("suffix") != 1:
        found.append(Violation(field, "needs {{suffix}} exactly once", "add {{suffix}}, say at its end"))
    longest = USER_NAME_LIMIT - MIN_RANDOM
    if _own_length(parts) > longest:
        problem = f"its own text leaves no room for {MIN_RANDOM} random characters"
        found.append(Violation(field, problem, f"shorten that text to {longest} characters or fewer"))
    return found


def _own_length(parts: Iterable[tuple[str, str | None]]) -> int:
    return sum(len(own) for own, _ in parts)


def _fairly(texts: list[str], room: int) -> list[str]:
    """Cut texts on their right so that all fit into ``room``: the short ones keep what they have."""
    kept = list(texts)
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for done, index in enumerate(by_length):
        kept[index] = texts[index][: room // (len(texts) - done)]
        room -= len(kept[index])
    return kept
