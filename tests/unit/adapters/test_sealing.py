"""Checks that a sealed value opens only with its key, place and version, and that a MAC fits only its row."""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor_server.adapters.sealing.aesgcm import BEFORE_DATA_KEYS, AesGcm
from lessor_server.adapters.sealing.key_file import KeyFile
from lessor_server.adapters.sealing.keyring import DataKey, Keyring
from lessor_server.adapters.sealing.local_key import LocalKey, read_variable
from lessor_server.domain.errors.preconditions import SealBroken
from lessor_server.domain.errors.sealing import SealingKeyMismatch, SealingKeyUnusable

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
PLACE, VERSION = "roots/aws", "3"
WRAPPING = LocalKey(OTHER_KEY, "the key of the tests")
printable = st.text(max_size=40).filter(lambda text: text.isprintable())
value = st.one_of(st.none(), st.text(max_size=9), st.binary(max_size=9), st.integers())
content = st.lists(value, max_size=5)


async def keyring() -> Keyring:
    """Return a keyring with one data key in use."""
    made = Keyring(WRAPPING)
    made.use((await made.make()).id)
    return made


@given(st.binary(max_size=300), printable, printable)
def test_a_sealed_value_opens_at_its_place_and_version(plain: bytes, place: str, version: str) -> None:
    key = DataKey(KEY)
    sealed = key.seal(plain, place, version)
    assert key.open(sealed, place, version) == plain
    assert len(sealed) == 1 + 8 + 12 + len(plain) + 16
    assert bytes.fromhex(key.id) in sealed


def test_another_process_with_the_same_key_opens_it() -> None:
    assert DataKey(KEY).open(DataKey(KEY).seal(b"hush", PLACE, VERSION), PLACE, VERSION) == b"hush"


def test_two_seals_of_the_same_bytes_differ() -> None:
    """A reader of the store must not see that two secrets are equal."""
    key = DataKey(KEY)
    assert key.seal(b"hush", PLACE, VERSION) != key.seal(b"hush", PLACE, VERSION)


@pytest.mark.parametrize(
    ("place", "version"), [("roots/other", VERSION), (PLACE, "2"), (PLACE, ""), (PLACE + VERSION, "")]
)
def test_a_value_of_another_row_or_version_does_not_open(place: str, version: str) -> None:
    """Who can write to the store can neither move a secret nor put an earlier one back."""
    with pytest.raises(SealBroken, match="another row"):
        DataKey(KEY).open(DataKey(KEY).seal(b"hush", PLACE, VERSION), place, version)


def test_where_the_place_ends_is_a_part_of_what_is_sealed() -> None:
    sealed = DataKey(KEY).seal(b"hush", "a", "bc")
    with pytest.raises(SealBroken):
        DataKey(KEY).open(sealed, "ab", "c")


def test_another_key_and_a_changed_value_are_different_errors() -> None:
    with pytest.raises(SealBroken, match="another key"):
        DataKey(OTHER_KEY).open(DataKey(KEY).seal(b"hush", PLACE, VERSION), PLACE, VERSION)


@given(st.data())
def test_a_value_with_any_changed_byte_does_not_open(data: st.DataObject) -> None:
    key = DataKey(KEY)
    sealed = bytearray(key.seal(b"hush", PLACE, VERSION))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealBroken):
        key.open(bytes(sealed), PLACE, VERSION)


@given(st.integers(min_value=0, max_value=40))
def test_a_truncated_value_does_not_open(length: int) -> None:
    key = DataKey(KEY)
    with pytest.raises(SealBroken):
        key.open(key.seal(b"hush", PLACE, VERSION)[:length], PLACE, VERSION)


def test_a_key_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        AesGcm(bytes(16), bytes(16), BEFORE_DATA_KEYS)


# --- MACs -----------------------------------------------------------------------------------------------


@given(printable, content, printable, content)
def test_a_mac_fits_only_its_place_and_content(
    place: str, own: list[object], other_place: str, other: list[object]
) -> None:
    key = DataKey(KEY)
    same = (place, own) == (other_place, other)
    assert (key.mac(place, own) == key.mac(other_place, other)) is same


def test_text_bytes_and_nothing_have_different_macs() -> None:
    """A row whose column holds another type is another row."""
    values: list[object] = ["", "0", 0, None, b"", b"0", "None", [""]]
    assert len({DataKey(KEY).mac(PLACE, [value]) for value in values}) == len(values)
    assert DataKey(KEY).mac(PLACE, [b"a", ""]) != DataKey(KEY).mac(PLACE, [b"", "a"])


async def test_a_mac_of_another_keyring_is_refused() -> None:
    own, other = await keyring(), await keyring()
    assert own.is_authentic(PLACE, [1], own.mac(PLACE, [1]))
    assert not own.is_authentic(PLACE, [1], other.mac(PLACE, [1]))
    for forged in (b"", bytes(40), bytes.fromhex(own.active_id) + bytes(32), None, "text", 7):
        assert not own.is_authentic(PLACE, [1], forged)


# --- the keyring ----------------------------------------------------------------------------------------


async def test_a_keyring_is_loaded_from_what_is_stored() -> None:
    first = Keyring(WRAPPING)
    stored = await first.make()
    first.use(stored.id)
    sealed, mac = first.seal(b"hush", PLACE, VERSION), first.mac(PLACE, [1])
    again = Keyring(WRAPPING)
    await again.load([stored])
    assert again.open(sealed, PLACE, VERSION) == b"hush"
    assert again.is_authentic(PLACE, [1], mac)
    assert KEY not in stored.wrapped


async def test_a_keyring_of_another_key_is_refused() -> None:
    stored = await Keyring(WRAPPING).make()
    with pytest.raises(SealingKeyMismatch, match="not the sealing key"):
        await Keyring(LocalKey(KEY, "another")).load([stored])
    with pytest.raises(SealingKeyMismatch, match="does not decrypt"):
        await Keyring(LocalKey(KEY, "another")).load([replace(stored, wrapped_by=LocalKey(KEY, "").name)])


async def test_a_known_data_key_is_not_unwrapped_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica asks KMS for a new key alone; the key that wraps the others may have changed."""
    ring, peer = Keyring(WRAPPING), Keyring(WRAPPING)
    old, new = await ring.make(), await peer.make()
    unwrapped: list[str] = []
    unwrap = LocalKey.unwrap

    async def note(key: LocalKey, wrapped: bytes, key_id: str) -> bytes:
        unwrapped.append(key_id)
        return await unwrap(key, wrapped, key_id)

    monkeypatch.setattr(LocalKey, "unwrap", note)
    await ring.learn([replace(old, wrapped_by="another key"), new])
    assert unwrapped == [new.id]
    assert ring.knows(new.id)


async def test_a_changed_data_key_is_refused() -> None:
    """Its mark of completeness too: without it rows could lose their MACs."""
    made = Keyring(WRAPPING)
    stored, other = await made.make(), await made.make()
    changes: list[dict[str, object]] = [
        {"id": other.id},
        {"wrapped": other.wrapped},
        {"wrapped": b""},
        {"complete": b""},
        {"complete": other.complete},
        {"is_active": False},
    ]
    for change in changes:
        with pytest.raises(SealingKeyMismatch):
            await Keyring(WRAPPING).load([replace(stored, **change)])  # type: ignore[arg-type]


async def test_a_value_is_sealed_again_under_the_key_in_use() -> None:
    ring = await keyring()
    sealed, mac = ring.seal(b"hush", PLACE, VERSION), ring.mac(PLACE, [1])
    assert ring.reseal(sealed, PLACE, VERSION) == sealed
    new = await ring.make()
    ring.use(new.id)
    assert not ring.is_newest(mac)
    assert ring.is_newest(ring.mac(PLACE, [1]))
    again = ring.reseal(sealed, PLACE, VERSION)
    assert again != sealed
    assert ring.open(sealed, PLACE, VERSION) == ring.open(again, PLACE, VERSION) == b"hush"
    ring.forget_all_but(new.id)
    assert ring.open(again, PLACE, VERSION) == b"hush"
    with pytest.raises(SealBroken, match="another key"):
        ring.open(sealed, PLACE, VERSION)
    assert not ring.is_authentic(PLACE, [1], mac)
    assert ring.reseal(sealed, PLACE, VERSION) == sealed


async def test_a_value_of_before_data_keys_is_opened_only_to_be_sealed_again() -> None:
    """Otherwise who has an old copy could put a value of it back."""
    before = LocalKey(KEY, "before").cipher
    old = before.seal(b"hush", PLACE.encode())
    upgrading = Keyring(WRAPPING, before)
    upgrading.use((await upgrading.make()).id)
    assert upgrading.open(upgrading.reseal(old, PLACE, VERSION), PLACE, VERSION) == b"hush"
    assert upgrading.reseal(old, "roots/other", VERSION) == old
    with pytest.raises(SealBroken):
        upgrading.open(old, PLACE, VERSION)
    later = await keyring()
    assert later.reseal(old, PLACE, VERSION) == old


@pytest.mark.parametrize("value", ["", "  ", "not base64!", "AAAA", base64.b64encode(bytes(31)).decode()])
def test_a_variable_without_a_key_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(SealingKeyUnusable) as raised:
        read_variable("THE_KEY", {"THE_KEY": value})
    assert "THE_KEY" in str(raised.value)
    assert not value.strip() or value not in str(raised.value)


def test_the_key_in_a_variable_is_that_of_a_file(tmp_path: Path) -> None:
    """So a key moves from the one to the other without a rewrap."""
    file = KeyFile.load_or_make(tmp_path / "key")
    found = read_variable("THE_KEY", {"THE_KEY": base64.b64encode(file.key).decode() + "\n"})
    assert found.name == file.wrapping.name


# --- files ----------------------------------------------------------------------------------------------


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
    with pytest.raises(SealingKeyUnusable, match="open to others") as raised:
        KeyFile.load_or_make(path)
    assert "chmod 600" in raised.value.fix


@pytest.mark.parametrize("size", [0, 16, 31, 33, 5000])
def test_a_key_file_of_another_size_is_refused_and_kept(tmp_path: Path, size: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(bytes(size))
    path.chmod(0o600)
    with pytest.raises(SealingKeyUnusable):
        KeyFile.load_or_make(path)
    assert path.stat().st_size == size


def test_a_pipe_or_folder_is_refused_as_key_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # and a start does not wait for a writer
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(SealingKeyUnusable, match="regular file"):
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
