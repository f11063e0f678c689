"""``lessor migrate`` and ``lessor store copy``: the store, while no server of this version uses it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from lessor_server.adapters.postgres.imports import open_destination
from lessor_server.adapters.postgres.store import migrate_database, read_database_schema
from lessor_server.adapters.sealing.keyring import Keyring
from lessor_server.adapters.sqlite.source import open_source
from lessor_server.adapters.sqlite.store import FILE as DATABASE_FILE
from lessor_server.adapters.sqlite.stored_keys import read_file_schema
from lessor_server.commands.cli_errors import FAILED, report_errors
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.store_url import SQLITE, find_problem
from lessor_server.keyring_start import load_wrapping_key, sealing_key_place
from lessor_server.settings.model import STAND_IN, STORE_VARIABLE, TOKEN_VARIABLES, Settings, load
from lessor_server.store_copy import compare_stores, copy_store
from lessor_server.store_start import target_of

_ERRORS: Final = (LessorError, OSError)
_FILE_FIX: Final = "run it as the server's user; nothing was changed"
_CONFIG = click.option(
    "--config", "file", type=click.Path(path_type=Path, dir_okay=False), help="The server's TOML file."
)


@click.command("migrate")
@_CONFIG
@click.option("--check", is_flag=True, help="Migrate nothing; exit with 1 if anything is to migrate.")
def migrate_store(file: Path | None, *, check: bool) -> None:
    """Migrate the database to the schema of this version.

    Servers of the version before may run meanwhile. A SQLite database is migrated by the start of its server.
    """
    with report_errors("migrate", _ERRORS, _FILE_FIX):
        settings = load(file, with_stand_ins(os.environ))
        found, newest = asyncio.run(_migrate(settings, check=check))
    click.echo(f"schema {found} of {newest}")
    if check and found < newest:
        sys.exit(FAILED)


async def _migrate(settings: Settings, *, check: bool) -> tuple[int, int]:
    """Return the schema of the database, after a migration unless it is only a ``check``, and the newest."""
    if not settings.store.is_shared:
        return await asyncio.to_thread(read_file_schema, settings.data_dir / DATABASE_FILE)
    target = target_of(settings.store)
    return await (read_database_schema if check else migrate_database)(target)


@click.group("store")
def store() -> None:
    """Move the store to another database."""


@store.command("copy")
@click.option("--from", "source", required=True, metavar="sqlite:DIR", help="The data directory to copy.")
@click.option("--to", "url", required=True, metavar="URL", help="postgresql:// and an empty database.")
@click.option("--verify", is_flag=True, help="Compare the checksums of all rows once more, and print them.")
@_CONFIG
def copy(source: str, url: str, file: Path | None, *, verify: bool) -> None:
    """Copy a SQLite store to a PostgreSQL database; its server must be stopped.

    A copy that was cut off continues where it ended. The secrets stay sealed: give the new servers the
    sealing key of the old one. Leases do not expire on the copy until `lessor expiry resume`.

    The sealing key is that of sealing.key in FILE or of LESSOR_SEALING_KEY, and without both the file
    sealing-key in DIR. store.ca_file and store.password_file are used as well.
    """
    folder = source_folder(source)
    if problem := find_problem(url):
        raise click.BadParameter(problem, param_hint="--to")
    with report_errors("store copy", _ERRORS, _FILE_FIX):
        variables = with_stand_ins(os.environ) | {STORE_VARIABLE: url, "LESSOR_DATA_DIR": str(folder)}
        if file is None:
            variables.setdefault("LESSOR_SEALING_KEY", f"file:{folder / 'sealing-key'}")
        asyncio.run(_copy(load(file, variables), folder, verify=verify))


def source_folder(source: str) -> Path:
    """Return the data directory of ``sqlite:DIR``, or raise the error of the option."""
    scheme, _, name = source.partition(":")
    if f"{scheme}:" != SQLITE or not name:
        raise click.BadParameter("write sqlite:DIR", param_hint="--from")
    return Path(name)


def with_stand_ins(environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables with which settings are read that need no root token."""
    given = {name: value for name, value in environ.items() if name not in TOKEN_VARIABLES}
    return given if "LESSOR_ROOT_TOKEN_FILE" in given else given | {TOKEN_VARIABLES[0]: STAND_IN}


async def _copy(settings: Settings, folder: Path, *, verify: bool) -> None:
    async with open_source(folder) as source, open_destination(target_of(settings.store)) as destination:
        keyring = Keyring(load_wrapping_key(settings, sealing_key_place(settings), make=False))
        await keyring.load(source.stored.data_keys)
        is_copied = await copy_store(source, destination, keyring, _show)
        if verify or not is_copied:
            for name, digest in (await compare_stores(source, destination, _show)).items():
                click.echo(f"{name:<14}{digest.count:>10}  sha256 {digest.checksum}")
    click.echo(
        "copied; leases do not expire until `lessor expiry resume`" if is_copied else "was copied already"
    )


def _show(table: str, count: int) -> None:
    click.echo(f"{table}: {count} rows", err=True)
