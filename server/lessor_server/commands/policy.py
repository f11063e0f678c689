"""``lessor policy``: tests of what the policies of an access file allow, without a server."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from lessor_server.commands.cli_errors import FAILED, WRONG_SETTINGS
from lessor_server.domain.access import names
from lessor_server.domain.access.access_rules import AccessRules, IdentityRule, TokenMatch
from lessor_server.domain.access.acl import Acl, Capability, Grant, IssueLimits, acl_of
from lessor_server.domain.access.identify import find_name_values
from lessor_server.domain.access.name_template import parse_template
from lessor_server.domain.durations import format_duration
from lessor_server.domain.errors.base import shown
from lessor_server.domain.policy.template import identity_fields
from lessor_server.domain.secret import TokenHash
from lessor_server.settings.access_file import load_access_file
from lessor_server.settings.sources import MAX_FILE, SettingsError

CAPABILITIES = [one.value for one in Capability if one is not Capability.DENY]


@dataclass(frozen=True, slots=True)
class TestedCaller:
    """The caller that a test is about; ``labels`` are those that are known."""

    name: str
    rule: IdentityRule
    labels: Mapping[str, str] = field(default_factory=dict)

    def acl(self, rules: AccessRules) -> Acl:
        """Return what the caller may do."""
        policies = (rules.policies[name] for name in self.rule.policies)
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
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label that NAME does not determine."
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
    rules = _rules(file)
    caller = _caller_of_token(rules, token_file) if token_file else _named_caller(rules, name or "", given)
    wanted = Capability(capability)
    matching = list(caller.acl(rules).candidates(path, wanted))
    allowed = bool(matching) and matching[0].allows((wanted,))
    verdict = "allowed" if allowed else "denied"
    click.echo(f"{verdict}: {capability} on {shown(path)[1:-1]}, by {caller.name} ({caller.rule.place})")
    for line in _reasons(matching):
        click.echo(line)
    sys.exit(0 if allowed else FAILED)


def _rules(file: Path) -> AccessRules:
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
        labels[key] = value
    return labels


def _named_caller(rules: AccessRules, name: str, labels: Mapping[str, str]) -> TestedCaller:
    """Return the caller with a name, whose labels are those that the name determines, and the given ones."""
    for rule in rules.identities:
        values = find_name_values(rule, name)
        if values is None:
            continue
        own = {key: _fill(text, values) for key, text in rule.labels.items()}
        known = {key: text for key, text in own.items() if text is not None}
        return TestedCaller(name, rule, {**known, **labels})
    if name == names.ROOT_NAME:
        raise click.UsageError("root, the root token's holder, may do everything: no policy is asked")
    raise click.UsageError(f"no identity of the file has the name {shown(name)}, or can get it")


def _fill(text: str, values: Mapping[str, str]) -> str | None:
    """Return a label's value; None if a placeholder of it has no known value."""
    parts = parse_template(text).parts
    if any(placeholder is not None and placeholder not in values for _, placeholder in parts):
        return None
    return "".join(own + (values[placeholder] if placeholder else "") for own, placeholder in parts)


def _caller_of_token(rules: AccessRules, file: Path) -> TestedCaller:
    """Return the caller whose fixed token is in a file."""
    try:
        with file.open("rb") as opened:
            token = opened.read(MAX_FILE).strip().decode()
    except (OSError, UnicodeDecodeError):
        raise click.UsageError(f"{file} can't be read as a file with a token") from None
    digest = TokenHash.of(token).digest
    for rule in rules.identities:
        if isinstance(rule.match, TokenMatch) and digest in rule.match.digests:
            return TestedCaller(rule.name, rule, rule.labels)
    if token.count(".") == 2:
        raise click.UsageError("a JWT is not judged here, only a fixed token; use --identity and --label")
    raise click.UsageError("no identity of the file has this token")


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
    return f"{grant.pattern} [{capabilities}] at {' and '.join(grant.places)}"


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
