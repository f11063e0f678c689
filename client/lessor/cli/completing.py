"""What shell completion offers for names that the server knows: engines, roles, lease ids; and contexts.

A completion asks for at most ``SECONDS``, and offers nothing if the server does not answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import click

from lessor.cli import contexts

if TYPE_CHECKING:
    from lessor.cli.asking import Asking

SECONDS: Final = 1.0
MAX_PAGES: Final = 10
REACHING: Final = ("address", "token_file", "context")
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _completion(find: Callable[[Asking, click.Context, str], Iterator[str]]) -> Complete:
    """Return a completion that offers what ``find`` yields until its time is over."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from lessor.cli.asking import Asking, NoAnswer  # noqa: PLC0415 - gRPC takes its time to load

        found: dict[str, None] = {}
        try:
            with Asking(variables_of(context), SECONDS) as asking:
                for text in find(asking, context, incomplete):
                    if text.startswith(incomplete):
                        found[text] = None
        except (NoAnswer, click.ClickException):
            pass  # what was found until then is offered
        return list(found)

    return complete


def variables_of(context: click.Context) -> dict[str, str]:
    """Return the variables of the connection that a command line, not yet complete, chooses."""
    reaching: dict[str, str] = {}
    for one in (context.find_root(), context):
        reaching |= {name: value for name, value in one.params.items() if name in REACHING and value}
    found = contexts.connection_variables(os.environ, reaching)
    found |= {"LESSOR_ADDR": reaching["address"]} if "address" in reaching else {}
    if "token_file" in reaching:
        found |= {"LESSOR_TOKEN": "", "LESSOR_TOKEN_FILE": reaching["token_file"]}
    return found


def _mount_of(context: click.Context) -> str:
    return str(context.params.get("mount") or "aws")


def _prefixes(asking: Asking, _: click.Context, incomplete: str) -> Iterator[str]:
    """Yield the prefixes of engines, and those of the roles of an engine that is named."""
    mount, slash, _rest = incomplete.partition("/")
    if not slash:
        yield from (f"{one}/" for one in asking.mounts())
    else:
        yield from (f"{mount}/creds/{role}/" for role in asking.roles(mount))


def _lease_ids(asking: Asking, _: click.Context, incomplete: str) -> Iterator[str]:
    """Yield the ids of live leases below what was typed."""
    if "/" in incomplete:
        prefixes: Iterator[str] = iter([f"{incomplete.rpartition('/')[0]}/"])
    else:
        prefixes = (f"{mount}/" for mount in asking.mounts() if mount.startswith(incomplete))
    for prefix in prefixes:
        yield from asking.lease_ids(prefix, MAX_PAGES)


complete_mount: Final = _completion(lambda asking, _, __: asking.mounts())
complete_role: Final = _completion(lambda asking, context, _: asking.roles(_mount_of(context)))
complete_usable_role: Final = _completion(lambda asking, context, _: asking.usable_roles(_mount_of(context)))
complete_static_role: Final = _completion(lambda asking, context, _: asking.static_roles(_mount_of(context)))
complete_prefix: Final = _completion(_prefixes)
complete_lease_id: Final = _completion(_lease_ids)


def complete_context(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Offer the names of contexts."""
    try:
        names = contexts.load(os.environ).by_name
    except click.ClickException:
        return []
    return [name for name in names if name.startswith(incomplete)]
