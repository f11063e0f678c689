"""Lets a person at a terminal choose one of the roles that they may use: type to filter, Enter to choose.

The list is drawn on standard error, so that standard output holds only what the command prints.
"""

from __future__ import annotations

import os
import re
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Final

import click

from lessor.cli import output
from lessor.v1 import role_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call

MAX_LINES: Final = 10
READ_BYTES: Final = 256
_KEY: Final = re.compile(r"\x1b(?:[\[O][0-9;]*[A-Za-z~])?|.", re.DOTALL)
"""An escape sequence of a key (ECMA-48), or one character."""
_UP, _DOWN = ("\x1b[A", "\x1bOA", "\x10"), ("\x1b[B", "\x1bOB", "\x0e")
_ENTER, _DELETE, _CLEAR, _LEAVE = ("\r", "\n"), ("\x7f", "\x08"), ("\x15",), ("\x1b", "\x04")


@dataclass(frozen=True, slots=True)
class Choice:
    """A role to choose, and the kind of its credentials."""

    name: str
    kind: str = ""


@dataclass(slots=True)
class Selection:
    """What was typed so far, and which role is marked."""

    choices: Sequence[Choice]
    typed: str = ""
    marked: int = 0
    chosen: Choice | None = field(default=None, init=False)

    @property
    def matches(self) -> list[Choice]:
        """Return the roles whose name has every word that was typed."""
        words = self.typed.casefold().split()
        return [one for one in self.choices if all(word in one.name.casefold() for word in words)]

    def press(self, key: str) -> None:
        """Change the selection by one key; raises ``Abort`` if that leaves the list."""
        number = len(self.matches)
        if key in _LEAVE:
            raise click.Abort
        if key in _ENTER:
            self.chosen = self.matches[self.marked] if number else None
        elif key in _UP or key in _DOWN:
            self.marked = (self.marked + (1 if key in _DOWN else -1)) % max(number, 1)
        elif key in _DELETE or key in _CLEAR:
            self.typed, self.marked = "" if key in _CLEAR else self.typed[:-1], 0
        elif key.isprintable():
            self.typed, self.marked = self.typed + key, 0

    def lines(self, columns: int) -> list[str]:
        """Return what is drawn, at most ``columns`` wide: what was typed, and the matches around the mark."""
        matches = self.matches
        start = max(0, min(self.marked - MAX_LINES + 1, len(matches) - MAX_LINES))
        shown = [
            f"{'>' if number == self.marked else ' '} {output.plain(one.name)}  {one.kind}"
            for number, one in enumerate(matches)
        ][start : start + MAX_LINES]
        rest = len(matches) - len(shown)
        drawn = [f"Role: {self.typed}", *shown, *([f"  and {rest} more; type to filter"] if rest else [])]
        return [
            line.rstrip()[: columns - 1] for line in (drawn if matches else [*drawn, "  no role matches"])
        ]


def is_at_terminal() -> bool:
    """Return whether a person can choose: input and error output are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def require_role(call: Call, mount: str, role: str | None) -> str:
    """Return ``role``; without one, at a terminal, the one that is chosen from the list.

    Raises:
        UsageError: There is no role and no terminal.
        Failed: The caller may use no role of the engine.
        Abort: The person leaves the list.
    """
    if role is not None:
        return role
    if not is_at_terminal():
        raise click.UsageError("Missing argument 'ROLE'.")
    return choose_role(find_choices(call, mount))


def find_choices(call: Call, mount: str) -> list[Choice]:
    """Return the roles of an engine that the caller may use; raises ``Failed`` if there is none."""
    from lessor.cli.call import NOT_FOUND, Failed  # noqa: PLC0415 - gRPC takes its time to load

    request = pb.ListUsableRolesRequest(mount=mount, page_size=1000)
    found = call.all(call.roles.ListUsableRoles, request).roles
    if not found:
        raise Failed(
            f"there is no role of {mount} that you may use; check --mount and `lessor whoami`", NOT_FOUND
        )
    return [Choice(one.name, pb.Role.CredentialType.Name(one.credential_type)) for one in found]


def choose_role(choices: Sequence[Choice]) -> str:
    """Let the person at the terminal choose; return the name of the role.

    Raises:
        Abort: The person leaves the list.
    """
    if os.environ.get("TERM", "dumb") == "dumb":
        return _ask(choices)
    selection = Selection(choices)
    with _keys() as read, _drawing() as draw:
        while True:
            draw(selection.lines(get_terminal_size().columns))
            for key in _KEY.findall(read()):
                selection.press(key)
                if (chosen := selection.chosen) is not None:
                    return chosen.name


def _ask(choices: Sequence[Choice]) -> str:
    """Ask for a name at a terminal on which nothing can be drawn."""
    names = [one.name for one in choices]
    click.echo("\n".join(map(output.plain, names)), err=True)
    return str(click.prompt("Role", type=click.Choice(names), show_choices=False, err=True))


@contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """Yield a function that waits for keys; what was typed before is not lost."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def read() -> str:
        typed = os.read(terminal, READ_BYTES)
        if not typed:
            raise click.Abort
        return typed.decode("utf-8", "replace")

    tty.setcbreak(terminal, termios.TCSADRAIN)
    try:
        yield read
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def _drawing() -> Iterator[Callable[[Sequence[str]], None]]:
    """Yield a function that draws lines in place of those that it drew before; at the end they are erased."""
    erase = "\r\x1b[J"

    def draw(lines: Sequence[str]) -> None:
        """Draw from the cursor's line down, and put the cursor behind what was typed."""
        up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
        sys.stderr.write(erase + "\n".join(lines) + f"{up}\r\x1b[{len(lines[0])}C")
        sys.stderr.flush()

    try:
        yield draw
    finally:
        sys.stderr.write(erase)
        sys.stderr.flush()
