"""Loads an access file: who may call, what they may do, and who vouches for them.

Each field is a key of the file. Types are checked first, then rules that need more than one value; what is
wrong with one value hides nothing of the others. The file holds no secret.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Final, TypeVar

from pydantic import BeforeValidator, Field, PlainValidator

from lessor_server.domain.access import names
from lessor_server.domain.access.access_config import (
    DEFAULT_ALGORITHMS,
    AccessConfig,
    DnsMatch,
    Identity,
    IpNetwork,
    JwtIssuer,
    JwtMatch,
    SpiffeMatch,
    TokenMatch,
)
from lessor_server.domain.access.acl import Capability, Policy, Rule
from lessor_server.domain.access.issue_limits import IssueLimits
from lessor_server.domain.access.name_template import parse_template
from lessor_server.domain.errors.base import Violation, shown
from lessor_server.settings import access_values, parsers
from lessor_server.settings.sources import ConfigModel, Conflict, Key, Problem, load_text, read_file

MAX_LEASES: Final = 100_000
CREDENTIALS: Final = ("token_sha256", "spiffe_id", "dns_name", "jwt")
"""The keys of an identity that say how it is recognised: each has exactly one."""
_NEEDS: Final = {
    "token_expires": ("token_sha256",),
    "token_max_ttl": ("token_sha256", "jwt"),
    "ca_file": ("spiffe_id", "dns_name"),
}
"""Keys of an identity that go only with some of the others."""

T = TypeVar("T")

Text = Annotated[str, PlainValidator(parsers.text)]
Duration = Annotated[timedelta, PlainValidator(access_values.rule_duration)]
Authorities = Annotated[Path, PlainValidator(parsers.authorities)]
RequestField = Annotated[str, PlainValidator(access_values.request_field)]
AnyList = BeforeValidator(access_values.as_list)
FilledList = BeforeValidator(access_values.filled_list)


class RuleTable(ConfigModel):
    """What a policy allows on the paths of one pattern."""

    needed: ClassVar[tuple[str, ...]] = ("path", "capabilities")

    path: Annotated[str, PlainValidator(access_values.rule_path)] = ""
    capabilities: Annotated[
        tuple[Annotated[Capability, PlainValidator(access_values.capability)], ...], FilledList
    ] = ()
    max_ttl: Duration | None = None
    """The longest life of a lease, renewals included."""
    max_leases: Annotated[int, PlainValidator(access_values.whole_number(1, MAX_LEASES))] | None = None
    """Live leases of one identity that the pattern admits."""
    role_arns: Annotated[
        tuple[Annotated[str, PlainValidator(access_values.role_arn_pattern)], ...], FilledList
    ] = ()
    """ASSUMED_ROLE: patterns of ``role_arn``; the role's own list holds too."""
    require: Annotated[tuple[RequestField, ...], AnyList] = ()
    """Fields that a request must have."""
    forbid: Annotated[tuple[RequestField, ...], AnyList] = ()
    """Fields that a request must not have."""

    def find_conflicts(self, given: AbstractSet[str]) -> Iterator[Conflict]:  # noqa: ARG002
        """Yield the fields that are both required and forbidden."""
        for field in sorted(set(self.require) & set(self.forbid)):
            yield "forbid", f"has {field}, which require has too", "remove it from one of the two"


class PolicyTable(ConfigModel):
    """A named list of rules."""

    needed: ClassVar[tuple[str, ...]] = ("name",)

    name: Text = ""
    rules: Annotated[tuple[RuleTable, ...], AnyList] = ()

    def find_conflicts(self, given: AbstractSet[str]) -> Iterator[Conflict]:  # noqa: ARG002
        """Yield the problems of the name, and each pattern that an earlier rule has."""
        if self.name:
            yield from _as_conflicts("name", names.policy_name_violations("", self.name))
        for index, first in _repeated([rule.path for rule in self.rules]):
            yield ("rules", index, "path"), f"is also the path of rules[{first}]", "unite the two rules"


class JwtTable(ConfigModel):
    """A JWT of an issuer, with claims that match patterns."""

    needed: ClassVar[tuple[str, ...]] = ("issuer",)

    issuer: Text = ""
    claims: dict[
        Annotated[str, PlainValidator(access_values.claim_name)],
        Annotated[str, PlainValidator(access_values.claim_pattern)],
    ] = Field(default_factory=dict)


class IdentityTable(ConfigModel):
    """A caller, or all callers whose credentials match a pattern."""

    needed: ClassVar[tuple[str, ...]] = ("name",)

    name: Text = ""
    policies: Annotated[tuple[Text, ...], AnyList] = ()
    labels: dict[
        Annotated[str, PlainValidator(access_values.label_key)],
        Annotated[str, PlainValidator(access_values.label_value)],
    ] = Field(default_factory=dict)
    token_sha256: Annotated[
        tuple[Annotated[bytes, PlainValidator(access_values.token_digest)], ...], FilledList
    ] = ()
    token_expires: Annotated[float, PlainValidator(access_values.moment)] = math.inf
    spiffe_id: Annotated[str, PlainValidator(access_values.spiffe_pattern)] = ""
    dns_name: Annotated[str, PlainValidator(access_values.host_pattern)] = ""
    ca_file: Authorities | None = None
    """The chain must end here."""
    jwt: JwtTable | None = None
    sources: Annotated[
        tuple[Annotated[IpNetwork | str, PlainValidator(access_values.source)], ...], FilledList
    ] = Field(default=(), alias="from")
    """Where a call may come from; everywhere if it is left out."""
    token_max_ttl: Annotated[timedelta, PlainValidator(access_values.token_life)] | None = None
    """The longest life of a login token, renewals included."""

    def find_conflicts(self, given: AbstractSet[str]) -> Iterator[Conflict]:
        """Yield the problems of the name and labels, and keys that don't go together."""
        kinds = [key for key in CREDENTIALS if key in given]
        if not kinds:
            yield (), "has no credential", f"give it one of {', '.join(CREDENTIALS)}"
        for key in kinds[1:]:
            yield key, f"is set together with {kinds[0]}", "make an identity of each"
        for key, wanted in _NEEDS.items():
            if key in given and kinds and not set(wanted) & set(kinds):
                yield key, f"is set without {' or '.join(wanted)}", "remove it"
        if self.name:
            yield from _as_conflicts("name", names.identity_name_violations("", self.name))
        for index, first in _repeated(self.policies):
            yield ("policies", index), f"is also policies[{first}]", "remove it"
        yield from self._unknown_placeholders(kinds)

    def _unknown_placeholders(self, kinds: Sequence[str]) -> Iterator[Conflict]:
        """Yield each placeholder that the one credential does not have, if that is valid."""
        texts: dict[Key, str] = {("name",): self.name}
        texts |= {("labels", key): value for key, value in self.labels.items()}
        pattern = self.spiffe_id or self.dns_name
        for key, text in texts.items() if len(kinds) == 1 else ():
            if kinds == ["jwt"]:
                for name in _placeholders(text):
                    yield from _as_conflicts(key, names.claim_violations("", name))
            elif kinds == ["token_sha256"]:
                yield from _as_conflicts(key, names.unknown_placeholders("", text, ()))
            elif pattern:
                yield from _as_conflicts(key, names.unknown_placeholders("", text, _placeholders(pattern)))


class IssuerTable(ConfigModel):
    """An issuer of JWTs, and where its keys are."""

    needed: ClassVar[tuple[str, ...]] = ("name", "issuer", "audiences")

    name: Text = ""
    issuer: Annotated[str, PlainValidator(access_values.issuer_url)] = ""
    audiences: Annotated[tuple[Text, ...], FilledList] = ()
    jwks_url: Annotated[str, PlainValidator(access_values.jwks_url)] = ""
    jwks_file: Annotated[Path, PlainValidator(access_values.jwks_file)] | None = None
    ca_file: Authorities | None = None
    algorithms: Annotated[tuple[Annotated[str, PlainValidator(access_values.algorithm)], ...], FilledList] = (
        DEFAULT_ALGORITHMS
    )
    max_age: Duration | None = None
    """A JWT that was issued longer ago is refused."""
    leeway: Annotated[timedelta, PlainValidator(access_values.leeway)] = timedelta(seconds=30)
    """How much the clocks of the issuer and the server may differ."""

    def find_conflicts(self, given: AbstractSet[str]) -> Iterator[Conflict]:
        """Yield the problems of the name, and two places of the keys."""
        if self.name:
            yield from _as_conflicts("name", names.issuer_name_violations("", self.name))
        if {"jwks_url", "jwks_file"} <= given:
            yield "jwks_file", "is set together with jwks_url", "set one of the two"


class AccessFile(ConfigModel):
    """The whole file; a list is None if it was left out or is not a list."""

    policies: Annotated[tuple[PolicyTable, ...], AnyList] | None = None
    identities: Annotated[tuple[IdentityTable, ...], AnyList] | None = None
    issuers: Annotated[tuple[IssuerTable, ...], AnyList] | None = None

    def find_conflicts(self, given: AbstractSet[str]) -> Iterator[Conflict]:
        """Yield names that are used twice, clash or are unknown."""
        yield from self._repeated_values()
        yield from self._clashing_names()
        yield from self._unknown_policies(given)
        yield from self._unknown_issuers(given)

    def _repeated_values(self) -> Iterator[Conflict]:
        policies, issuers = self.policies or (), self.issuers or ()
        columns: tuple[tuple[str, str, list[str]], ...] = (
            ("policies", "name", [policy.name for policy in policies]),
            ("issuers", "name", [issuer.name for issuer in issuers]),
            ("issuers", "issuer", [issuer.issuer for issuer in issuers]),
        )
        for table, key, values in columns:
            for index, _ in _repeated(values):
                yield (table, index, key), f"is the {key} of two {table}", "remove or rename one"
        digests: list[tuple[Key, bytes]] = [
            (("identities", index, "token_sha256", place), digest)
            for index, identity in enumerate(self.identities or ())
            for place, digest in enumerate(identity.token_sha256)
        ]
        for index, _ in _repeated([digest for _, digest in digests]):
            yield digests[index][0], "is in the file twice", "give each identity tokens of its own"

    def _clashing_names(self) -> Iterator[Conflict]:
        texts = [identity.name for identity in self.identities or ()]
        for index, other in names.clashing_names(texts):
            if texts[index] == texts[other]:
                problem, fix = "is the name of two identities", "rename one"
            else:
                problem = f"clashes with {shown(texts[other])}, whose beginning it shares"
                fix = "let one begin with another text"
            yield ("identities", index, "name"), problem, fix

    def _unknown_policies(self, given: AbstractSet[str]) -> Iterator[Conflict]:
        if self.policies is None and "policies" in given:
            return
        known = {policy.name for policy in self.policies or ()}
        for index, identity in enumerate(self.identities or ()):
            for place, name in enumerate(identity.policies):
                if name not in known:
                    key: Key = ("identities", index, "policies", place)
                    yield key, f"{shown(name)} is not a policy of this file", "add the policy, or correct it"

    def _unknown_issuers(self, given: AbstractSet[str]) -> Iterator[Conflict]:
        if self.issuers is None and "issuers" in given:
            return
        known = {issuer.name for issuer in self.issuers or ()}
        for index, identity in enumerate(self.identities or ()):
            name = identity.jwt.issuer if identity.jwt else ""
            if name and name not in known:
                problem = f"{shown(name)} is not the name of an issuer of this file"
                yield ("identities", index, "jwt", "issuer"), problem, "add the issuer, or correct it"


def load_access_file(path: Path) -> AccessConfig:
    """Return the rules of a file of at most 1 MiB that no other user can change.

    Raises:
        SettingsError: With every problem of the file.
    """
    problems: list[Problem] = []
    text = read_file(path, problems)
    return _rules_of(load_text(AccessFile, text, {}, str(path), problems))


def load_access_rules(text: str, where: str) -> AccessConfig:
    """Return the rules of a text in TOML; ``where`` names it in problems.

    Raises:
        SettingsError: With every problem of the text.
    """
    return _rules_of(load_text(AccessFile, text, {}, where))


def _rules_of(file: AccessFile) -> AccessConfig:
    return AccessConfig(
        policies={one.name: _policy(index, one) for index, one in enumerate(file.policies or ())},
        identities=tuple(_identity(index, one) for index, one in enumerate(file.identities or ())),
        issuers=tuple(_issuer(one) for one in file.issuers or ()),
    )


def _policy(index: int, table: PolicyTable) -> Policy:
    location = f"policies[{index}]({shown(table.name)[1:-1]})"
    return Policy(
        table.name,
        tuple(_rule(f"{location}.rules[{number}]", rule) for number, rule in enumerate(table.rules)),
    )


def _rule(location: str, table: RuleTable) -> Rule:
    limits = IssueLimits(
        max_ttl=table.max_ttl,
        max_leases=table.max_leases,
        role_arns=(table.role_arns,) if table.role_arns else (),
        require=frozenset(table.require),
        forbid=frozenset(table.forbid),
    )
    return Rule(table.path, frozenset(table.capabilities), limits, location)


def _identity(index: int, table: IdentityTable) -> Identity:
    return Identity(
        name=table.name,
        match=_match(table),
        policies=table.policies,
        labels=table.labels,
        sources=table.sources,
        token_max_ttl=table.token_max_ttl,
        location=f"identities[{index}]({shown(table.name)[1:-1]})",
    )


def _match(table: IdentityTable) -> TokenMatch | SpiffeMatch | DnsMatch | JwtMatch:
    ca_file = str(table.ca_file or "")
    if table.token_sha256:
        return TokenMatch(table.token_sha256, table.token_expires)
    if table.spiffe_id:
        return SpiffeMatch(table.spiffe_id, ca_file)
    if table.dns_name:
        return DnsMatch(table.dns_name, ca_file)
    assert table.jwt is not None
    claims: Mapping[str, str] = table.jwt.claims
    return JwtMatch(table.jwt.issuer, claims)


def _issuer(table: IssuerTable) -> JwtIssuer:
    return JwtIssuer(
        name=table.name,
        url=table.issuer,
        audiences=table.audiences,
        jwks_url=table.jwks_url,
        jwks_file=str(table.jwks_file or ""),
        ca_file=str(table.ca_file or ""),
        algorithms=table.algorithms,
        max_age=table.max_age,
        leeway=table.leeway,
    )


def _as_conflicts(key: str | Key, found: Sequence[Violation]) -> Iterator[Conflict]:
    """Yield violations as those of the value at ``key``."""
    yield from ((key, one.problem, one.fix) for one in found)


def _repeated(values: Sequence[T]) -> Iterator[tuple[int, int]]:
    """Yield the index of each value that an earlier one equals, and of that; empty ones are left out."""
    first: dict[T, int] = {}
    for index, value in enumerate(values):
        if value and first.setdefault(value, index) != index:
            yield index, first[value]


def _placeholders(text: str) -> tuple[str, ...]:
    """Return the names of the placeholders of a text; none if it is malformed."""
    try:
        return parse_template(text).placeholders
    except ValueError:
        return ()
