"""Checks that a start verifies its key before it changes anything, and how often it asks AWS KMS."""

from __future__ import annotations

import asyncio
import base64
import gzip
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lessor_server.adapters.sealing.keyring import Keyring
from lessor_server.adapters.sealing.local_key import LocalKey
from lessor_server.adapters.sql.stored_keys import StoredKeys
from lessor_server.adapters.sqlite.migrate import migrations
from lessor_server.adapters.sqlite.store import open_store
from lessor_server.adapters.sqlite.upgrade_copy import CopyBeforeUpgradeFailed
from lessor_server.domain.errors.sealing import SealingKeyMismatch, SealingKeyUnavailable, SealingKeyUnusable
from lessor_server.domain.events import DatabaseCopied, Event, SealingKeyAway
from lessor_server.domain.root import root_context
from lessor_server.keyring_start import KeyringStart, Ready
from lessor_server.settings.model import Settings, load
from tests.support import builders
from tests.support.recording import Recording
from tests.support.sealed_store import edit, rows_of
from tests.support.standin_control import StandIn
from tests.support.standin_fixtures import aws, url
from tests.support.stores import HandClock
from tests.support.virtual_loop import virtual

__all__ = ["aws", "url"]

ARN = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-4333-8444-555555555555"


class Away(KeyringStart):
    """A start whose key is away for the first tries."""

    tries: tuple[float, ...] = ()
    away = 8

    async def verify_once(self, _: StoredKeys) -> Ready:
        """Answer once enough tries were made."""
        Away.tries += (asyncio.get_running_loop().time(),)
        if len(self.tries) <= self.away:
            raise SealingKeyUnavailable("KMS throttles")
        return Ready(Keyring(LocalKey(bytes(32), "the key of the tests")))


@virtual
async def test_a_start_waits_longer_each_time_and_half_a_minute_at_most() -> None:
    nothing: Any = None
    events: list[Event] = []
    opened: list[float] = []
    start = asyncio.get_running_loop().time()

    async def while_away() -> None:
        opened.append(asyncio.get_running_loop().time() - start)

    Away.tries = ()
    assert await Away(load(None, {}), nothing, events.append).verify(while_away, StoredKeys())
    assert [round(at - start) for at in Away.tries] == [0, 1, 3, 7, 15, 31, 61, 91, 121]
    assert opened == [0]
    assert events == [SealingKeyAway("KMS throttles")] * Away.away


# --- a refused start changes nothing --------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data directory of a server that was killed: a part of its rows is only in the log."""
    folder, copy = tmp_path_factory.mktemp("running"), tmp_path_factory.mktemp("killed")

    async def fill() -> None:
        start = KeyringStart(settings(folder), nothing, Recording())
        async with open_store(folder, HandClock(), verify=partial(start.verify, no_wait)) as store:
            keyring = await start.open(store)
            await store.put_mount(None, builders.mount())
            sealed = keyring.seal(b"root", root_context("aws"), "1")
            await store.put_root(replace(builders.stored_root(), sealed=sealed), 0)
            for file in ("lessor.db", "lessor.db-wal", "sealing-key", "rows-sealed"):
                shutil.copy(folder / file, copy / file)

    asyncio.run(fill())
    assert (copy / "lessor.db-wal").stat().st_size > 0
    return copy


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data directory of a version without data keys."""
    folder = tmp_path_factory.mktemp("old")
    (folder / "lessor.db").write_bytes(gzip.decompress((OLD / "lessor.db.gz").read_bytes()))
    (folder / "sealing-key").write_bytes((OLD / "sealing-key").read_bytes())
    (folder / "sealing-key").chmod(0o600)
    return folder


@pytest.fixture(params=["killed", "old"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy of one of the two."""
    return Path(shutil.copytree(request.getfixturevalue(request.param), tmp_path / "data"))


nothing: Any = None
OLD = Path(__file__).parents[1] / "fixtures" / "data_of_ea658e4"
ANOTHER = base64.b64encode(bytes(32)).decode()


def settings(folder: Path, **variables: str) -> Settings:
    """Return the settings of a server with a data directory."""
    return load(None, {"LESSOR_DATA_DIR": str(folder), **variables})


def under_kms(aws: StandIn) -> dict[str, str]:
    """Return the settings of a server with its sealing key in the stand-in."""
    key = f"awskms:{ARN}?endpoint={aws.url}"
    return {"LESSOR_SEALING_KEY": key, "LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}


@pytest.fixture
def ambient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the process credentials, as a role of its machine would."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAAMBIENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")


async def no_wait() -> None:
    """Fail: no key of these tests is away."""
    raise AssertionError


def content_of(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file of a data directory, but for its lock."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "lessor.lock"}


Damage = Callable[[Path], object]
KEY = "sealing-key"
DAMAGES: dict[str, tuple[Damage, dict[str, str], type[Exception]]] = {
    "another key": (lambda data: (data / KEY).write_bytes(bytes(32)), {}, SealingKeyMismatch),
    "no key": (lambda data: (data / KEY).unlink(), {}, SealingKeyMismatch),
    "a key that others can read": (lambda data: (data / KEY).chmod(0o644), {}, SealingKeyUnusable),
    "a short key": (lambda data: (data / KEY).write_bytes(bytes(31)), {}, SealingKeyUnusable),
    "an empty key": (lambda data: (data / KEY).write_bytes(b""), {}, SealingKeyUnusable),
    "a variable with another key": (
        lambda data: (data / KEY).unlink(),
        {"LESSOR_SEALING_KEY": "env:THE_KEY", "THE_KEY": ANOTHER},
        SealingKeyMismatch,
    ),
    "a variable that is not set": (lambda _: None, {"LESSOR_SEALING_KEY": "env:NO_KEY"}, SealingKeyUnusable),
    "a variable without base64": (
        lambda _: None,
        {"LESSOR_SEALING_KEY": "env:THE_KEY", "THE_KEY": "not base64"},
        SealingKeyUnusable,
    ),
    "a variable with a short key": (
        lambda _: None,
        {"LESSOR_SEALING_KEY": "env:THE_KEY", "THE_KEY": "c2hvcnQ="},
        SealingKeyUnusable,
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
async def test_a_refused_start_changes_no_byte(
    data: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database of an earlier version is not even migrated."""
    damage, variables, error = DAMAGES[name]
    damage(data)
    if "THE_KEY" in variables:
        monkeypatch.setenv("THE_KEY", variables["THE_KEY"])
    given = {key: value for key, value in variables.items() if key != "THE_KEY"}
    before = content_of(data)
    start = KeyringStart(settings(data, **given), nothing, Recording())
    with pytest.raises(error):
        async with open_store(data, HandClock(), verify=partial(start.verify, no_wait)):
            pass
    assert content_of(data) == before


@pytest.mark.parametrize("other", ["killed", "old"])
async def test_the_key_of_another_database_changes_no_byte(
    data: Path, other: str, request: pytest.FixtureRequest
) -> None:
    key = (request.getfixturevalue(other) / KEY).read_bytes()
    if key == (data / KEY).read_bytes():
        return
    (data / KEY).write_bytes(key)
    before = content_of(data)
    start = KeyringStart(settings(data), nothing, Recording())
    with pytest.raises(SealingKeyMismatch):
        async with open_store(data, HandClock(), verify=partial(start.verify, no_wait)):
            pass
    assert content_of(data) == before


@pytest.mark.parametrize(
    "trouble", ["AccessDeniedException", "ThrottlingException", "Disabled", "PendingDeletion"]
)
async def test_while_kms_refuses_no_byte_is_changed(
    old: Path, tmp_path: Path, aws: StandIn, trouble: str, ambient: None
) -> None:
    """Neither of a database under KMS, nor of one of an earlier version that is to come under it."""
    data = Path(shutil.copytree(old, tmp_path / "data"))
    of_kms = under_kms(aws)
    for _ in range(2):
        if "Exception" in trouble:
            await aws.kms(fault=trouble)
        else:
            await aws.kms(arn=ARN, state=trouble)
        before = content_of(data)
        start = KeyringStart(settings(data, **of_kms), nothing, Recording())
        with pytest.raises(SealingKeyUnavailable):
            async with open_store(data, HandClock(), verify=start.verify_once):  # type: ignore[arg-type]
                pass
        assert content_of(data) == before
        await aws.kms(arn=ARN, state="Enabled", fault="")
        async with open_store(data, HandClock(), verify=partial(start.verify, no_wait)) as store:
            await start.open(store)


async def test_a_removed_kms_key_changes_no_byte(
    old: Path, tmp_path: Path, aws: StandIn, ambient: None
) -> None:
    await aws.kms(arn=ARN, state="Removed")
    data = Path(shutil.copytree(old, tmp_path / "data"))
    before = content_of(data)
    of_kms = under_kms(aws)
    start = KeyringStart(settings(data, **of_kms), nothing, Recording())
    with pytest.raises(SealingKeyUnusable):
        async with open_store(data, HandClock(), verify=partial(start.verify, no_wait)):
            pass
    assert content_of(data) == before


# --- the file that says that rows are sealed ------------------------------------------------------------


STRIPPED = (
    "DELETE FROM sealing_keys",
    "DELETE FROM row_macs",
    "UPDATE leases SET mac = x''",
    "DELETE FROM roots",
    "DELETE FROM rotations",
)
"""Statements that make a database look like one of an earlier version."""


@pytest.mark.parametrize("marker", ["as it was", "edited", "emptied"])
async def test_a_database_without_its_keys_and_macs_is_refused_by_the_marker(
    killed: Path, tmp_path: Path, marker: str
) -> None:
    """That the file is there counts, and not what is in it."""
    data = Path(shutil.copytree(killed, tmp_path / "data"))
    edit(data, *STRIPPED)
    if marker != "as it was":
        (data / "rows-sealed").write_text("" if marker == "emptied" else "nothing is sealed")
    before = content_of(data)
    with pytest.raises(SealingKeyMismatch, match="has had them"):
        await upgrade(data)
    assert content_of(data) == before


async def test_a_deleted_marker_is_created_again(killed: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(killed, tmp_path / "data"))
    (data / "rows-sealed").unlink()
    await upgrade(data)
    assert (data / "rows-sealed").stat().st_mode & 0o777 == 0o600
    edit(data, *STRIPPED)
    with pytest.raises(SealingKeyMismatch):
        await upgrade(data)


# --- the copy before an upgrade -------------------------------------------------------------------------


async def upgrade(data: Path) -> list[Event]:
    """Start once on a data directory; return the events."""
    events = Recording()
    start = KeyringStart(settings(data), nothing, events)
    async with open_store(data, HandClock(), events, partial(start.verify, no_wait)) as store:
        await start.open(store)
    return events.events


async def test_a_database_of_an_earlier_version_is_copied_before_its_upgrade(
    old: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(old, tmp_path / "data"))
    copied = [event for event in await upgrade(data) if isinstance(event, DatabaseCopied)]
    assert copied == [DatabaseCopied("lessor.db.before-0006", migrations()[-1][0])]
    copy = data / copied[0].name
    assert copy.stat().st_mode & 0o777 == 0o600
    assert rows_of(old, "PRAGMA user_version") != rows_of(data, "PRAGMA user_version")
    assert not [event for event in await upgrade(data) if isinstance(event, DatabaseCopied)]
    restored = tmp_path / "restored"
    restored.mkdir()
    copy.rename(restored / "lessor.db")
    for table in ("roots", "roles", "leases", "rotations", "mounts"):
        assert rows_of(restored, f"SELECT * FROM {table}") == rows_of(old, f"SELECT * FROM {table}")
    assert rows_of(restored, "PRAGMA user_version") == rows_of(old, "PRAGMA user_version")
    shutil.copy(old / KEY, restored)
    await upgrade(restored)
    assert rows_of(restored, "SELECT value FROM meta WHERE key = 'held'") == [("STORE_ROLLED_BACK",)]


async def test_without_room_for_the_copy_the_upgrade_does_not_begin(old: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(old, tmp_path / "data"))
    (data / "lessor.copy").mkdir()  # the name of a half copy
    before = content_of_files(data)
    with pytest.raises(CopyBeforeUpgradeFailed):
        await upgrade(data)
    assert content_of_files(data) == before
    (data / "lessor.copy").rmdir()
    assert await upgrade(data)


def content_of_files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of the database and the keys."""
    return {name: (folder / name).read_bytes() for name in ("lessor.db", KEY)}
