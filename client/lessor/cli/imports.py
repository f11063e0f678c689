"""``lessor import vault``: an AWS engine of Vault or OpenBao becomes an engine of Lessor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lessor.cli import output
from lessor.cli.command import calling
from lessor.cli.declarations import SECONDS, carry_out
from lessor.cli.declared import (
    NOT_OF_ROLE,
    NOT_OF_STATIC_ROLE,
    DeclaredMount,
    Plain,
    load_declared,
    load_mounts,
    normal_role,
    normal_static_role,
)
from lessor.cli.plain_messages import fill_plain
from lessor.cli.plan import plan_changes
from lessor.cli.vault_policies import HEADER, TranslatedPolicy, access_file, as_plain, translate_policy
from lessor.cli.vault_reads import NOT_FOUND, VaultFailed, VaultSource
from lessor.cli.vault_roles import (
    ROLE_FIELDS,
    STATIC_FIELDS,
    CannotTake,
    general_notes,
    require_name,
    translate_defaults,
    translate_role,
    translate_static_role,
    translate_tune,
)
from lessor.v1 import role_pb2
from lessor.values import JsonValue

if TYPE_CHECKING:
    from lessor.cli.call import Call

NOT_TAKEN: Final = 1


@dataclass(slots=True)
class Import:
    """What Vault has, translated; ``refused`` has what can't be taken, ``notes`` what is different."""

    mount: DeclaredMount
    notes: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


@click.group("import")
def import_() -> None:
    """Take over engines of other systems."""


@import_.command("vault")
@click.option(
    "--addr",
    envvar=["VAULT_ADDR", "BAO_ADDR"],
    required=True,
    metavar="URL",
    help="URL of Vault [VAULT_ADDR].",
)
@click.option("--mount", default="aws", show_default=True, help="Path of the AWS engine in Vault.")
@click.option("--to", metavar="NAME", help="Name of the engine here; as in Vault by default.")
@click.option(
    "--cacert",
    envvar=["VAULT_CACERT", "BAO_CACERT"],
    metavar="FILE",
    default="",
    help="Certificates of Vault's authority.",
)
@click.option(
    "--namespace", envvar=["VAULT_NAMESPACE", "BAO_NAMESPACE"], default="", help="Namespace of Vault."
)
@click.option("--apply", "applies", is_flag=True, help="Make the changes; without it they are only printed.")
@click.option(
    "--policies", metavar="FILE", help="Write the rules of Vault's ACL policies to this access file."
)
@calling(seconds=SECONDS)
def vault(
    call: Call,
    addr: str,
    mount: str,
    to: str | None,
    cacert: str,
    namespace: str,
    *,
    applies: bool,
    policies: str | None,
) -> int:
    """Take over the roles and settings of an AWS engine of Vault or OpenBao.

    The token for Vault is that in VAULT_TOKEN or BAO_TOKEN; it needs to read the engine's roles, static
    roles, config/lease and tune. The command prints a plan: each change, what means something else here, and
    what can't be taken over. With --apply it makes the changes, and exits with 1 if something can't be taken
    over. A second run changes nothing. Roots and leases stay where they are. Static roles are held until
    `lessor static-role resume NAME`, so that only one system rotates their keys.

    --policies writes a file, with or without --apply, and changes nothing on a server.
    """
    token = os.environ.get("VAULT_TOKEN") or os.environ.get("BAO_TOKEN") or ""
    if not token.strip():
        raise click.UsageError("VAULT_TOKEN is not set: set it to a token that may read the engine")
    source = VaultSource(addr, token.strip(), cacert, namespace)
    if source.is_plaintext:
        output.warn([f"{addr} means plaintext: others can read the token; write https://"])
    mount = mount.strip("/")
    found = read_engine(source, mount, to or mount)
    translated = read_policies(source, mount, found) if policies is not None else []
    there = load_mounts(call)
    name = found.mount.name
    known = load_declared(call, there[name]) if name in there else None
    changes = list(plan_changes(_merged(found.mount, known), known))
    more: dict[str, JsonValue] = {
        "notes": list(found.notes),
        "refused": [{"name": one, "reason": why} for one, why in found.refused.items()],
    }
    if policies is not None:
        more["policies"] = [as_plain(one) for one in translated]
    code = carry_out(call, changes, dry_run=not applies, more=more)
    _report(call, found, translated)
    if policies is not None:
        _write_policies(Path(policies), translated)
    if not applies:
        # A plan that names what would be refused is complete; without an answer of the server it is not.
        return code if code in {4, 6} else 0
    return NOT_TAKEN if found.refused and not code else code


def read_engine(source: VaultSource, mount: str, to: str) -> Import:
    """Read an engine of Vault and translate it; raises ``VaultFailed``."""
    try:
        require_name(to)
    except CannotTake:
        raise click.UsageError(
            f"{to!r} is not a valid name of an engine here; give another one by --to"
        ) from None
    tune, names = source.read_tune(mount), source.list(f"{mount}/roles")
    if tune is None and not names:
        raise VaultFailed(f"Vault has no engine at {mount}/; check --mount", NOT_FOUND)
    notes: list[str] = []
    defaults = translate_defaults(source.read(f"{mount}/config/lease"), notes)
    found = Import(DeclaredMount(to, translate_tune(tune or {}), defaults), notes)
    roles = {}
    for name in names:
        if (role := _read_role(source, mount, name, found)) is not None:
            roles[name] = role
    static = {}
    for name in source.list(f"{mount}/static-roles"):
        if (role := _read_static_role(source, mount, name, found)) is not None:
            static[name] = role
    kinds = {str(role["credential_type"]) for role in roles.values()}
    found.notes.extend(general_notes(kinds))
    if static:
        found.notes.append(
            "static roles are held: delete each in Vault, then `lessor static-role resume NAME`"
        )
    found.mount = DeclaredMount(to, found.mount.settings, defaults, roles, static)
    return found


def _read_role(source: VaultSource, mount: str, name: str, found: Import) -> Plain | None:
    try:
        made = translate_role(name, source.read(f"{mount}/roles/{name}") or {})
        role = role_pb2.Role()
        _require_valid(role, made.role, NOT_OF_ROLE)
    except CannotTake as why:
        found.refused[f"role {name}"] = str(why)
        return None
    found.notes.extend(f"role {name}: {note}" for note in made.notes)
    return normal_role(role)


def _read_static_role(source: VaultSource, mount: str, name: str, found: Import) -> Plain | None:
    try:
        made = translate_static_role(name, source.read(f"{mount}/static-roles/{name}") or {})
        role = role_pb2.StaticRole()
        _require_valid(role, made.role, NOT_OF_STATIC_ROLE)
    except CannotTake as why:
        found.refused[f"static role {name}"] = str(why)
        return None
    found.notes.extend(f"static role {name}: {note}" for note in made.notes)
    return normal_static_role(role)


def _require_valid(
    message: role_pb2.Role | role_pb2.StaticRole, plain: Plain, leave_out: tuple[str, ...]
) -> None:
    """Fill a message, or raise ``CannotTake`` if Vault answered with values of other types."""
    problems: list[str] = []
    fill_plain(message, plain, "it", problems, leave_out)
    if problems:
        raise CannotTake(problems[0].removeprefix("it."))


def _merged(wanted: DeclaredMount, there: DeclaredMount | None) -> DeclaredMount:
    """Return what is wanted, with the fields of stored roles that Vault does not know.

    A static role that was resumed is not held again.
    """
    if there is None:
        return wanted
    roles = {
        name: _kept(there.roles.get(name, {}), ROLE_FIELDS) | role for name, role in wanted.roles.items()
    }
    static = {}
    for name, role in wanted.static_roles.items():
        before = there.static_roles.get(name)
        held = before is None or before.get("held")
        mine = {key: value for key, value in role.items() if key != "held" or held}
        static[name] = _kept(before or {}, STATIC_FIELDS) | mine
    return DeclaredMount(wanted.name, wanted.settings, wanted.lease_defaults, roles, static)


def _kept(before: Mapping[str, JsonValue], replaced: tuple[str, ...]) -> Plain:
    return {key: value for key, value in before.items() if key not in replaced}


def read_policies(source: VaultSource, mount: str, found: Import) -> list[TranslatedPolicy]:
    """Read Vault's ACL policies and translate those that concern the engine; raises ``VaultFailed``."""
    made = []
    for name in source.list("sys/policies/acl"):
        if name == "root":
            continue
        data = source.read(f"sys/policies/acl/{name}") or {}
        try:
            policy = translate_policy(name, str(data.get("policy") or ""), mount, found.mount.name)
        except CannotTake as why:
            found.refused[f"policy {name}"] = str(why)
            continue
        if policy.rules:
            made.append(policy)
        elif policy.left_out:
            found.notes.append(f"policy {name}: is left out, as none of its rules is about the engine")
    return made


def _report(call: Call, found: Import, policies: list[TranslatedPolicy]) -> None:
    """Print what is different and what can't be taken over, for people."""
    if call.is_structured:
        return
    lines = [f"note: {note}" for note in found.notes]
    for policy in policies:
        lines += [f"note: policy {policy.name}: {note}" for note in policy.notes]
        if policy.left_out:
            lines.append(f"note: policy {policy.name}: left out {', '.join(policy.left_out)}")
    lines += [f"can't be taken: {name}: {why}" for name, why in found.refused.items()]
    click.echo("\n".join(map(output.plain, lines)))


def _write_policies(file: Path, policies: list[TranslatedPolicy]) -> None:
    """Write the access file; one that something else wrote is not replaced."""
    try:
        if file.exists() and not file.read_text(encoding="utf-8", errors="replace").startswith(HEADER):
            raise click.UsageError(f"--policies: {file} exists already; name a new file")
        file.write_text(access_file(policies), encoding="utf-8")
        file.chmod(0o644)
    except OSError as error:
        raise click.ClickException(f"{file} can't be written: {error.strerror}; name another file") from None
    click.echo(f"lessor: wrote {len(policies)} policies to {file}", err=True)
