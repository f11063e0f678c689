"""``lessor export`` and ``lessor apply``: engines, roles and static roles as a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from lessor.cli import formats, json_errors, output
from lessor.cli.command import calling, confirm, yes_option
from lessor.cli.declared import DeclaredMount, load_declared, load_mounts, parse_declared
from lessor.cli.plan import DELETE, PlannedChange, plan_changes
from lessor.cli.styles import JSON, YAML
from lessor.cli.yaml_files import read_yaml
from lessor.v1 import config_pb2
from lessor.values import JsonValue

if TYPE_CHECKING:
    from lessor.cli.call import Call

SECONDS: Final = 150.0
"""The timeout of a call: longer than a rotation whose new key AWS does not accept."""
UNREACHABLE: Final = 6
MAX_PROBLEMS: Final = 20


@click.command("export")
@click.option("--mount", "names", multiple=True, help="Only this engine; repeatable. All by default.")
@calling()
def export(call: Call, names: tuple[str, ...]) -> None:
    """Print engines, roles and static roles as YAML, which `lessor apply` reads.

    The file has no secrets: roots, keys and leases are not part of it.
    """
    there = load_mounts(call)
    for name in names:
        if name not in there:
            raise click.UsageError(
                f"--mount: there is no engine {name!r}; the engines are {', '.join(there)}"
            )
    chosen = [one for name, one in there.items() if name in (names or there)]
    enabled = [one for one in chosen if one.state == config_pb2.Mount.ENABLED]
    mounts: dict[str, JsonValue] = {one.mount: load_declared(call, one).as_plain() for one in enabled}
    formats.show_structured({"mounts": mounts}, JSON if call.style == JSON else YAML)


@click.command("apply")
@click.option("--file", "-f", "file", required=True, metavar="FILE", help="The file; - for standard input.")
@click.option("--prune", is_flag=True, help="Delete roles and static roles that the file does not have.")
@click.option("--dry-run", is_flag=True, help="Print the changes, and change nothing.")
@yes_option
@calling(seconds=SECONDS)
def apply(call: Call, file: str, *, prune: bool, dry_run: bool, yes: bool) -> int:
    """Change engines, roles and static roles so that they are as in a YAML file.

    Each change is printed with what differs. A second run changes nothing. An engine's settings that the file
    does not name stay; a role is replaced as a whole. --prune deletes only in engines that the file names,
    and never an engine. A change that is refused does not stop the others, and the command exits with
    its code.
    """
    content, where = read_yaml(file)
    problems: list[str] = []
    wanted = parse_declared(content, problems)
    if problems:
        more = len(problems) - MAX_PROBLEMS
        rest = [f"and {more} more"] if more > 0 else []
        lines = "\n  ".join(map(output.plain, [*problems[:MAX_PROBLEMS], *rest]))
        raise click.UsageError(f"{where}:\n  {lines}")
    changes = list(plan_all(call, wanted, prune=prune))
    if not dry_run and any(one.action == DELETE for one in changes):
        deleted = sum(one.action == DELETE for one in changes)
        which = "1 role" if deleted == 1 else f"{deleted} roles"
        confirm(f"Make {len(changes)} changes, which delete {which}?", yes=yes)
    return carry_out(call, changes, dry_run=dry_run)


def plan_all(call: Call, wanted: Iterable[DeclaredMount], *, prune: bool = False) -> Iterable[PlannedChange]:
    """Yield the changes of all engines, each compared with what the server has now."""
    there = load_mounts(call)
    for one in wanted:
        known = load_declared(call, there[one.name]) if one.name in there else None
        yield from plan_changes(one, known, prune=prune)


def carry_out(
    call: Call,
    changes: Sequence[PlannedChange],
    *,
    dry_run: bool,
    more: Mapping[str, JsonValue] | None = None,
) -> int:
    """Print each change and, unless ``dry_run``, send it; return the exit code.

    A dry run asks the server whether it would refuse a role, which changes nothing. Programs get the members
    ``more`` beside the changes.
    """
    plain: list[JsonValue] = []
    codes: set[int] = set()
    for one in changes:
        if not call.is_structured:
            show_change(one)
        code, result = _send(call, one, dry_run=dry_run)
        codes.add(code)
        plain.append({**one.as_plain(), "done": not dry_run and code == 0, **result})
        if code == UNREACHABLE:
            break
    codes.discard(0)
    if call.is_structured:
        call.show_values({"changes": plain, **(more or {})})
    number = "1 change" if len(changes) == 1 else f"{len(changes)} changes"
    ending = "; nothing was changed" if dry_run else ""
    click.echo(f"lessor: {number}{ending}" if changes else "lessor: no changes", err=True)
    return codes.pop() if len(codes) == 1 else min(len(codes), 1)


def _send(call: Call, change: PlannedChange, *, dry_run: bool) -> tuple[int, dict[str, JsonValue]]:
    """Send a change, or for a dry run its check; report and return its exit code, warnings and error."""
    send = change.check if dry_run else change.send
    try:
        answer = None if send is None else send(call)
    except click.ClickException as error:
        click.echo(f"lessor: {change.kind} {output.plain(change.name)} is refused:", err=True)
        json_errors.report(error, call.style)
        return error.exit_code, {"warnings": [], "error": json_errors.error_members(error)}
    warnings = list(getattr(answer, "warnings", ()))
    output.warn(f"{change.name}: {text}" for text in warnings)
    return 0, {"warnings": [*warnings]}


def show_change(change: PlannedChange) -> None:
    """Print a change for people."""
    click.echo(output.plain(f"{change.action} {change.kind} {change.name}"))
    for one in change.differences:
        for line in one.lines():
            click.echo(f"  {output.plain(line)}")
