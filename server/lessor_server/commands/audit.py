"""``lessor audit``: verify and read audit files."""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, cast

import click
from click.core import ParameterSource

from lessor_server.adapters.audit.key import AuditKey, NotAPublicKey, PublicKey
from lessor_server.adapters.observing.printable import escape
from lessor_server.commands.cli_errors import FAILED, report_errors
from lessor_server.commands.shared_audit_keys import hash_with_shared_key, list_public_keys
from lessor_server.commands.store import with_stand_ins
from lessor_server.domain.audit.chain import MAX_LINE, ChainEnd
from lessor_server.domain.audit.verifier import ChainFinding, Verifier
from lessor_server.domain.errors.base import LessorError
from lessor_server.settings.model import STORE_VARIABLE, Settings, load

CHUNK_BYTES: Final = 1 << 20
MAX_SHOWN: Final = 100
"""How many findings are printed one by one."""
POLL_SECONDS: Final = 0.5
BLOCK_BYTES: Final = 1 << 16
"""The end of a file is read in blocks of this size, the last one first."""
COMPRESSED: Final = {
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x8b": "gzip",
}
"""What a compressed file begins with. Source: file(1), magic/Magdir/compress."""
_FILE_FIX: Final = "name an audit file that you may read"
_KEY_ERRORS: Final = (OSError, LessorError)
_DATA_DIR_FIX: Final = "give the server's data directory with --data-dir, and run it as the server's user"

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    envvar="LESSOR_DATA_DIR",
    default=Path("lessor-data"),
    show_default=True,
    help="The server's data directory [LESSOR_DATA_DIR].",
)

config_option = click.option(
    "--config", "file", type=click.Path(path_type=Path, dir_okay=False), help="The server's TOML file."
)


class FileUnreadable(Exception):
    """The content of a file can't be read; the text has its name and the fix."""


class _KeyType(click.ParamType[PublicKey]):
    """A public key in base64, or ``@FILE`` with one."""

    name = "PUB|@FILE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> PublicKey:
        """Return the key."""
        text, fix = str(value), "give what `lessor audit key` prints, or @FILE with it"
        try:
            if text.startswith("@"):
                text = Path(text[1:]).read_text(encoding="ascii")
            return PublicKey(text)
        except UnicodeDecodeError:
            self.fail(f"{value} holds more than ASCII text; {fix}", param, ctx)
        except OSError as error:
            self.fail(f"{value} cannot be read: {error.strerror}; {fix}", param, ctx)
        except NotAPublicKey as error:
            self.fail(f"{error}; {fix}", param, ctx)


class _EndType(click.ParamType[ChainEnd]):
    """The number and hash of a record."""

    name = "SEQ:HASH"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> ChainEnd:
        """Return both."""
        try:
            return ChainEnd.parse(str(value))
        except ValueError as error:
            self.fail(f"{error}, as `lessor audit verify` and `lessor info` show them", param, ctx)


@click.group("audit")
def command() -> None:
    """Verify and read audit files."""


@command.command("verify")
@click.option("--key", type=_KeyType(), required=True, help="The public key that `lessor audit key` prints.")
@click.option(
    "--last", type=_EndType(), help="A record that must be there: `lessor info` shows the last one."
)
@click.option(
    "--first",
    type=_EndType(),
    help="The record before the first one in FILES, where the older files were deleted on purpose.",
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def verify(key: PublicKey, last: ChainEnd | None, first: ChainEnd | None, files: tuple[Path, ...]) -> None:
    """Verify FILES, the oldest first: exit with 1 if a record was changed, removed, added, moved or cut off.

    Records before the first one in FILES count as removed, unless --first names the last of them. A file that
    is named *.gz is decompressed by gzip; - is standard input, not compressed. Gaps and torn lines that the
    server has explained are listed, and don't change the exit code.
    """
    verifier = Verifier(key.check, last, first)
    shown = serious = 0
    with report_errors("audit verify", (OSError, FileUnreadable), _FILE_FIX):
        for finding in _find(verifier, files):
            serious += not finding.is_explained
            shown += 1
            if shown <= MAX_SHOWN:
                click.echo(escape(str(finding)))
    if shown > MAX_SHOWN:
        click.echo(f"and {shown - MAX_SHOWN} more findings")
    for line in _summary(verifier):
        click.echo(line)
    click.echo("not intact" if serious else "intact")
    if serious:
        sys.exit(FAILED)


@command.command("key")
@data_dir_option
@config_option
def key(data_dir: Path, file: Path | None) -> None:
    """Print the public key of the checkpoints, in base64.

    Servers of a PostgreSQL database, which FILE or LESSOR_STORE_URL names, have a key each: all are printed,
    with the time of their first use. With --data-dir only one server's: name the folder beside its audit file
    that ends in .state.
    """
    with report_errors("audit key", _KEY_ERRORS, _DATA_DIR_FIX):
        place = _place_of_keys(data_dir, file)
        if isinstance(place, Path):
            click.echo(AuditKey.load(place).public)
            return
        for public, first_us in asyncio.run(list_public_keys(place)):
            first = datetime.fromtimestamp(first_us // 1_000_000, UTC)
            click.echo(f"{public} {first:%Y-%m-%dT%H:%M:%SZ}")


@command.command("hash")
@data_dir_option
@config_option
@click.argument("value")
def hash_value(data_dir: Path, file: Path | None, value: str) -> None:
    """Print what stands for VALUE, such as an access key's id, in `access_key_hmac`.

    Servers of a PostgreSQL database share a key for it, which is sealed there. FILE or LESSOR_STORE_URL names
    the database, and sealing.key or LESSOR_SEALING_KEY the sealing key.
    """
    with report_errors("audit hash", _KEY_ERRORS, _DATA_DIR_FIX):
        place = _place_of_keys(data_dir, file)
        if isinstance(place, Path):
            click.echo(AuditKey.load(place).hash_value(value))
        else:
            click.echo(asyncio.run(hash_with_shared_key(place, value)))


def _place_of_keys(data_dir: Path, file: Path | None) -> Path | Settings:
    """Return the data directory; or the settings, if they name a PostgreSQL database."""
    source = click.get_current_context().get_parameter_source("data_dir")
    if source is ParameterSource.COMMANDLINE or (file is None and STORE_VARIABLE not in os.environ):
        return data_dir
    settings = load(file, with_stand_ins(os.environ))
    return settings if settings.store.is_shared else settings.data_dir


@command.command("tail")
@click.option("-n", "count", type=click.IntRange(0), default=10, show_default=True, help="How many records.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new records, also after a rotation.")
@click.argument("file", envvar="LESSOR_AUDIT_FILE", required=False, type=click.Path(path_type=Path))
def tail(file: Path | None, count: int, *, follow: bool) -> None:
    """Print the last records of FILE, by default the file of LESSOR_AUDIT_FILE.

    What is not printable, and so not of the server, is escaped. Of a line that is longer than any record only
    the end is printed, and nothing before it.
    """
    if file is None:
        raise click.UsageError("Name the audit file, or set LESSOR_AUDIT_FILE.")
    with report_errors("audit tail", (OSError,), _FILE_FIX):
        for line in _read_end(file, count, follow=follow):
            click.echo(escape(line.decode("utf-8", "backslashreplace")))


def _find(verifier: Verifier, files: tuple[Path, ...]) -> Iterator[ChainFinding]:
    for path in files:
        verifier.begin_file(str(path))
        for chunk in _read(path):
            yield from verifier.feed(chunk)
        yield from verifier.end_file()
    yield from verifier.finish()


def _summary(verifier: Verifier) -> Iterator[str]:
    """Yield what was verified, and what only the chain protects."""
    if not verifier.records:
        return
    end = verifier.end
    yield f"{verifier.records} records, from {verifier.first_seq} to {end.seq}; the last is {end}"
    after = end.seq - verifier.checkpoint_seq
    if not verifier.checkpoint_seq:
        yield "no checkpoint: no record is signed"
    elif after:
        yield (
            f"{after} records after the last checkpoint, {verifier.checkpoint_seq}, are not signed yet:"
            " compare the last with `lessor info`"
        )
    else:
        yield "the last record is a checkpoint: every record before it is signed"


def _read(path: Path) -> Iterator[bytes]:
    """Yield the content of a file in chunks.

    Raises:
        FileUnreadable: It is not an intact file of gzip, or is compressed in another way.
        OSError: It can't be read.
    """
    is_first = True
    try:
        with _open(path) as file:
            while chunk := file.read(CHUNK_BYTES):
                if is_first:
                    _require_plain(path, chunk)
                is_first = False
                yield chunk
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        fix = "bring another copy, or verify what `gzip -dc` still reads of it"
        raise FileUnreadable(f"{path} is not an intact file of gzip: {error}; {fix}") from None


def _require_plain(path: Path, content: bytes) -> None:
    """Raise ``FileUnreadable`` if a file begins as a compressed one does."""
    for magic, kind in COMPRESSED.items():
        if content.startswith(magic):
            fix = "decompress it first: only gzip in a file named *.gz is read"
            raise FileUnreadable(f"{path} is compressed by {kind}; {fix}")


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    if str(path) == "-":
        yield sys.stdin.buffer
    elif path.suffix == ".gz":
        with gzip.open(path, "rb") as file:
            yield cast("BinaryIO", file)
    else:
        with path.open("rb") as file:
            yield file


def _read_end(path: Path, count: int, *, follow: bool) -> Iterator[bytes]:
    """Yield the last lines of a file, and then new ones."""
    pause = threading.Event()
    file = path.open("rb")
    try:
        *lines, rest = _read_last(file, count)
        if rest and not follow:  # a torn line, or one that is being written
            lines.append(rest)
        yield from lines[-count:] if count else ()
        while follow:
            moved = _is_another(path, file)
            chunk = file.read(CHUNK_BYTES)
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_LINE:  # it is not a record
                lines, rest = [*lines, rest], b""
            yield from lines
            if moved and not chunk:  # what came before the rotation is read
                file.close()
                file, rest = path.open("rb"), b""
            elif not chunk:
                pause.wait(POLL_SECONDS)
    finally:
        file.close()


def _read_last(file: BinaryIO, count: int) -> list[bytes]:
    """Return at most the last ``count`` lines of a file, and then what follows its last newline.

    A line that is too long for a record is the first one, and cut at its beginning.
    """
    end = at = file.seek(0, os.SEEK_END)
    blocks: list[bytes] = []
    newlines = length = 0
    while at and newlines <= count and length <= MAX_LINE:
        size = min(BLOCK_BYTES, at)
        at = file.seek(at - size)
        blocks.append(file.read(size))
        newlines += blocks[-1].count(b"\n")
        newline = blocks[-1].find(b"\n")
        length = newline if newline >= 0 else length + size
    file.seek(end)
    return b"".join(reversed(blocks)).split(b"\n")[-count - 1 :]


def _is_another(path: Path, file: BinaryIO) -> bool:
    """Return whether another file has the path now."""
    try:
        return not os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except OSError:
        return False
