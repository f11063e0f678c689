"""Contexts: names for servers, each with its address and the files of its connection.

They are kept in ``$XDG_CONFIG_HOME/lessor/contexts.toml``. A context holds no token, only the name of a file
with one. A chosen context sets the variables of this process that configure the connection, so that every
command, and every program that a command starts, reaches the same server.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import click

VARIABLE: Final = "LESSOR_CONTEXT"
MAX_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_ADDRESS, _TOKEN, _TOKEN_FILE = "LESSOR_ADDR", "LESSOR_TOKEN", "LESSOR_TOKEN_FILE"
_CERTIFICATE, _KEY, _AUTHORITY = "LESSOR_CLIENT_CERT", "LESSOR_CLIENT_KEY", "LESSOR_CACERT"
_CONNECTION: Final = (_ADDRESS, _TOKEN, _TOKEN_FILE, _AUTHORITY, _CERTIFICATE, _KEY)
_BEFORE: Final = "lessor.variables"
"""Where a command line keeps the values that the variables had before a context was chosen."""


@dataclass(frozen=True, slots=True)
class Context:
    """The address of a server, and the absolute paths of files; an empty one is not set."""

    addr: str
    cacert: str = ""
    client_cert: str = ""
    client_key: str = ""
    token_file: str = ""

    def variables(self) -> dict[str, str]:
        """Return the variables that the context sets; the caller's token counts if it has no credential."""
        found = {
            _ADDRESS: self.addr,
            _AUTHORITY: self.cacert,
            _CERTIFICATE: self.client_cert,
            _KEY: self.client_key,
        }
        if self.token_file or self.client_cert:
            # The token in LESSOR_TOKEN may belong to another server.
            found |= {_TOKEN: "", _TOKEN_FILE: self.token_file}
        return found


@dataclass(frozen=True, slots=True)
class Contexts:
    """All contexts, and the name of the one that is used if none is named; empty if there is none."""

    by_name: Mapping[str, Context]
    current: str = ""

    def named(self, name: str) -> Context:
        """Return a context; raises ``UsageError`` if there is none of that name."""
        if name not in self.by_name:
            known = ", ".join(sorted(self.by_name))
            fix = f"the contexts are {known}" if known else "create it with `lessor context add`"
            raise click.UsageError(f"there is no context {name!r}; {fix}")
        return self.by_name[name]


def path(environ: Mapping[str, str]) -> Path:
    """Return the file of the contexts."""
    folder = environ.get("XDG_CONFIG_HOME") or ""
    base = (
        Path(folder) if folder.startswith("/") else Path(environ.get("HOME") or "~").expanduser() / ".config"
    )
    return base / "lessor" / "contexts.toml"


def checked_name(name: str) -> str:
    """Return a name that a context can have; raises ``UsageError`` for another."""
    if not _NAME.fullmatch(name):
        raise click.UsageError(
            f"{name!r} is not a valid name; write up to 64 letters, digits, `_`, `.` or `-`"
        )
    return name


def load(environ: Mapping[str, str]) -> Contexts:
    """Return the contexts in the file; none if there is no file.

    Raises:
        ClickException: The file can't be read, or is not as this module writes it.
    """
    file = path(environ)
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Contexts({})
    except OSError as error:
        problem = f"{file} can't be read: {error.strerror}"
        raise click.ClickException(f"{problem}; make it readable, or set XDG_CONFIG_HOME") from None
    import tomllib  # noqa: PLC0415 - most command lines have no contexts

    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        return _parsed(tomllib.loads(content.decode()))
    except ValueError as error:
        raise click.ClickException(f"{file} is not a file of contexts: {error}; fix or delete it") from None


def _parsed(content: Mapping[str, object]) -> Contexts:
    """Return the contexts of a parsed file; raises ``ValueError``."""
    current, tables = content.get("current", ""), content.get("contexts", {})
    if not isinstance(current, str) or not isinstance(tables, dict):
        raise ValueError("`current` is not a text, or `contexts` not a table")
    known = {field.name for field in fields(Context)}
    found: dict[str, Context] = {}
    for name, table in tables.items():
        valid = isinstance(table, dict) and "addr" in table and table.keys() <= known
        if not valid or not all(isinstance(value, str) for value in table.values()):
            raise ValueError(
                f"context {name} does not have `addr` and only texts named {', '.join(sorted(known))}"
            )
        found[name] = Context(**table)
    return Contexts(found, current)


def save(contexts: Contexts, environ: Mapping[str, str]) -> None:
    """Write the file, for its owner only, so that a reader finds the old content or the new one.

    Raises:
        ClickException: It can't be written.
    """
    lines = [f"current = {_text(contexts.current)}\n"] if contexts.current else []
    for name, context in contexts.by_name.items():
        pairs = ((field.name, str(getattr(context, field.name))) for field in fields(Context))
        settings = "".join(f"{key} = {_text(value)}\n" for key, value in pairs if value)
        lines.append(f"[contexts.{_text(name)}]\n{settings}")
    import tempfile  # noqa: PLC0415 - most command lines write nothing

    file = path(environ)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as written:
                written.write("\n".join(lines))
            Path(temporary).replace(file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        problem = f"{file} can't be written: {error.strerror}"
        raise click.ClickException(f"{problem}; set XDG_CONFIG_HOME to a folder of your own") from None


def _text(value: str) -> str:
    """Return a basic string of TOML, which escapes as JSON does (TOML 1.0, section "String")."""
    import json  # noqa: PLC0415 - most command lines write nothing

    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def chosen(environ: Mapping[str, str], reaching: Mapping[str, str]) -> Context | None:
    """Return the context of a command line, None for the server that the variables or ``--address`` name.

    It is the one of ``--context``, else that of LESSOR_CONTEXT, else the current one, which does not count if
    LESSOR_ADDR is set.

    Raises:
        UsageError: There is none of that name, or an address is given as well.
    """
    if "context" in reaching:
        if "address" in reaching:
            raise click.UsageError("--context and --address both name a server; give one of them")
        return load(environ).named(reaching["context"])
    if "address" in reaching:
        return None
    if environ.get(VARIABLE):
        return load(environ).named(environ[VARIABLE])
    if environ.get(_ADDRESS):
        return None
    known = load(environ)
    return known.named(known.current) if known.current else None


def adopt(environ: MutableMapping[str, str], reaching: Mapping[str, str]) -> None:
    """Set the variables of the connection as the chosen context has them, if there is one.

    The options of one command line can choose again: the variables' own values are kept.
    """
    meta = click.get_current_context().meta
    before: dict[str, str] = meta.setdefault(
        _BEFORE, {name: environ[name] for name in _CONNECTION if name in environ}
    )
    own = {name: value for name, value in environ.items() if name not in _CONNECTION} | before
    wanted = connection_variables(own, reaching)
    for name in _CONNECTION:
        if name in wanted:
            environ[name] = wanted[name]
        else:
            environ.pop(name, None)


def connection_variables(environ: Mapping[str, str], reaching: Mapping[str, str]) -> dict[str, str]:
    """Return the six variables of the connection as the chosen context has them, if there is one.

    Raises:
        ClickException: There is no context of that name, or the file of contexts is broken.
    """
    own = {name: environ[name] for name in _CONNECTION if name in environ}
    context = chosen(environ, reaching)
    if context is None:
        return own
    return {name: value for name, value in (own | context.variables()).items() if value}
