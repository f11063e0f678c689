"""``lessor sealing rewrap``: wrap all data keys by another sealing key, with the server stopped."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from lessor_server.adapters.sealing.keyring import KeyEncryptionKey
from lessor_server.adapters.sealing.local_key import LocalKey, read_key
from lessor_server.adapters.sql.stored_keys import StoredKeys
from lessor_server.adapters.sqlite.store import FILE as DATABASE_FILE
from lessor_server.commands.cli_errors import report_errors
from lessor_server.commands.store import with_stand_ins
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.errors.sealing import (
    SealingKeyMismatch,
    SealingKeyUnavailable,
    SealingKeyUnusable,
)
from lessor_server.domain.sealing_key import FORMS, SEALING_KEY_FIX, SealingKeyPlace, parse_sealing_key
from lessor_server.engine.store_types import WrappedKey
from lessor_server.keyring_start import load_wrapping_key, sealing_key_place
from lessor_server.settings.model import Settings, load
from lessor_server.store_start import open_store_of

KEY_VARIABLE: Final = "LESSOR_SEALING_KEY"
_OLD_FIX: Final = (
    "give the data directory and its sealing key: --config as for the server, or LESSOR_DATA_DIR and"
    f" {KEY_VARIABLE}; nothing was changed"
)
_NEW_FIX: Final = (
    "name a key in --to that the server's user can read, or can create in an existing folder; nothing was"
    " changed"
)

_KMS_FIX: Final = (
    "enable the key, let the AWS credentials of this process call kms:Encrypt and kms:Decrypt with it, and"
    " repeat the command; nothing was changed"
)


class PlaceType(click.ParamType[SealingKeyPlace]):
    """The place of a sealing key, as in the setting ``sealing.key``."""

    name = "place"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> SealingKeyPlace:
        """Return the place, or fail with what is wrong."""
        try:
            return parse_sealing_key(str(value))
        except ValueError as error:
            self.fail(f"{error}; {SEALING_KEY_FIX}", param, ctx)


@click.command("rewrap")
@click.option("--to", type=PlaceType(), required=True, metavar="KEY", help=f"The new key: {FORMS}.")
@click.option(
    "--config", "file", type=click.Path(path_type=Path, dir_okay=False), help="The server's TOML file."
)
def rewrap(to: SealingKeyPlace, file: Path | None) -> None:
    """Wrap all data keys by another sealing key; the old one is that of the server's settings.

    The old key is the one of sealing.key in FILE, or of LESSOR_SEALING_KEY, which here may also hold the key
    itself in base64. A file of the new key is created if it does not exist. Run it as the server's user.
    Afterwards set sealing.key to the new key.
    """
    with report_errors("sealing rewrap", (LessorError, OSError), _NEW_FIX):
        old = read_given_key(os.environ)
        if old is not None:
            os.environ.pop(KEY_VARIABLE)
        wrapped = asyncio.run(rewrap_data_keys(load(file, with_stand_ins(os.environ)), to, old))
    click.echo(f"{wrapped} data key{'' if wrapped == 1 else 's'} wrapped by {to}; set sealing.key to it")


def read_given_key(environ: Mapping[str, str]) -> LocalKey | None:
    """Return the key that the variable holds; None if it is not set, or names a place.

    Raises:
        SealingKeyUnusable: It holds anything else, which is not shown.
    """
    written = environ.get(KEY_VARIABLE, "")
    key = read_key(written)
    if key is None and written.strip() and ":" not in written:
        raise SealingKeyUnusable(
            f"{KEY_VARIABLE} holds neither a key of 32 bytes in base64 nor a place",
            fix=f"write the key in base64, or {FORMS}",
        )
    return key


async def rewrap_data_keys(
    settings: Settings, to: SealingKeyPlace, old: KeyEncryptionKey | None = None
) -> int:
    """Wrap the data keys of a database by the key at ``to``, all or none; return how many.

    Raises:
        SealingKeyMismatch: There are no data keys, another user owns the database, or the old key does not
            decrypt them; nothing was changed.
        SealingKeyUnusable, SealingKeyUnavailable, OSError: A key can't be used.
        DirectoryLocked: The server runs.
    """
    if not settings.store.is_shared:
        require_database(settings.data_dir / DATABASE_FILE)
    with _fix(_OLD_FIX):
        old = old or load_wrapping_key(settings, sealing_key_place(settings), make=False)
    changed: list[WrappedKey] = []

    async def verify(stored: StoredKeys) -> None:
        if not stored.data_keys:
            raise SealingKeyMismatch("the database has no data keys yet", fix="start the server once")
        with _fix(_OLD_FIX):
            plain = [(one, await _unwrap(old, one)) for one in stored.data_keys]
        with _fix(_NEW_FIX):
            new = load_wrapping_key(settings, to, make=True)
            for one, key in plain:
                wrapped = await new.wrap(key, one.id)
                changed.append(replace(one, wrapped=wrapped, wrapped_by=new.name))

    async with open_store_of(settings, lambda _: None, verify) as store:
        await store.rewrap_data_keys(changed)
    return len(changed)


def require_database(path: Path) -> None:
    """Raise ``SealingKeyMismatch`` if there is no database of this user: none is created here.

    What another user creates, such as a key or a journal, the server could not read.
    """
    if not path.exists():
        raise SealingKeyMismatch(f"{path} does not exist", fix=_OLD_FIX)
    if path.stat().st_uid != os.geteuid():
        user = path.stat().st_uid
        raise SealingKeyMismatch(
            f"{path} belongs to another user, {user}", fix="run it as the server's user, as with runuser -u"
        )


@contextmanager
def _fix(fix: str) -> Iterator[None]:
    """Give errors of a sealing key the fix for this command; that of a start would give up the roots.

    A fix of the error's own, such as a chmod, stays.
    """
    try:
        yield
    except (SealingKeyMismatch, SealingKeyUnusable) as error:
        error.fix = fix if error.fix == type(error).fix else error.fix
        raise
    except SealingKeyUnavailable as error:
        error.fix = _KMS_FIX
        raise


async def _unwrap(old: KeyEncryptionKey, key: WrappedKey) -> bytes:
    if key.wrapped_by != old.name:
        raise SealingKeyMismatch(
            f"{old.title} is not the sealing key of the database, which is {key.wrapped_by}"
        )
    return await old.unwrap(key.wrapped, key.id)
