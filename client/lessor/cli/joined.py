"""Commands that other packages add by entry points; their modules are imported only when they run."""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Sequence
from importlib.util import find_spec
from typing import cast

import click


class Joined(click.Command):
    """A placeholder for another package's command, so that the package is imported only when it is run."""

    def __init__(self, path: str, place: str) -> None:
        """Name the command by its ``path``, as in ``sealing rewrap``, and its place ``module:attribute``."""
        module, _, self._attribute = place.partition(":")
        self._module = module
        self._path = path
        super().__init__(path.rpartition(" ")[2], help=_first_words(module))

    def load(self) -> click.Command:
        """Import the command; raises ``ClickException`` if its libraries are not installed."""
        try:
            return cast("click.Command", getattr(importlib.import_module(self._module), self._attribute))
        except ModuleNotFoundError as error:
            message = f"`lessor {self._path}` needs {error.name}; install lessor[server], or lessor[dev]"
            raise click.ClickException(message) from None


class JoinedGroup(click.Group):
    """A group to which packages add commands, by entry points ``lessor.commands`` and the group's path."""

    path = ""
    """The words before the names of the commands, each with a space behind it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the group's own commands, then the installed added ones."""
        joined = (name for name, place in self._joined().items() if _is_there(place.partition(":")[0]))
        return [*super().list_commands(ctx), *joined]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or a placeholder for an added one."""
        place = self._joined().get(cmd_name)
        return Joined(self.path + cmd_name, place) if place else super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command to run, imported."""
        if (
            args
            and not ctx.resilient_parsing
            and not args[0].startswith("-")
            and self.get_command(ctx, args[0]) is None
        ):
            raise click.UsageError(no_such_command(args[0], self.list_commands(ctx)), ctx)
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, Joined) else command, rest

    def _joined(self) -> dict[str, str]:
        """Return the commands that installed packages add, each with its place."""
        return find_joined(".".join(("lessor.commands", *self.path.split())))


@functools.cache
def find_joined(group: str) -> dict[str, str]:
    """Return the places of the entry points of a group; this reads every installed package."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - only for commands of other packages

    return {point.name: point.value for point in entry_points(group=group)}


def no_such_command(name: str, known: Sequence[str]) -> str:
    """Return the error for an unknown command, with the names that resemble it."""
    import difflib  # noqa: PLC0415 - only for this error

    likely = [f"`{one}`" for one in difflib.get_close_matches(name, known, n=3)]
    hint = f" Did you mean {' or '.join(likely)}?" if likely else ""
    return f"No such command {name!r}.{hint}"


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _first_words(module: str) -> str:
    """Return the first line of a module's docstring after its colon, without importing the module."""
    spec = find_spec(module) if _is_there(module) else None
    if spec is None or spec.origin is None:
        return ""
    with open(spec.origin, encoding="utf-8") as file:  # noqa: PTH123 - pathlib is not loaded for this alone
        line = (ast.get_docstring(ast.parse(file.read())) or "").partition("\n")[0]
    words = (line.partition(": ")[2] or line).strip("`")
    return words[:1].upper() + words[1:]
