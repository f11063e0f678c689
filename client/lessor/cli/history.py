"""``lessor lease history``: what audit files say about a lease."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import click

from lessor.cli.styles import JSON, TABLE, chosen_style

NOT_FOUND: Final = 5
MAX_LINE: Final = 1 << 20
"""No record is longer. A longer line is read in pieces, and was not written by the server."""
_COMPRESSED: Final = {
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x8b": "gzip",
}
"""What a compressed file begins with, as in `lessor audit verify`: no record would be found in it."""
_SHOWN: Final = ("time", "what", "identity", "status", "reason", "caller_reason")


@click.command("history")
@click.argument("lease_id")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--format", "style", type=click.Choice([TABLE, JSON]), help="Format of the output [LESSOR_FORMAT; table]."
)
def history(lease_id: str, files: tuple[Path, ...], style: str | None) -> int:
    """Show the audit records of LEASE_ID in FILES, the oldest first.

    The default is the file of LESSOR_AUDIT_FILE, with those that were rotated away beside it. The files are
    not verified: `lessor audit verify` does that. Exits with 5 if no record names the lease.
    """
    found, style = False, chosen_style(style, (TABLE, JSON))
    for record in _records(lease_id, files or _default_files()):
        found = True
        click.echo(json.dumps(record, ensure_ascii=False) if style == JSON else _line(record))
    if not found:
        click.echo(f"lessor: no audit record names the lease {lease_id}", err=True)
        return NOT_FOUND
    return 0


def _default_files() -> list[Path]:
    """Return the audit file and its rotated ones, the oldest first."""
    name = os.environ.get("LESSOR_AUDIT_FILE", "")
    if not name:
        raise click.UsageError("Name the audit files, or set LESSOR_AUDIT_FILE.")
    path = Path(name)
    rotated = path.parent.glob(f"{path.name}[.-]*")
    return [*sorted(rotated, key=lambda one: one.stat().st_mtime), path]


def _records(lease_id: str, files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    needle = lease_id.encode()
    for path in files:
        try:
            with _open(path) as file:
                for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b"")):
                    if not number:
                        _require_plain(path, line)
                    if needle in line and (record := _parse(line)).get("lease_id") == lease_id:
                        yield record
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            fix = "bring another copy, or name a file with what `gzip -dc` still reads of it"
            raise click.ClickException(f"{path} is not an intact file of gzip: {error}; {fix}") from None
        except OSError as error:
            fix = "name an audit file that you may read"
            raise click.ClickException(f"{path} can't be read: {error.strerror}; {fix}") from None


def _open(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _require_plain(path: Path, line: bytes) -> None:
    """Fail if the first line of a file begins as a compressed file does."""
    for magic, kind in _COMPRESSED.items():
        if line.startswith(magic):
            fix = "decompress it first: only gzip in a file named *.gz is read"
            raise click.ClickException(f"{path} is compressed by {kind}; {fix}")


def _parse(line: bytes) -> dict[str, Any]:
    """Return the record of a line; an empty one for a line that was torn or changed."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _line(record: dict[str, Any]) -> str:
    """Return a record on one line."""
    what = record.get("event") or f"{record.get('rpc', '')} {record.get('kind', '')}"
    fields = {**record, "what": what}
    shown = [_printable(str(fields[name])) for name in _SHOWN if fields.get(name)]
    return "  ".join(shown)


def _printable(text: str) -> str:
    """Return a text without what could act on a terminal: the file may have been changed."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
