"""The names of an access file: of identities, policies and labels, and the patterns of certificates.

Sources: SPIFFE, "The SPIFFE Identity and Verifiable Identity Document", section 2; host names: RFC 1123,
section 2.1; JSON pointers: RFC 6901.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from lessor_server.domain.access.name_template import NameTemplate, parse_template
from lessor_server.domain.errors.base import Violation, shown, too_long

ROOT_NAME: Final = "root"
"""The name of the root token's holder, and of its policy."""
RESERVED_LOGINS: Final = ("approle", "token")
"""What an issuer can't be called: the paths ``auth/approle/`` and ``auth/token/`` are taken."""
MAX_NAME: Final = 256
MAX_NAME_VALUE: Final = 128
"""The maximum length of the value of a placeholder in a name."""
MAX_LABEL: Final = 256
MAX_KEY: Final = 128
KEY: Final = rf"[A-Za-z0-9_.:/@-]{{1,{MAX_KEY}}}"
"""The keys of labels, also in fields of templates, ``{{identity.labels.KEY}}``."""
NAME_LETTER: Final = r"[A-Za-z0-9_.@:/+=,-]"
"""A character of an identity's name."""
MAX_SPIFFE_ID: Final = 2048
MAX_HOST: Final = 253

_NAME: Final = re.compile(f"{NAME_LETTER}*")
_KEY: Final = re.compile(KEY)
_PLACEHOLDER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+")
_HOST_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)+")
_DOTS: Final = (".", "..")
_SCHEME: Final = "spiffe://"


def key_violations(field: str, text: str) -> list[Violation]:
    """Return the violations of the name of a policy or issuer, or of the key of a label."""
    if _KEY.fullmatch(text):
        return []
    return [
        Violation(
            field, f"{shown(text)} is not a valid name", f"use 1 to {MAX_KEY} of A-Z a-z 0-9 _ . : / @ -"
        )
    ]


def issuer_name_violations(field: str, text: str) -> list[Violation]:
    """Return the violations of the name of an issuer, at which its JWTs log in."""
    if text in RESERVED_LOGINS:
        return [Violation(field, "is the name of other logins and calls of tokens", "choose another name")]
    return key_violations(field, text)


def policy_name_violations(field: str, text: str) -> list[Violation]:
    """Return the violations of the name of a policy."""
    if text == ROOT_NAME:
        return [Violation(field, "is reserved for the root token", "choose another name")]
    return key_violations(field, text)


def identity_name_violations(field: str, text: str) -> list[Violation]:
    """Return the violations of an identity's name, which may have placeholders.

    Text between two placeholders is needed, because otherwise no value would have an end.
    """
    if len(text) > MAX_NAME:
        return [too_long(field, text, MAX_NAME)]
    try:
        template = parse_template(text)
    except ValueError as error:
        return [Violation(field, str(error), "write it as in k8s/{ns}/{sa}")]
    found = []
    if text == ROOT_NAME:
        found.append(Violation(field, "is reserved for the root token", "choose another name"))
    if not all(_NAME.fullmatch(own) for own, _ in template.parts):
        problem = f"{shown(text)} has characters that a name can't have"
        found.append(Violation(field, problem, "use A-Z a-z 0-9 _ . @ : / + = , -"))
    segments = "".join(own + ("x" if name else "") for own, name in template.parts).split("/")
    if any(segment in ("", *_DOTS) for segment in segments):
        found.append(Violation(field, f"{shown(text)} has an empty segment, or one of . or ..", "remove it"))
    if template.placeholders:
        found += _placeholder_violations(field, template)
    return found


def _placeholder_violations(field: str, template: NameTemplate) -> Iterator[Violation]:
    """Yield the violations of where placeholders are in a name."""
    if not template.head.endswith("/"):
        problem = "does not begin with text that ends in / before its first placeholder"
        yield Violation(field, problem, "begin it with a text of its own, as in k8s/{ns}")
    between = [own for own, name in template.parts if name is not None][1:]
    if not all(between):
        yield Violation(field, "has two placeholders without text between them", "put a / between them")


def label_violations(field: str, text: str) -> list[Violation]:
    """Return the violations of a label's value, which may have placeholders."""
    if not text:
        return [Violation(field, "is empty", "give it a value, or remove the label")]
    if len(text) > MAX_LABEL:
        return [too_long(field, text, MAX_LABEL)]
    found = []
    try:
        parse_template(text)
    except ValueError as error:
        found.append(Violation(field, str(error), "write it as in {ns}"))
    if not text.isprintable():
        found.append(Violation(field, "has characters that can't be printed", "remove them"))
    return found


def label_value_violations(field: str, text: str) -> list[Violation]:
    """Return the violations of the label of a caller, filled in."""
    if 1 <= len(text) <= MAX_LABEL and text.isprintable():
        return []
    return [Violation(field, f"is not 1 to {MAX_LABEL} printable characters", "correct it")]


def claim_violations(field: str, name: str) -> list[Violation]:
    """Return the violations of the name of a claim; one that begins with ``/`` is a JSON pointer."""
    if not name or not name.isprintable():
        problem = f"{shown(name)} is not the name of a claim"
        return [Violation(field, problem, 'write a claim such as sub, or "/a/b" for a nested one')]
    if name.startswith("/") and not _POINTER.fullmatch(name):
        return [Violation(field, f"{shown(name)} is not a JSON pointer", "write ~0 for ~, and ~1 for /")]
    return []


def unknown_placeholders(field: str, text: str, known: Collection[str]) -> list[Violation]:
    """Return a violation for each placeholder of ``text`` that is not ``known``; none if it is malformed."""
    try:
        used = parse_template(text).placeholders
    except ValueError:
        return []
    fix = f"use {' or '.join(f'{{{one}}}' for one in known)}" if known else "remove it"
    return [
        Violation(field, f"has {shown(f'{{{name}}}')}, which its credential does not have", fix)
        for name in dict.fromkeys(used)
        if name not in known
    ]


def spiffe_violations(field: str, text: str) -> list[Violation]:
    """Return the violations of the pattern of a SPIFFE ID, in which ``{x}`` is one whole segment."""
    if len(text) > MAX_SPIFFE_ID:
        return [too_long(field, text, MAX_SPIFFE_ID)]
    if not text.startswith(_SCHEME):
        fix = "write it as spiffe://example.org/ns/{ns}/sa/{sa}"
        return [Violation(field, f"{shown(text)} does not begin with spiffe://", fix)]
    trust_domain, *segments = text.removeprefix(_SCHEME).split("/")
    found = []
    if not _TRUST_DOMAIN.fullmatch(trust_domain):
        problem = f"{shown(trust_domain)} is not a trust domain"
        found.append(Violation(field, problem, "use a-z 0-9 . - _, without placeholders"))
    found += [
        _not_whole(field, segment, "segment", "A-Z a-z 0-9 . - _")
        for segment in segments
        if not _is_placeholder(segment) and (segment in _DOTS or not _SEGMENT.fullmatch(segment))
    ]
    return found + _repeated(field, segments)


def host_violations(field: str, text: str) -> list[Violation]:
    """Return the violations of the pattern of a DNS name, in which ``{x}`` is one whole label."""
    if len(text) > MAX_HOST:
        return [too_long(field, text, MAX_HOST)]
    labels = text.split(".")
    found = [
        _not_whole(field, label, "label", "A-Z a-z 0-9 - _, at most 63,")
        for label in labels
        if not _is_placeholder(label) and not _HOST_LABEL.fullmatch(label)
    ]
    return found + _repeated(field, labels)


def _is_placeholder(text: str) -> bool:
    return text.startswith("{") and text.endswith("}") and _PLACEHOLDER.fullmatch(text[1:-1]) is not None


def _not_whole(field: str, text: str, part: str, letters: str) -> Violation:
    problem = f"{shown(text)} is neither a {part} nor a placeholder for a whole one"
    return Violation(field, problem, f"use {letters} or a placeholder such as {{x}} alone")


def _repeated(field: str, parts: Iterable[str]) -> list[Violation]:
    names = [part for part in parts if _is_placeholder(part)]
    return [
        Violation(field, f"has {shown(name)} twice", "give each placeholder its own name")
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]


def clashing_names(names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the index of each name that clashes with another, and the index of that other.

    Names without placeholders must differ. The literal text before a first placeholder must not begin another
    name or its literal text, nor begin with one. Names that have violations of their own may be left out.
    """
    starts = [_start(name) for name in names]
    first: dict[tuple[str, bool], int] = {}
    for index, start in enumerate(starts):
        first.setdefault(start, index)
    for index, (text, is_template) in enumerate(starts):
        beginnings = [text[: end + 1] for end in range(len(text))]
        clashing = [(beginning, True) for beginning in beginnings]
        clashing += [(beginning, False) for beginning in (beginnings if is_template else [text])]
        # Of two equal texts only the later is reported: the table holds the first.
        other = next((first[one] for one in clashing if first.get(one, index) != index), None)
        if text and other is not None:
            yield index, other


def _start(name: str) -> tuple[str, bool]:
    """Return a name up to its first placeholder, and whether it has one; an empty text if it is invalid."""
    try:
        template = parse_template(name if len(name) <= MAX_NAME else "")
    except ValueError:
        return "", False
    if template.placeholders and not template.head.endswith("/"):
        return "", False
    return template.head, bool(template.placeholders)
