"""``lessor policy``: tests of what the policies of an access file allow, without a server."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from lessor_server.commands.cli_errors import FAILED, WRONG_SETTINGS
from lessor_server.domain.access import names
from lessor_server.domain.access.access_config import AccessConfig, Identity, JwtMatch, TokenMatch
from lessor_server.domain.access.acl import Acl, Capability, Grant, IssueLimits, acl_of
from lessor_server.domain.access.claims import pattern_matches
from lessor_server.domain.access.identify import find_name_values, split_by_template
from lessor_server.domain.access.name_template import parse_template
from lessor_server.domain.durations import format_duration
from lessor_server.domain.errors.base import shown
from lessor_server.domain.policy import placeholders
from lessor_server.domain.policy.template import identity_fields
from lessor_server.domain.secret import TokenHash
from lessor_server.settings.access_file import load_access_file
from lessor_server.settings.sources import MAX_FILE, SettingsError

SHOWN_NAMES = 5
CAPABILITIES = [one.value for one in Capability if one is not Capability.DENY]


@dataclass(frozen=True, slots=True)
class TestedCaller:
    """The caller that a test is about; ``labels`` are those that are known."""

    name: str
    identity: Identity
    labels: Mapping[str, str] = field(default_factory=dict)

    def missing_labels(self, config: AccessConfig) -> list[str]:
        """Return the labels that the caller has, whose values are not known, and that its policies use."""
        patterns = [rule.pattern for name in self.identity.policies for rule in config.policies[name].rules]
        used = {field for pattern in patterns for field in placeholders.fields(pattern)}
        unknown = (key for key in self.identity.labels if key not in self.labels)
        return [key for key in unknown if f"identity.labels.{key}" in used]

    def acl(self, config: AccessConfig) -> Acl:
        """Return what the caller may do."""
        policies = (config.policies[name] for name in self.identity.policies)
        return acl_of(policies, identity_fields(self.name, self.labels))


@click.group("policy")
def command() -> None:
    """Test the policies of access files."""


@command.command("test")
@click.option(
    "--file", "file", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The access file."
)
@click.option("--identity", "name", metavar="NAME", help="The caller's name, such as k8s/prod/deployer.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    help="The value of a label that NAME does not determine.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file with the caller's fixed token, instead of --identity.",
)
@click.argument("path")
@click.argument("capability", type=click.Choice(CAPABILITIES))
def test(
    file: Path,
    name: str | None,
    labels: tuple[str, ...],
    token_file: Path | None,
    path: str,
    capability: str,
) -> None:
    """Print whether a caller has CAPABILITY on PATH, the rule that decides, and the runners-up.

    Exit codes: 0 allowed, 1 denied, 2 wrong usage or access file.
    """
    if (name is None) == (token_file is None):
        raise click.UsageError("give one of --identity and --token-file")
    given = _labels(labels)
    if given and token_file is not None:
        raise click.UsageError("--label goes with --identity; a fixed token's labels are in the file")
    config = _config(file)
    caller = _caller_of_token(config, token_file) if token_file else _named_caller(config, name or "", given)
    wanted = Capability(capability)
    matching = list(caller.acl(config).candidates(path, wanted))
    allowed = bool(matching) and matching[0].allows((wanted,))
    verdict = "allowed" if allowed else "denied"
    click.echo(
        f"{verdict}: {capability} on {shown(path)[1:-1]}, by {caller.name} ({caller.identity.location})"
    )
    for line in _reasons(matching):
        click.echo(line)
    for key in caller.missing_labels(config):
        click.echo(f"hint: rules with the label {key} match nothing here; give it with --label {key}=VALUE")
    sys.exit(0 if allowed else FAILED)


def _config(file: Path) -> AccessConfig:
    try:
        return load_access_file(file)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        sys.exit(WRONG_SETTINGS)


def _labels(given: Iterable[str]) -> dict[str, str]:
    labels = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or names.key_violations("", key) or not value:
            raise click.UsageError(f"--label {shown(text)}: write it as KEY=VALUE")
        if key in labels:
            raise click.UsageError(f"--label {key} is given twice; keep one")
        labels[key] = value
    return labels


def _named_caller(config: AccessConfig, name: str, labels: Mapping[str, str]) -> TestedCaller:
    """Return the caller with a name, whose labels are those that the name determines, and the given ones."""
    for identity in config.identities:
        values = find_name_values(identity, name)
        if values is None:
            continue
        return TestedCaller(name, identity, _known_labels(name, identity, values, labels))
    if name == names.ROOT_NAME:
        raise click.UsageError("root, the root token's holder, may do everything: no policy is asked")
    fix = "give the name of a caller, as in"
    some = ", ".join(identity.name for identity in config.identities[:SHOWN_NAMES]) or "none"
    raise click.UsageError(f"no identity of the file gives the name {shown(name)}; {fix} {some}")


def _known_labels(
    name: str, identity: Identity, values: dict[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """Return the labels of a caller that its name determines, and the given ones if it can have them.

    Labels with one placeholder also give its value, and so other labels.
    """
    values = dict(values)
    for key, text in given.items():
        if key not in identity.labels:
            has = f"it has {', '.join(identity.labels)}" if identity.labels else "it has none"
            raise click.UsageError(f"--label {key}: {shown(name)} has no such label; {has}")
        own = _fill(identity.labels[key], values)
        template = parse_template(identity.labels[key])
        found = split_by_template(template, text)
        if own is not None and own != text:
            raise click.UsageError(f"--label {key}: {shown(name)} has the value {shown(own)}; leave it out")
        if found is None or names.label_value_violations("", text) or not _can_claim(identity, found):
            problem = f"--label {key}: {shown(identity.labels[key])} can't give {shown(text)}"
            raise click.UsageError(f"{problem}; give 1 to 256 printable characters that it can give")
        if len(template.placeholders) == 1:
            values |= found
    filled = {key: _fill(text, values) for key, text in identity.labels.items()}
    return {**{key: text for key, text in filled.items() if text is not None}, **given}


def _can_claim(identity: Identity, values: Mapping[str, str]) -> bool:
    """Return whether the claims of a JWT that the identity accepts can have these values."""
    claims = identity.match.claims if isinstance(identity.match, JwtMatch) else {}
    return all(pattern_matches(claims.get(key, "*"), value) for key, value in values.items())


def _fill(text: str, values: Mapping[str, str]) -> str | None:
    """Return a label's value; None if a placeholder of it has no known value."""
    parts = parse_template(text).parts
    if any(placeholder is not None and placeholder not in values for _, placeholder in parts):
        return None
    return "".join(own + (values[placeholder] if placeholder else "") for own, placeholder in parts)


def _caller_of_token(config: AccessConfig, file: Path) -> TestedCaller:
    """Return the caller whose fixed token is in a file."""
    try:
        with file.open("rb") as opened:
            token = opened.read(MAX_FILE).strip().decode()
    except (OSError, UnicodeDecodeError):
        raise click.UsageError(f"{file} can't be read as a file with a token") from None
    digest = TokenHash.of(token).digest
    for identity in config.identities:
        if isinstance(identity.match, TokenMatch) and digest in identity.match.digests:
            return TestedCaller(identity.name, identity, identity.labels)
    if "token_sha256" in token:
        raise click.UsageError(f"{file} has both lines of `lessor token new`; keep only the first, the token")
    if token.count(".") == 2:
        raise click.UsageError("a JWT is not judged here, only a fixed token; use --identity and --label")
    raise click.UsageError(
        "no identity of the file has this token; add its digest to token_sha256, or use --identity"
    )


def _reasons(matching: list[Grant]) -> Iterable[str]:
    """Yield a line for each part of the rule that decides, and for each other rule."""
    if not matching:
        yield "no rule matches"
        return
    first, *others = matching
    yield f"rule: {_summary(first)}"
    for limit in _limits(first.limits):
        yield f"  {limit}"
    if others:
        yield "runners-up:"
    for grant in others:
        yield f"  {_summary(grant)}"


def _summary(grant: Grant) -> str:
    capabilities = ", ".join(one.value for one in Capability if one in grant.capabilities)
    return f"{grant.pattern} [{capabilities}] at {' and '.join(grant.locations)}"


def _limits(limits: IssueLimits) -> Iterable[str]:
    if limits.max_ttl is not None:
        yield f"max_ttl: {format_duration(limits.max_ttl)}"
    if limits.max_leases is not None:
        yield f"max_leases: {limits.max_leases}"
    for patterns in limits.role_arns:
        yield f"role_arns: {', '.join(patterns)}"
    if limits.require:
        yield f"require: {', '.join(sorted(limits.require))}"
    if limits.forbid:
        yield f"forbid: {', '.join(sorted(limits.forbid))}"
