"""Translates Vault's ACL policies into the rules of an access file.

A rule here never allows more than in Vault: one with a restriction that has no equivalent becomes ``deny``,
because without it a broader rule could decide. Rules about other engines and about Vault itself are left out.

Source: HashiCorp Vault, "Policies", sections "Policy syntax", "Fine-grained control", "Templated policies".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import click

from lessor.cli.vault_roles import CannotTake, translate_template
from lessor.values import JsonValue

HEADER: Final = "# Policies of Vault, written by `lessor import vault`."
MAX_RULES: Final = 10_000
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_CAPABILITIES: Final = ("create", "read", "update", "delete", "list", "sudo", "deny")
_SHORTHAND: Final = {
    "deny": ["deny"],
    "read": ["read", "list"],
    "write": ["create", "read", "update", "delete", "list"],
    "sudo": ["create", "read", "update", "delete", "list", "sudo"],
}
"""What the old key ``policy`` of a path stands for."""
_REQUIRED: Final = frozenset({"ttl", "role_arn", "role_session_name", "mfa_code"})
"""Parameters of Vault that a rule here can require as well."""
_SYSTEM: Final = (
    "sys/leases/lookup/",
    "sys/leases/renew/",
    "sys/leases/revoke/",
    "sys/leases/revoke-prefix/",
)
_IN_BODY: Final = ("sys/leases/lookup", "sys/leases/renew", "sys/leases/revoke")
"""Paths at which Vault takes the lease id from the body of a request."""
_FORCE: Final = "sys/leases/revoke-force/"
_FIELD: Final = re.compile(r"\{\{[^{}]*\}\}")
_WILDCARD: Final = re.compile(r"[*+]")
_OPEN: Final = re.compile(r"[*+{]")
_ISSUES: Final = re.compile(r"[^/]+/(?:creds|sts)/")
_STS: Final = re.compile(r"^([^/]+)/sts/")


@dataclass(slots=True)
class TranslatedRule:
    """A rule of the access file."""

    path: str
    capabilities: list[str]
    require: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TranslatedPolicy:
    """A policy of the access file, and one line for each rule of Vault that is left out or changed."""

    name: str
    rules: tuple[TranslatedRule, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def parse_policy(text: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the paths of a policy in HCL or JSON, each with its settings, in their order.

    Raises:
        ClickException: python-hcl2 is not installed.
        CannotTake: The text is not a policy.
    """
    try:
        document = json.loads(text) if text.lstrip().startswith("{") else _parse_hcl(text)
    except (ValueError, RecursionError):
        raise CannotTake("it is not valid JSON") from None
    blocks = document.get("path", []) if isinstance(document, dict) else None
    tables = [blocks] if isinstance(blocks, dict) else blocks
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise CannotTake("its paths can't be read")
    found = [(str(path), settings) for one in tables for path, settings in one.items()]
    if not all(isinstance(settings, dict) for _, settings in found) or len(found) > MAX_RULES:
        raise CannotTake("its paths can't be read")
    return found


def _parse_hcl(text: str) -> dict[str, Any]:
    try:
        import hcl2  # noqa: PLC0415 - an extra
        from lark.exceptions import LarkError  # noqa: PLC0415
    except ModuleNotFoundError as error:
        message = f"reading policies needs {error.name}; install lessor[vault], or leave --policies out"
        raise click.ClickException(message) from None
    options = hcl2.SerializationOptions(with_comments=False, explicit_blocks=False, strip_string_quotes=True)
    try:
        return hcl2.loads(text if text.endswith("\n") else f"{text}\n", serialization_options=options)
    except (LarkError, RecursionError):
        raise CannotTake("it is not valid HCL") from None


def translate_policy(name: str, text: str, mount: str, to: str) -> TranslatedPolicy:
    """Return the part of a policy that is about the AWS engine at ``mount``, which is called ``to`` here.

    Raises:
        CannotTake: The policy, or one of its paths that concern the engine, can't be translated.
    """
    if not _NAME.fullmatch(name) or name == "root":
        raise CannotTake("its name has other characters than letters, digits and _ . -; rename it")
    rules: dict[str, TranslatedRule] = {}
    left_out: list[str] = []
    notes: list[str] = []
    for path, settings in parse_policy(text):
        given = path.removeprefix("/")
        if given in _IN_BODY:
            notes.append(f"{given}: is left out: here its path has the lease id, and own leases need no rule")
        if given in _IN_BODY or not _concerns(given, mount):
            left_out.append(given)
            continue
        made = _rule(given, settings, mount, to, notes)
        for one in made:
            _unite(rules, one, notes)
        if not made:
            left_out.append(given)
    return TranslatedPolicy(name, tuple(rules.values()), tuple(left_out), tuple(dict.fromkeys(notes)))


def _concerns(path: str, mount: str) -> bool:
    """Return whether a pattern can match a path of the engine, or of its leases."""
    if path.startswith(("sys/", "+/", "*")) or path == "+":
        sys_paths = (*_SYSTEM, _FORCE, f"sys/mounts/{mount}")
        literal = _WILDCARD.split(path, maxsplit=1)[0]
        return any(one.startswith(literal) or literal.startswith(one) for one in sys_paths) or (
            not path.startswith("sys/")
        )
    literal = _OPEN.split(path, maxsplit=1)[0]
    is_open = literal != path
    return literal.startswith(f"{mount}/") or (is_open and f"{mount}/".startswith(literal))


def _rule(
    path: str, settings: Mapping[str, Any], mount: str, to: str, notes: list[str]
) -> list[TranslatedRule]:
    """Return the rules for one path of Vault; none if nothing is left of it."""
    pattern = translate_template(path, notes)
    if pattern.find("*") not in {-1, len(pattern) - 1} or any(
        "+" in part and part != "+" for part in _FIELD.sub("", pattern).split("/")
    ):
        raise CannotTake(
            f"{path}: a * or + stands for itself there, which has no equivalent; write the path out"
        )
    if pattern.startswith(f"{mount}/"):
        pattern = f"{to}/{pattern.removeprefix(f'{mount}/')}"
    elif to != mount:
        pattern = pattern.replace(f"/{mount}/", f"/{to}/").replace(f"sys/mounts/{mount}", f"sys/mounts/{to}")
    able = _capabilities(path, settings, notes)
    required = [str(one) for one in settings.get("required_parameters", [])]
    restrictions = [
        key for key in settings if key not in {"capabilities", "policy", "required_parameters", "comment"}
    ]
    if not able:
        return []
    issues = _ISSUES.match(pattern) is not None
    if restrictions or (required and not (issues and _REQUIRED.issuperset(required))):
        what = ", ".join([*restrictions, *(["required_parameters"] if required else [])])
        notes.append(f"{path}: {what} has no equivalent, so the rule denies; write what should hold instead")
        return [TranslatedRule(_as_creds(pattern), ["deny"])]
    if issues and "read" not in able and not {"create", "update"}.isdisjoint(able):
        able = [*able, "read"]
    if _as_creds(pattern) != pattern:
        notes.append(f"{path}: sts/ is creds/ here")
    return [TranslatedRule(_as_creds(pattern), able, required)]


def _as_creds(pattern: str) -> str:
    """Return a pattern with the path at which every type of credentials is issued here."""
    return _STS.sub(r"\1/creds/", pattern)


def _capabilities(path: str, settings: Mapping[str, Any], notes: list[str]) -> list[str]:
    given = settings.get("capabilities")
    if given is None:
        given = _SHORTHAND.get(str(settings.get("policy", "")), [])
    able = [str(one).lower() for one in given] if isinstance(given, list) else []
    unknown = [one for one in able if one not in _CAPABILITIES]
    if unknown:
        notes.append(f"{path}: {', '.join(unknown)} is left out: no call here needs it")
    if "deny" in able:
        return ["deny"]
    return [one for one in dict.fromkeys(able) if one in _CAPABILITIES]


def _unite(rules: dict[str, TranslatedRule], one: TranslatedRule, notes: list[str]) -> None:
    """Add a rule to those of its policy; of two with one path ``deny`` wins, as in Vault."""
    there = rules.setdefault(one.path, one)
    if there is one:
        return
    notes.append(f"{one.path}: several rules of Vault are one here")
    both = dict.fromkeys((*there.capabilities, *one.capabilities))
    there.capabilities = ["deny"] if "deny" in both else list(both)
    there.require = list(dict.fromkeys((*there.require, *one.require)))


def access_file(policies: list[TranslatedPolicy]) -> str:
    """Return the policies as TOML."""
    return "\n".join([HEADER, *_lines(policies)]) + "\n"


def _lines(policies: list[TranslatedPolicy]) -> Iterator[str]:
    yield '# Give them to identities: see "The file" in docs/access.md.'
    for policy in policies:
        yield ""
        for note in policy.notes:
            yield f"# {_comment(note)}"
        for path in policy.left_out:
            yield f"# left out: {_comment(path)}"
        yield "[[policies]]"
        yield f"name = {json.dumps(policy.name)}"
        for rule in policy.rules:
            yield "[[policies.rules]]"
            yield f"path = {json.dumps(rule.path)}"
            yield f"capabilities = {json.dumps(rule.capabilities)}"
            if rule.require:
                yield f"require = {json.dumps(rule.require)}"


def _comment(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def as_plain(policy: TranslatedPolicy) -> dict[str, JsonValue]:
    """Return a policy for JSON output."""
    return {
        "name": policy.name,
        "rules": len(policy.rules),
        "left_out": list(policy.left_out),
        "notes": list(policy.notes),
    }
