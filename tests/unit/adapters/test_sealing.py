"""Checks that a sealed value opens only with its key and its associated data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor_server.adapters.sealing.aesgcm import AesGcmSealer, SealBroken
from lessor_server.adapters.sealing.key_file import KeyFile, KeyFileBroken

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
PLACE = "root/aws"


@given(st.binary(max_size=300), st.text(max_size=40).filter(lambda text: text.isprintable()))
def test_a_sealed_value_opens_with_its_associated_data(plain: bytes, place: str) -> None:
    sealer = AesGcmSealer(KEY)
    sealed = sealer.seal(plain, place)
    assert sealer.open(sealed, place) == plain
    assert len(sealed) == 1 + 8 + 12 + len(plain) + 16


def test_another_process_with_the_same_key_opens_it() -> None:
    assert AesGcmSealer(KEY).open(AesGcmSealer(KEY).seal(b"hush", PLACE), PLACE) == b"hush"


def test_two_seals_of_the_same_bytes_differ() -> None:
    """A reader of the store must not see that two secrets are equal."""
    sealer = AesGcmSealer(KEY)
    assert sealer.seal(b"hush", PLACE) != sealer.seal(b"hush", PLACE)


def test_a_value_moved_to_another_row_does_not_open() -> None:
    """Who can write to the store can't give one mount the root of another."""
    sealer = AesGcmSealer(KEY)
    with pytest.raises(SealBroken, match="another row"):
        sealer.open(sealer.seal(b"hush", PLACE), "root/other")


def test_another_key_and_a_changed_value_are_different_errors() -> None:
    with pytest.raises(SealBroken, match="another key"):
        AesGcmSealer(OTHER_KEY).open(AesGcmSealer(KEY).seal(b"hush", PLACE), PLACE)


@given(st.data())
def test_a_value_with_any_changed_byte_does_not_open(data: st.DataObject) -> None:
    sealer = AesGcmSealer(KEY)
    sealed = bytearray(sealer.seal(b"hush", PLACE))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealBroken):
        sealer.open(bytes(sealed), PLACE)


@given(st.integers(min_value=0, max_value=40))
def test_a_truncated_value_does_not_open(length: int) -> None:
    sealer = AesGcmSealer(KEY)
    with pytest.raises(SealBroken):
        sealer.open(sealer.seal(b"hush", PLACE)[:length], PLACE)


def test_a_key_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        AesGcmSealer(bytes(16))


def test_a_private_key_file_is_created_once(tmp_path: Path) -> None:
    path = tmp_path / "sealing.key"
    first = KeyFile.load_or_make(path)
    assert KeyFile.load_or_make(path) == first
    assert path.read_bytes() == first.key
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["sealing.key"]
    assert KeyFile.load_or_make(tmp_path / "other.key").key != first.key


def test_the_key_file_is_private_with_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        KeyFile.load_or_make(tmp_path / "key")
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o610])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    KeyFile.load_or_make(path)
    path.chmod(mode)
    with pytest.raises(KeyFileBroken, match="chmod 600"):
        KeyFile.load_or_make(path)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 5000])
def test_a_key_file_of_another_size_is_refused_and_kept(tmp_path: Path, size: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(bytes(size))
    path.chmod(0o600)
    with pytest.raises(KeyFileBroken):
        KeyFile.load_or_make(path)
    assert path.stat().st_size == size


def test_a_pipe_or_folder_is_refused_as_key_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # and a start does not wait for a writer
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(KeyFileBroken, match="regular file"):
            KeyFile.load_or_make(path)


def test_a_key_that_cannot_be_created_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError):
        KeyFile.load_or_make(tmp_path / "missing" / "key")
    with pytest.raises(NotADirectoryError):
        KeyFile.load_or_make(tmp_path / "file" / "key")


def test_the_key_is_in_no_repr(tmp_path: Path) -> None:
    file = KeyFile.load_or_make(tmp_path / "key")
    assert repr(file.key) not in repr(file)
    assert "key=" not in repr(file)
