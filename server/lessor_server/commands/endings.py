"""How a command ends badly: what a person can mend is told in a line, what nobody foresaw as a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from lessor_server.domain.errors import LessorError
from lessor_server.settings import SettingsError

FAILED: Final = 1
WRONG_SETTINGS: Final = 2


@contextmanager
def told(command: str, kinds: tuple[type[Exception], ...]) -> Iterator[None]:
    """Exit with 1 and one line for a failure of ``kinds``, with 2 and a line for each wrong setting."""
    try:
        yield
    except Exception as error:
        cause = _first(error)
        if not isinstance(cause, (*kinds, SettingsError)):
            raise
        mend = f"; {cause.mend}" if isinstance(cause, LessorError) else ""
        for line in f"{cause}{mend}".splitlines():
            click.echo(f"lessor {command}: {line}", err=True)
        sys.exit(WRONG_SETTINGS if isinstance(cause, SettingsError) else FAILED)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
