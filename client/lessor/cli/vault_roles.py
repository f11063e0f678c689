"""Translates roles of Vault's AWS engine into roles of Lessor, and says what changes on the way.

Sources: HashiCorp Vault, "AWS secrets engine (API)", for its fields; STS API Reference, AssumeRole,
GetFederationToken and GetSessionToken, for AWS's limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from lessor import values
from lessor.cli.plain_messages import normal_document
from lessor.values import InvalidValue, JsonValue

Plain = dict[str, JsonValue]

MIN_SESSION: Final = timedelta(minutes=15)
MAX_SESSION: Final = {
    "ASSUMED_ROLE": timedelta(hours=12),
    "FEDERATION_TOKEN": timedelta(hours=36),
    "SESSION_TOKEN": timedelta(hours=36),
}
_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?", re.ASCII)
_IGNORED: Final = {
    "IAM_USER": ("mfa_serial_number",),
    "ASSUMED_ROLE": ("iam_tags", "mfa_serial_number"),
    "FEDERATION_TOKEN": ("iam_tags", "mfa_serial_number"),
    "SESSION_TOKEN": ("iam_tags", "iam_groups"),
}
"""Fields that Vault stores for a type and does not use."""
_COPIED: Final = (
    *("role_arns", "policy_arns", "iam_groups", "iam_tags", "session_tags"),
    *("external_id", "user_path", "permissions_boundary_arn", "mfa_serial_number"),
)
ROLE_FIELDS: Final = ("credential_type", "policy_document", "default_sts_ttl", "max_sts_ttl", *_COPIED)
"""The fields that a role has in Vault too; others of a role here are kept."""
STATIC_FIELDS: Final = ("username", "rotation_period", "assume_chain", "held")
_TEMPLATE: Final = re.compile(r"\{\{([^{}]*)\}\}")
_METADATA: Final = re.compile(r"identity\.entity\.metadata\.([A-Za-z0-9_.-]+)", re.ASCII)


class CannotTake(Exception):
    """A role that has no equivalent here; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Translated:
    """A role of Lessor, and what is different from Vault."""

    role: Plain
    notes: tuple[str, ...] = field(default=())


def require_name(name: str) -> None:
    """Raise ``CannotTake`` for a name that no role can have here."""
    if not _NAME.fullmatch(name):
        raise CannotTake(
            "its name has other characters than letters, digits and _ . -, or is too long; rename it"
        )


def translate_role(name: str, data: Plain) -> Translated:
    """Return a role for what Vault answers about one; raises ``CannotTake``."""
    require_name(name)
    kind = _kind(data)
    notes: list[str] = []
    role: Plain = {"credential_type": kind}
    for key in _COPIED:
        value = data.get(key)
        if not value or (key == "user_path" and value == "/"):
            continue
        if key in _IGNORED[kind]:
            notes.append(f"{key} is left out: Vault does not use it for {kind.lower()}")
        else:
            role[key] = _pairs(value) if key.endswith("_tags") else value
    if document := data.get("policy_document"):
        role["policy_document"] = _document(document, notes)
    for key in ("default_sts_ttl", "max_sts_ttl"):
        if seconds := _seconds(data.get(key)):
            role[key] = _session_ttl(key, seconds, kind, notes)
    _require_complete(kind, role)
    if any("*" in str(arn) for arn in _texts(role.get("role_arns"))):
        notes.append("role_arns has a *, which stands for any characters here and for itself in Vault")
    return Translated(role, tuple(notes))


def _kind(data: Plain) -> str:
    """Return the type of a role; raises ``CannotTake`` if it has none, or several."""
    if data.get("invalid_data"):
        raise CannotTake(
            "it was written by an old version of Vault, which could not migrate it; write it again"
        )
    given = data.get("credential_type") or data.get("credential_types") or ""
    kinds = given.split(",") if isinstance(given, str) else [str(one) for one in _texts(given)]
    kinds = [one.strip() for one in kinds if one.strip()]
    if len(kinds) > 1:
        raise CannotTake(f"it has the types {' and '.join(kinds)}; make one role of each type")
    if not kinds or (kind := kinds[0].upper()) not in _IGNORED:
        raise CannotTake(f"its credential_type {given!r} is not known; is the mount an AWS engine?")
    return kind


def _require_complete(kind: str, role: Plain) -> None:
    if kind == "ASSUMED_ROLE" and not role.get("role_arns"):
        raise CannotTake("it has no role_arns, so it can't issue anything; add one")
    policies = ("policy_document", "policy_arns", "iam_groups")
    if kind == "FEDERATION_TOKEN" and not any(role.get(key) for key in policies):
        raise CannotTake("it has no policy, and AWS gives such a session no rights; add one")


def _document(document: JsonValue, notes: list[str]) -> JsonValue:
    """Return a policy with the templates of Lessor; raises ``CannotTake``."""
    try:
        parsed = values.document(document if isinstance(document, dict) else str(document).lstrip("@-"))
    except InvalidValue as wrong:
        raise CannotTake(f"its policy_document can't be read: {wrong}") from None
    return _filled(normal_document(parsed), notes)


def _filled(value: JsonValue, notes: list[str]) -> JsonValue:
    if isinstance(value, dict):
        return {key: _filled(one, notes) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, notes) for one in value]
    return translate_template(value, notes) if isinstance(value, str) else value


def translate_template(text: str, notes: list[str]) -> str:
    """Return a text with the fields of an identity in place of those of Vault's entity.

    Raises:
        CannotTake: A field has no equivalent.
    """

    def translate(found: re.Match[str]) -> str:
        named = found.group(1).strip()
        if named == "identity.entity.name":
            made = "{{identity.name}}"
        elif metadata := _METADATA.fullmatch(named):
            made = f"{{{{identity.labels.{metadata.group(1)}}}}}"
        else:
            raise CannotTake(f"it uses {{{{{named}}}}}, which has no equivalent; write what it stands for")
        note = f"{{{{{named}}}}} becomes {made}: the identities of the access file must have the same values"
        if note not in notes:
            notes.append(note)
        return made

    return _TEMPLATE.sub(translate, text)


def _session_ttl(key: str, seconds: int, kind: str, notes: list[str]) -> str:
    """Return a lifetime within AWS's limits."""
    if kind not in MAX_SESSION:
        raise CannotTake(f"it is of type {kind.lower()} and has {key}; remove that")
    given = timedelta(seconds=seconds)
    span = min(max(given, MIN_SESSION), MAX_SESSION[kind])
    if span != given:
        notes.append(
            f"{key} is {values.written(given)} in Vault, which AWS refuses; here {values.written(span)}"
        )
    return values.written(span)


def translate_static_role(name: str, data: Plain) -> Translated:
    """Return a static role, held, for what Vault answers about one; raises ``CannotTake``."""
    require_name(name)
    notes: list[str] = []
    role: Plain = {"username": str(data.get("username") or "")}
    if period := _seconds(data.get("rotation_period")):
        role["rotation_period"] = values.written(timedelta(seconds=period))
    if not role["username"] or not period:
        raise CannotTake("it has no username or no rotation_period")
    if arn := data.get("assume_role_arn"):
        role["assume_chain"] = [{"role_arn": str(arn), "external_id": str(data.get("external_id") or "")}]
    if data.get("assume_role_session_name"):
        notes.append("assume_role_session_name is left out: the name of the session is chosen here")
    return Translated({**role, "held": True}, tuple(notes))


def translate_defaults(data: Plain | None, notes: list[str]) -> Plain | None:
    """Return the lease defaults for Vault's config/lease; None if Vault has none."""
    spans = {key: _seconds((data or {}).get(key)) for key in ("lease", "lease_max")}
    if not any(spans.values()):
        return None
    if spans["lease_max"] and spans["lease"] > spans["lease_max"]:
        notes.append("config/lease: lease is above lease_max in Vault, and caps itself; here it is lease_max")
        spans["lease"] = spans["lease_max"]
    return {key: values.written(timedelta(seconds=seconds)) for key, seconds in spans.items() if seconds}


def translate_tune(data: Plain) -> Plain:
    """Return an engine's settings for Vault's tune: its description and lifetimes."""
    spans = {key: _seconds(data.get(key)) for key in ("default_lease_ttl", "max_lease_ttl")}
    if spans["max_lease_ttl"]:
        spans["default_lease_ttl"] = min(spans["default_lease_ttl"], spans["max_lease_ttl"])
    found: Plain = {
        key: values.written(timedelta(seconds=seconds)) for key, seconds in spans.items() if seconds
    }
    return found | ({"description": data["description"]} if data.get("description") else {})


def general_notes(kinds: set[str]) -> Iterator[str]:
    """Yield what is different for every role of these types."""
    yield "the root is not imported, because Vault does not show its secret: `lessor config root set` sets it"
    yield "leases are not imported: those of Vault end there, when they expire or are revoked"
    yield "a lease here does not end with the token of its caller; it lives until its own expiry"
    if "IAM_USER" in kinds:
        yield "iam_user: `ttl` of a request counts here, and Vault passes it over"
        yield "iam_user: users have other names, and a path below /lessor/INSTANCE/: check what names them"
    if kinds - {"IAM_USER"}:
        yield "sessions: as in Vault, revoking a lease ends no session on AWS; here the answer says so"


def _seconds(value: JsonValue) -> int:
    """Return a duration of Vault in seconds: a number, or a text such as ``1h0m0s``; 0 if there is none."""
    if value is None or isinstance(value, bool | list | dict):
        return 0
    try:
        return int(values.duration(str(value).partition(".")[0] or "0").total_seconds())
    except InvalidValue:
        return 0


def _pairs(value: JsonValue) -> JsonValue:
    """Return tags as a mapping; they can also be a list of ``KEY=VALUE``."""
    if not isinstance(value, list):
        return value
    return {key: one for key, _, one in (str(pair).partition("=") for pair in value)}


def _texts(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
