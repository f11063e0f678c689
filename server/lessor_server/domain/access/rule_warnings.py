"""Rules of an access file that are valid, and that have no effect or not the one that they seem to have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from lessor_server.domain.access.access_config import AccessConfig, Identity
from lessor_server.domain.access.acl import Capability, Rule
from lessor_server.domain.access.path_pattern import PathPattern
from lessor_server.domain.policy import placeholders

Segment = str | Callable[[str], bool]
"""One segment of a path: its text, or whether a text can be it."""

_NAMED: Final = 3
"""The maximum number of identities that one warning names."""
_LABELS: Final = "identity.labels."


@dataclass(frozen=True, slots=True)
class PathShape:
    """A form of the paths of calls, and a capability that some call needs on them."""

    segments: tuple[Segment, ...]
    capability: Capability


def find_warnings(config: AccessConfig, shapes: Collection[PathShape]) -> list[str]:
    """Return what is odd about the rules, each with its location; ``shapes`` are those of all calls."""
    found = [
        f"{rule.location}.{problem}"
        for policy in config.policies.values()
        for rule in policy.rules
        for problem in (*_own_problems(rule, shapes), *_problems_of_holders(rule, policy.name, config))
    ]
    return [*found, *_overridden_denies(config)]


def _own_problems(rule: Rule, shapes: Iterable[PathShape]) -> Iterator[str]:
    needed = {shape.capability for shape in shapes if _can_match(rule, shape)}
    if not needed:
        yield "path: matches no path of any call; compare it with the table in docs/access.md"
    elif Capability.DENY not in rule.capabilities and not needed & rule.capabilities:
        names = ", ".join(one.value for one in Capability if one in needed)
        yield f"capabilities: no call needs these on such a path; calls need {names} there"
    if Capability.DENY in rule.capabilities and len(rule.capabilities) > 1:
        yield "capabilities: deny wins over all others; remove deny, or the others"


def _problems_of_holders(rule: Rule, policy: str, config: AccessConfig) -> Iterator[str]:
    """Yield each field of a pattern that some identity with the policy can't fill."""
    for field in dict.fromkeys(placeholders.fields(rule.pattern)):
        holders = [one for one in config.identities if policy in one.policies and _is_unusable(one, field)]
        if holders:
            names = ", ".join(one.location for one in holders[:_NAMED])
            more = f" and {len(holders) - _NAMED} more" if len(holders) > _NAMED else ""
            problem = f"path: matches nothing for {names}{more}"
            yield f"{problem}, whose {field} is missing or always has a /, * or +; use a label without them"


def _is_unusable(identity: Identity, field: str) -> bool:
    """Return whether a field has, for every caller of the identity, no value that a path can hold."""
    text = identity.name
    if field.startswith(_LABELS):
        text = identity.labels.get(field.removeprefix(_LABELS), "")
    # Names of placeholders may be JSON pointers, which have slashes.
    own = "".join(piece.partition("}")[2] if "}" in piece else piece for piece in text.split("{"))
    return not text or any(letter in own for letter in "/*+")


def _overridden_denies(config: AccessConfig) -> Iterator[str]:
    """Yield each deny that yields, on a part of its paths, to a pattern which is not narrower than it."""
    seen: dict[tuple[str, str], None] = {}
    for names in dict.fromkeys(identity.policies for identity in config.identities):
        held = [rule for name in names for rule in config.policies[name].rules if _is_wild(rule)]
        denied = {rule.pattern for rule in held if Capability.DENY in rule.capabilities}
        allowing = [rule for rule in held if rule.pattern not in denied]
        denying = [rule for rule in held if Capability.DENY in rule.capabilities]
        seen |= {
            (deny.location, _overridden(deny, other)): None
            for deny in denying
            for other in allowing
            if _overrides(other, deny)
        }
    yield from (f"{location}.{problem}" for location, problem in seen)


def _overridden(deny: Rule, other: Rule) -> str:
    problem = (
        f"path: the deny of {deny.pattern} has no effect where {other.pattern} ({other.location}) matches"
    )
    return f"{problem}, which decides; deny paths with a later first wildcard, such as aws/creds/*"


def _is_wild(rule: Rule) -> bool:
    """Return whether a pattern has wildcards, and is the same for every caller."""
    return not PathPattern(rule.pattern).is_exact and not placeholders.fields(rule.pattern)


def _overrides(other: Rule, deny: Rule) -> bool:
    own, denied = PathPattern(other.pattern), PathPattern(deny.pattern)
    return own.priority > denied.priority and overlap(own.text, denied.text) and not covers(denied, own)


def overlap(one: str, other: str) -> bool:
    """Return whether some path matches both patterns."""
    first, second = one.split("/"), other.split("/")
    for index in count():
        if index >= len(first) or index >= len(second):
            return len(first) == len(second)
        own, given = first[index], second[index]
        open_ends = [text.removesuffix("*") for text in (own, given) if text.endswith("*")]
        if "+" in (own, given):
            if open_ends:
                return True
        elif open_ends:
            shorter, longer = sorted((own.removesuffix("*"), given.removesuffix("*")), key=len)
            return longer.startswith(shorter) and (len(open_ends) > 1 or shorter in open_ends)
        elif own != given:
            return False
    raise AssertionError("the loop returns")


def covers(wide: PathPattern, narrow: PathPattern) -> bool:
    """Return whether each path that ``narrow`` matches is also matched by ``wide``.

    A ``+`` of ``narrow`` is covered by a ``+`` only, and its open end by an open end only: both may be any
    text, for which a letter stands that no pattern has.
    """
    any_text = "\N{REPLACEMENT CHARACTER}"
    sample = "/".join(any_text if one == "+" else one for one in narrow.text.removesuffix("*").split("/"))
    if not narrow.text.endswith("*"):
        return wide.matches(sample)
    return wide.text.endswith("*") and wide.matches(sample) and wide.matches(sample + any_text)


def _can_match(rule: Rule, shape: PathShape) -> bool:
    """Return whether some path of a shape matches the pattern of a rule, fields filled in."""
    *inner, last = rule.pattern.split("/")
    is_open = last.endswith("*")
    segments = shape.segments
    is_exact = not is_open and "+" not in (*inner, last)
    if is_exact and shape.capability is Capability.LIST and segments[-1] == "" and last != "":
        segments = segments[:-1]
    if len(segments) < len(inner) + 1 or (not is_open and len(segments) > len(inner) + 1):
        return False
    if not all(_segment_can_match(text, one) for text, one in zip(inner, segments, strict=False)):
        return False
    return _segment_can_match(last, segments[len(inner)])


def _segment_can_match(text: str, segment: Segment) -> bool:
    if text in ("+", "*"):
        return True
    pieces = [own for own, _ in placeholders.split(text.removesuffix("*"))]
    if isinstance(segment, str):
        return _can_be(pieces, segment, is_open=text.endswith("*"))
    return segment("x".join(pieces) + ("x" if text.endswith("*") else ""))


def _can_be(pieces: Sequence[str], segment: str, *, is_open: bool) -> bool:
    """Return whether values between these pieces can give a segment, or its beginning."""
    if len(pieces) == 1:
        return segment.startswith(pieces[0]) if is_open else segment == pieces[0]
    return segment.startswith(pieces[0]) and (is_open or segment.endswith(pieces[-1]))
