"""Ends a failed command with one line, for every cause."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from lessor_server.domain.errors.base import LessorError
from lessor_server.settings.sources import SettingsError

FAILED: Final = 1
WRONG_SETTINGS: Final = 2
_FILE_FIX: Final = (
    "let the server's user read and write it, or set another data directory with LESSOR_DATA_DIR"
)


@contextmanager
def report_errors(
    command: str, kinds: tuple[type[Exception], ...], file_fix: str = _FILE_FIX
) -> Iterator[None]:
    """Exit with 1 and one line for any failure, with 2 and a line for each invalid setting.

    ``file_fix`` says what to do about a file that can't be used. If nobody reads the output any more,
    ``BrokenPipeError`` is raised, which click ends without a message.

    A failure that is not of ``kinds`` is a bug in Lessor, and its line says so; in Python's development mode
    (``PYTHONDEVMODE=1``) it is raised, with its stack.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        cause = _first(error)
        if isinstance(cause, SettingsError):
            for line in str(cause).splitlines():
                click.echo(f"lessor {command}: {line}", err=True)
            sys.exit(WRONG_SETTINGS)
        if not isinstance(cause, kinds) and sys.flags.dev_mode:
            raise
        click.echo(f"lessor {command}: {_line(cause, kinds, file_fix)}", err=True)
        sys.exit(FAILED)


def _line(cause: BaseException, kinds: tuple[type[Exception], ...], file_fix: str) -> str:
    """Return the one line that reports a failure."""
    text = " ".join(str(cause).split())
    if isinstance(cause, LessorError):
        return f"{text}; {cause.fix}"
    if isinstance(cause, OSError) and cause.filename is not None:
        return f"{cause.filename} cannot be used: {cause.strerror}; {file_fix}"
    if isinstance(cause, kinds):
        return text
    return f"internal error, {type(cause).__name__}: {text}; run it with PYTHONDEVMODE=1 and report the stack"


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
