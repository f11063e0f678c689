"""Formats of an access key for shells and files: ``env``, ``fish``, ``dotenv``, ``credentials``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

import click

from lessor.cli.styles import CREDENTIALS, DOTENV, ENV, FISH

SESSION_TOKEN: Final = "AWS_SESSION_TOKEN"


def written_key(style: str, access_key: str, secret_key: str, security_token: str = "") -> str:
    """Return an access key as lines of one of these formats.

    Shells unset a previous session token if the key has none. ``credentials`` is the section ``[default]`` of
    AWS's file.

    Raises:
        ClickException: A value contains a character that is invalid in a key, and could control the terminal.
    """
    given = {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        SESSION_TOKEN: security_token,
    }
    if not all(text.isascii() and text.isprintable() for text in given.values()):
        raise click.ClickException(
            "the server's answer contains characters that are invalid in credentials; it is not shown: "
            "check the server"
        )
    return "\n".join(_LINES[style](given))


def _env(given: Mapping[str, str]) -> list[str]:
    return [
        f"export {name}={shlex.quote(text)}" if text or name != SESSION_TOKEN else f"unset {name}"
        for name, text in given.items()
    ]


def _fish(given: Mapping[str, str]) -> list[str]:
    """Return lines for fish, where a backslash and a quote are escaped between single quotes."""
    quoted = {name: text.replace("\\", "\\\\").replace("'", "\\'") for name, text in given.items()}
    return [
        f"set -gx {name} '{text}'" if text or name != SESSION_TOKEN else f"set -e {name}"
        for name, text in quoted.items()
    ]


def _dotenv(given: Mapping[str, str]) -> list[str]:
    return [f"{name}={text}" for name, text in given.items() if text]


def _credentials(given: Mapping[str, str]) -> list[str]:
    return ["[default]", *(f"{name.lower()} = {text}" for name, text in given.items() if text)]


_LINES: Final = {ENV: _env, FISH: _fish, DOTENV: _dotenv, CREDENTIALS: _credentials}
