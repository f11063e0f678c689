"""The names and paths of the users and sessions of leases on AWS, by templates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final

from lessor_server.domain.errors.base import Violation, shown, too_long
from lessor_server.domain.lease_id import RANDOM_DIGITS, SUFFIX_DIGITS
from lessor_server.domain.policy import placeholders

USER_NAME_LIMIT: Final = 64
"""The maximum length of a user's name, and of an assumed role's session."""
FEDERATION_LIMIT: Final = 32
"""The maximum length of a federated session's name."""
MIN_RANDOM: Final = 12
"""The minimum number of random characters in a user's name.

IAM compares names without case, so a random base62 character has 5.07 bits. 17 have 86 bits: among a billion
names, two are equal with a probability below 10^-8. 12 have 61 bits: among an account's 5,000 users the
probability is below 10^-11, and the time part usually differs as well.
"""
IDENTITY: Final = re.compile(r"identity\.(?:name|name_sha256|labels\.[A-Za-z0-9_.:/@-]{1,128})")
"""The fields that identify the caller; ``domain/template.py`` fills them."""
DEFAULT_TEMPLATE: Final = "lessor-{{mount}}-{{role}}-{{suffix}}"

_NOT_IAM: Final = re.compile(r"[^A-Za-z0-9_+=,.@-]")
_FIELDS: Final = ("mount", "role", "suffix")
_FIELDS_FIX: Final = "use {{mount}}, {{role}}, {{suffix}}, {{identity.name}}, {{identity.labels.KEY}}"

Named = Callable[[str], str]
"""Returns the value of a template's field."""


def user_name(template: str, mount: str, role: str, suffix: str, identity: Named | None = None) -> str:
    """Return the name of a lease's IAM user or assumed role: at most 64 characters that IAM accepts.

    ``template`` is valid (``template_violations``); empty means the default. Its own text is never cut. The
    suffix is cut on its left if there is no room (never in the default), and the values share the rest.
    Characters that IAM refuses become ``_``. ``identity`` returns the fields that identify the caller.
    """
    template = template or DEFAULT_TEMPLATE
    return _filled(template, _values(template, mount, role, identity), suffix, USER_NAME_LIMIT)


def federation_name(template: str, mount: str, role: str, suffix: str, identity: Named | None = None) -> str:
    """Return the name of a federated session: at most 32 characters.

    The name is ``lessor-<suffix>`` for the default template, and if the template's own text leaves no room
    for the random characters.
    """
    if not template or FEDERATION_LIMIT - _own_length(_parts(template)) < RANDOM_DIGITS:
        return f"lessor-{suffix}"
    return _filled(template, _values(template, mount, role, identity), suffix, FEDERATION_LIMIT)


@lru_cache(maxsize=64)
def _parts(template: str) -> tuple[tuple[str, str | None], ...]:
    """Split a template; a mount's is the same at each issue."""
    return tuple(placeholders.split(template))


def _values(template: str, mount: str, role: str, identity: Named | None) -> tuple[str, ...]:
    """Return the values of a template's fields, in order and without the suffix."""
    known = {"mount": mount, "role": role}
    return tuple(
        known[field] if identity is None or field in known else identity(field)
        for _, field in _parts(template)
        if field is not None and field != "suffix"
    )


def _filled(template: str, values: tuple[str, ...], suffix: str, limit: int) -> str:
    before, digits, after = _around_suffix(template, values, limit)
    return f"{before}{suffix[-digits:]}{after}"


@lru_cache(maxsize=256)
def _around_suffix(template: str, values: tuple[str, ...], limit: int) -> tuple[str, int, str]:
    """Return the text before the suffix, how many of its characters there is room for, and the text after."""
    parts = _parts(template)
    room = limit - _own_length(parts)
    digits = min(room, SUFFIX_DIGITS)
    cut = iter(_fairly(values, room - digits))
    sides = [""]
    for own, field in parts:
        sides[-1] += own
        if field == "suffix":
            sides.append("")
        elif field is not None:
            sides[-1] += next(cut)
    before, after = (_NOT_IAM.sub("_", side) for side in sides)
    return before, digits, after


def user_path(instance: str, path: str) -> str:
    """Return the IAM path of a role's users: ``path`` (empty or ``/…/``) below the instance's own."""
    return f"/lessor/{instance}{path or '/'}"


def template_violations(field: str, template: str) -> list[Violation]:
    """Return every violation of a template of user names; empty means the default and is valid.

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


def _fairly(texts: Sequence[str], room: int) -> list[str]:
    """Cut the longest texts on their right so that all fit into ``room``."""
    kept = list(texts)
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for done, index in enumerate(by_length):
        kept[index] = texts[index][: room // (len(texts) - done)]
        room -= len(kept[index])
    return kept
