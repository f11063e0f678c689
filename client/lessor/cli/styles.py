"""The values of ``--format``, and which one holds when it is not given."""

from __future__ import annotations

import os
from collections.abc import Container
from typing import Final

import click

TABLE, JSON, YAML = "table", "json", "yaml"
ENV, FISH, DOTENV, CREDENTIALS = "env", "fish", "dotenv", "credentials"
POLICY: Final = "policy"

EVERYWHERE: Final = (TABLE, JSON, YAML)
OF_KEYS: Final = (ENV, FISH, DOTENV, CREDENTIALS)
"""Formats of commands whose response is an access key."""
VARIABLE: Final = "LESSOR_FORMAT"


def chosen_style(given: str | None, allowed: Container[str]) -> str:
    """Return the format of a response: the one that was given, else that of LESSOR_FORMAT, else a table.

    A format in the variable that the command does not have is passed over, as it is meant for all commands.

    Raises:
        UsageError: The variable has a value that is not a format of any command.
    """
    if given is not None:
        return given
    wanted = os.environ.get(VARIABLE, "")
    known = (*EVERYWHERE, *OF_KEYS, POLICY)
    if wanted and wanted not in known:
        raise click.UsageError(f"{VARIABLE}: {wanted!r} is not a format; write one of {', '.join(known)}")
    return wanted if wanted and wanted in allowed else TABLE
