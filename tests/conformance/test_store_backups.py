"""Checks that a failed backup leaves no file, and that its error names no folder of the server."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.support.stores import Bench, bench

from lessor_server.adapters.sql.row_macs import RowMacs
from lessor_server.adapters.sqlite import backups
from lessor_server.adapters.sqlite.store import FILE
from lessor_server.domain.errors.base import AlreadyExists, Invalid, LessorError, StoreUnavailable

LONG = "n" * 255
BAD = {
    "a name of 256 bytes": "n" * 256,
    "a folder of 256 bytes": f"{'n' * 256}/copy.db",
    "499 folders": "a/" * 499 + "copy.db",
    "a path of 1000 characters": f"{'a' * 199}/" * 4 + "n" * 200,
    "another folder": "../copy.db",
    "another folder, in a circle": "a/../../copy.db",
    "an absolute path": "/tmp/copy.db",
    "the folder itself": ".",
    "a folder that is there": "folder",
    "a file for a folder": "file/copy.db",
    "below a file of ours": "lessor.db/copy.db",
    "a link that leads outside": "outside/copy.db",
    "links in a circle": "circle/copy.db",
    "the half copy": "lessor.copy",
    "the half copy elsewhere": "new/lessor.copy",
    "the database": "lessor.db",
    "its log": "lessor.db-wal",
    "its journal": "lessor.db-journal",
    "the lock": "lessor.lock",
    "a token to come": "root-token",
    "a folder where a token may come": "root-token/copy.db",
    "beside the marker": "Rows-Sealed2",
    "a file of the audit to come": "audit-x",
    "a folder of the audit to come": "audit-logs/x",
    "the sealing key": "sealing-key",
    "a file that is there": "file",
    "the database in capitals": "LESSOR.DB",
    "the key in capitals": "Sealing-Key",
    "below a token in capitals": "Root-Token/copy.db",
    "the half copy in capitals": "new/Lessor.Copy",
}
UNPORTABLE = {
    "nothing of a name": "/",
    "a folder without a name": "a//copy.db",
    "a file without a name": "a/",
    "itself": "./copy.db",
    "the folder above": "copies/../copy.db",
    "a line break": "copy\n.db",
    "a control character": "copy\x1b[2J.db",
    "a NUL": "copy\0.db",
    "a blank before": " copy.db",
    "a blank after": "copy.db ",
    "a blank inside": "my copy.db",
    "a dot after": "copy.",
    "a dot before": ".copy",
    "an option": "-rf",
    "another alphabet": "ü.db",
    "a colon": "copy.db:stream",
    "a backslash": "a\\copy.db",
    "a device": "NUL",
    "a device with an extension": "a/com1.db",
    "a folder of a device": "aux/copy.db",
}
"""Names that not every file system can hold."""


@pytest.fixture(name="b")
async def opened(tmp_path: Path) -> AsyncIterator[Bench]:
    """Open a store with a lease in a new folder, beside files and links in the way of a backup."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "folder").mkdir()
    (data / "file").write_text("kept")
    (data / "outside").symlink_to(tmp_path)
    (data / "circle").symlink_to(data / "circle")
    async with bench("sqlite", data) as made:
        await made.active()
        yield made


def tree(folder: Path) -> dict[str, int]:
    """Return what lies below a folder, with the sizes of files but those of the database."""
    found = sorted(folder.rglob("*"))
    return {
        str(one.relative_to(folder)): one.lstat().st_size if one.is_file() and "lessor" not in one.name else 0
        for one in found
    }


async def fails(b: Bench, path: str) -> LessorError:
    """Return why a backup is not written."""
    try:
        await b.store.backup(path)
    except LessorError as error:
        return error
    pytest.fail(f"{path} was written")


@pytest.mark.parametrize("path", BAD.values(), ids=BAD.keys())
async def test_a_refused_backup_leaves_no_file(b: Bench, tmp_path: Path, path: str) -> None:
    before = tree(tmp_path)
    error = await fails(b, path)
    assert isinstance(error, (Invalid, AlreadyExists))
    assert str(tmp_path) not in str(error)
    assert "SQLITE_ERROR" not in str(error)
    assert tree(tmp_path) == before
    await b.active(1)
    assert (await b.store.backup("copy.db"))[1] > 0


@pytest.mark.parametrize("path", UNPORTABLE.values(), ids=UNPORTABLE.keys())
async def test_a_name_that_is_not_portable_is_refused(b: Bench, tmp_path: Path, path: str) -> None:
    before = tree(tmp_path)
    error = await fails(b, path)
    assert isinstance(error, Invalid)
    (violation,) = error.violations
    assert violation.field == "path"
    assert "letters, digits and . _ - alone" in str(error)
    assert str(error).isprintable()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("path", [LONG, f"{LONG}/copy.db", "a/b/c/copy.db", "Copy_2026-11.db", "console.db"])
async def test_a_name_of_the_maximum_length_is_accepted(b: Bench, tmp_path: Path, path: str) -> None:
    """The copy is written under a shorter name."""
    answer, size = await b.store.backup(path)
    target = tmp_path / "data" / answer
    assert target.stat().st_size == size
    assert target.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(target)) as copy:
        assert copy.execute("SELECT count(*) FROM leases").fetchone() == (1,)
        assert copy.execute("SELECT value FROM meta WHERE key = 'held'").fetchone() == ("STORE_ROLLED_BACK",)
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not [name for name in tree(tmp_path) if "lessor.copy" in name]
    made = {one for one in (tmp_path / "data").rglob("*") if one.is_dir() and one.name != "folder"}
    assert {oct(one.stat().st_mode & 0o777) for one in made if not one.is_symlink()} <= {"0o700"}


@pytest.mark.parametrize("path", ["copy.db", "new/folders/copy.db"])
async def test_a_full_disk_leaves_no_partial_copy(b: Bench, tmp_path: Path, path: str) -> None:
    before = tree(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        error = await fails(b, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(error, StoreUnavailable)
    assert str(tmp_path) not in str(error)
    assert tree(tmp_path) == before
    await b.store.backup(path)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreUnavailable),
        (errno.EIO, StoreUnavailable),
        (errno.EROFS, StoreUnavailable),
        (errno.EACCES, Invalid),
        (errno.ENAMETOOLONG, Invalid),
    ],
)
def test_a_disk_error_names_no_file(tmp_path: Path, number: int, kind: type[LessorError]) -> None:
    class Disk:
        """A connection whose copy the disk refuses."""

        def execute(self, *_: object) -> None:
            raise OSError(number, os.strerror(number), str(tmp_path / "copy.db"))

    disk: Any = Disk()
    with pytest.raises(kind) as raised:
        backups.write(disk, tmp_path, "new/copy.db", RowMacs())
    assert str(tmp_path) not in str(raised.value)
    assert os.strerror(number) in str(raised.value)
    assert list(tmp_path.iterdir()) == []


async def test_a_partial_copy_after_a_kill_is_removed_by_the_next_backup(tmp_path: Path) -> None:
    async with bench("sqlite", tmp_path) as b:
        await b.active()
        for name in ("lessor.copy", "lessor.copy-journal"):
            (tmp_path / name).write_bytes(b"half")
        await b.store.backup("copy.db")
        assert tree(tmp_path).keys() == {FILE, f"{FILE}-wal", "lessor.lock", "copy.db"}


async def test_a_kill_during_a_backup_leaves_no_file_of_its_name(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.store_copier", str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    answer = 1 + (await process.stdout.read()).decode().count("\n")
    await process.wait()
    copies = [name for name in tree(tmp_path) if name.startswith("copy-")]
    assert len(copies) in (answer, answer + 1)
    for name in copies:
        with closing(sqlite3.connect(tmp_path / name)) as copy:
            assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert copy.execute("SELECT value FROM meta WHERE key = 'held'").fetchone() is not None
