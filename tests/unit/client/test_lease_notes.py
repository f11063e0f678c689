"""Checks the notes of leases: none replaces another, and a damaged one harms nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lessor.leasing.child import NOT_FOUND, NotStarted, start_child
from lessor.leasing.notes import DeadNote, Holder, Note, dead_notes
from lessor.leasing.private_files import NotPrivate, read_private

HOLDER = Holder("127.0.0.1:50051", "caller")


def left_by_a_killed_process(folder: Path, lease_id: str) -> None:
    """Write a note, and end its lock as the end of the process does."""
    note = Note.create(folder, HOLDER)
    note.write([lease_id])
    note.close(remove=False)


def found_in(folder: Path) -> list[DeadNote]:
    notes = list(dead_notes(folder))
    for note in notes:
        note.close(remove=False)
    return notes


def test_a_note_does_not_replace_that_of_an_earlier_process_with_the_same_id(tmp_path: Path) -> None:
    left_by_a_killed_process(tmp_path, "aws/creds/a/1")
    left_by_a_killed_process(tmp_path, "aws/creds/a/2")
    assert sorted(note.lease_ids for note in found_in(tmp_path)) == [("aws/creds/a/1",), ("aws/creds/a/2",)]


def test_the_note_of_a_living_process_is_private_and_left_alone(tmp_path: Path) -> None:
    note = Note.create(tmp_path, HOLDER)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert found_in(tmp_path) == []
    note.close(remove=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json",
        b"[" * 100_000,
        b'{"address": "a", "caller": "b", "leases": ["aws/creds/\\ud800"]}',
        b'{"address": "a", "leases": []}',
        b"\xff",
    ],
    ids=["empty", "text", "deep", "half a character", "incomplete", "bytes"],
)
def test_a_damaged_note_is_removed_and_the_others_are_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "exec-1.json").write_bytes(content)
    left_by_a_killed_process(tmp_path, "aws/creds/a/1")
    (note,) = found_in(tmp_path)
    assert note.lease_ids == ("aws/creds/a/1",)
    assert not (tmp_path / "exec-1.json").exists()


def test_a_pipe_or_a_folder_in_the_place_of_a_note_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "exec-1.json")
    (tmp_path / "exec-2.json").mkdir()
    left_by_a_killed_process(tmp_path, "aws/creds/a/1")
    assert len(found_in(tmp_path)) == 1


def test_a_folder_in_the_place_of_a_private_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotPrivate, match="is not a file; remove it"):
        read_private(tmp_path)


@pytest.mark.asyncio
async def test_a_script_whose_interpreter_is_missing_is_not_called_missing_itself(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/program\n")
    script.chmod(0o755)
    with pytest.raises(NotStarted, match="its first line names is missing") as refused:
        await start_child([str(script)], os.environ)
    assert refused.value.exit_code == NOT_FOUND


PRINTS = """
import sys
import click
from lessor.cli.credential_process import print_answer
try:
    print_answer("{}")
except click.ClickException as error:
    sys.exit(f"refused: {error.message}")
"""


@pytest.mark.parametrize("to", ["> /dev/full", ">&-"])
def test_an_answer_that_cannot_be_printed_is_an_error_in_one_line(to: str) -> None:
    words = ["sh", "-c", f'exec "$0" -c "$1" {to}', sys.executable, PRINTS]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert done.stderr.startswith("refused: the credentials can't be printed: ")
    assert done.stderr.count("\n") == 1
