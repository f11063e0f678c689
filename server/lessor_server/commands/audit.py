"""``lessor audit``: verify and read audit files."""

from __future__ import annotations

import gzip
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

import click

from lessor_server.adapters.audit.key import AuditKey, AuditKeyBroken, NotAPublicKey, PublicKey
from lessor_server.commands.cli_errors import FAILED, report_errors
from lessor_server.domain.audit.chain import ChainEnd
from lessor_server.domain.audit.verifier import ChainFinding, Verifier

CHUNK_BYTES: Final = 1 << 20
MAX_SHOWN: Final = 100
"""How many findings are printed one by one."""
POLL_SECONDS: Final = 0.5
TAIL_BYTES: Final = 1 << 20

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    envvar="LESSOR_DATA_DIR",
    default=Path("lessor-data"),
    show_default=True,
    help="The server's data directory [LESSOR_DATA_DIR].",
)


class _KeyType(click.ParamType[PublicKey]):
    """A public key in base64, or ``@FILE`` with one."""

    name = "PUB|@FILE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> PublicKey:
        """Return the key."""
        text = str(value)
        try:
            if text.startswith("@"):
                text = Path(text[1:]).read_text(encoding="ascii")
            return PublicKey(text)
        except (OSError, UnicodeDecodeError, NotAPublicKey) as error:
            self.fail(str(error), param, ctx)


class _EndType(click.ParamType[ChainEnd]):
    """The number and hash of a record."""

    name = "SEQ:HASH"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> ChainEnd:
        """Return both."""
        try:
            return ChainEnd.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


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

    Records before the first one in FILES count as removed, unless --first names the last of them. A file may
    be compressed by gzip; - is standard input. Gaps and torn lines that the server has explained are listed,
    and don't change the exit code.
    """
    verifier = Verifier(key.check, last, first)
    shown = serious = 0
    with report_errors("audit verify", (OSError, EOFError)):
        for finding in _find(verifier, files):
            serious += not finding.is_explained
            shown += 1
            if shown <= MAX_SHOWN:
                click.echo(str(finding))
    if shown > MAX_SHOWN:
        click.echo(f"and {shown - MAX_SHOWN} more findings")
    for line in _summary(verifier):
        click.echo(line)
    click.echo("not intact" if serious else "intact")
    if serious:
        sys.exit(FAILED)


@command.command("key")
@data_dir_option
def key(data_dir: Path) -> None:
    """Print the public key of the checkpoints, in base64."""
    click.echo(_load_key("audit key", data_dir).public)


@command.command("hash")
@data_dir_option
@click.argument("value")
def hash_value(data_dir: Path, value: str) -> None:
    """Print what stands for VALUE, such as an access key's id, in `access_key_hmac`."""
    click.echo(_load_key("audit hash", data_dir).hash_value(value))


@command.command("tail")
@click.option("-n", "count", type=click.IntRange(0), default=10, show_default=True, help="How many records.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new records, also after a rotation.")
@click.argument("file", envvar="LESSOR_AUDIT_FILE", type=click.Path(path_type=Path))
def tail(file: Path, count: int, *, follow: bool) -> None:
    """Print the last records of FILE, by default the file of LESSOR_AUDIT_FILE."""
    with report_errors("audit tail", (OSError,)):
        for line in _read_end(file, count, follow=follow):
            click.echo(line.decode("utf-8", "backslashreplace"))


def _find(verifier: Verifier, files: tuple[Path, ...]) -> Iterator[ChainFinding]:
    for path in files:
        verifier.begin_file(str(path))
        with _open(path) as file:
            while chunk := file.read(CHUNK_BYTES):
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
        yield "the last record is a checkpoint: every record is signed"


def _load_key(name: str, data_dir: Path) -> AuditKey:
    with report_errors(name, (OSError, AuditKeyBroken)):
        return AuditKey.load(data_dir)


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
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        *lines, rest = file.read().split(b"\n")
        yield from lines[-count:] if count else ()
        while follow:
            moved = _is_another(path, file)
            *lines, rest = (rest + file.read()).split(b"\n")
            yield from lines
            if moved:  # what came before the rotation is read
                file.close()
                file, rest = path.open("rb"), b""
            elif not lines:
                pause.wait(POLL_SECONDS)
    finally:
        file.close()


def _is_another(path: Path, file: BinaryIO) -> bool:
    """Return whether another file has the path now."""
    try:
        return not os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except OSError:
        return False
