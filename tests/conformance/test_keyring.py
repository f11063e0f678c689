"""Checks the rotation of the data key and the upgrade of earlier databases, with a kill at every step."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import builders, lease_steps
from tests.support.filled_store import SCHEDULE, STATIC
from tests.support.recording import Recording
from tests.support.sealed_store import WRAPPING, edit, open_with_keyring, rows_of
from tests.support.stores import SPAN, HandClock, bench

from lessor_server.adapters.sealing.aesgcm import UNDER_DATA_KEY, key_id_of
from lessor_server.adapters.sealing.keyring import Keyring
from lessor_server.adapters.sealing.local_key import LocalKey
from lessor_server.adapters.sqlite.store import FILE, SqliteStore, open_store
from lessor_server.domain.errors.preconditions import SealBroken
from lessor_server.domain.errors.sealing import RowTampered
from lessor_server.domain.lease_id import EVERYTHING
from lessor_server.domain.root import root_context
from lessor_server.domain.rotation import Rotation, key_context
from lessor_server.engine.background import BackgroundTasks
from lessor_server.engine.upkeep.sealing_keys import SealingKeys

FIXTURE = Path(__file__).parents[1] / "fixtures" / "data_of_ea658e4"
"""A data directory that the commit ea658e4 wrote: two mounts, a root, roles, a static role, four leases."""
FIXTURE_REQUEST = "11111111-1111-4111-8111-111111111111"


class Killed(BaseException):
    """The process dies here."""


class Dying:
    """A store whose process dies before or after its nth write."""

    def __init__(self, store: SqliteStore, at: int, *, after: bool) -> None:
        """Die at the write with this number."""
        self._store, self._left, self._after = store, at, after

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        method = getattr(self._store, name)

        async def call(*args: object) -> object:
            if name == "list_data_keys":
                return await method(*args)
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Killed
            result = await method(*args)
            if self._left == 0:
                raise Killed
            return result

        return call


def rotation_on(store: object, keyring: Keyring) -> SealingKeys:
    """Return what rotates the keys of a store; its rotation runs in the caller's task."""
    work: BackgroundTasks = None  # type: ignore[assignment]
    return SealingKeys(store, keyring, Recording(), work)  # type: ignore[arg-type]


async def rotate(store: object, keyring: Keyring) -> int:
    """Rotate the data key; return how many values were sealed again."""
    return (await rotation_on(store, keyring)._rotate("test")).resealed


async def fill(folder: Path) -> list[str]:
    """Store rows of each kind; return the ids of the leases."""
    async with open_with_keyring(folder) as (store, keyring):
        for name in ("aws", "lab"):
            await store.put_mount(None, builders.mount(name))
            sealed = keyring.seal(f"root of {name}".encode(), root_context(name), "1")
            await store.put_root(replace(builders.stored_root(name), sealed=sealed), 0)
            await store.put_role(builders.role(mount_name=name), None)
        sealed = keyring.seal(b"secret", key_context(STATIC), "AKIA1")
        row = Rotation(STATIC, SCHEDULE, user_name="nightly", user_id="AIDA", current="AKIA1", sealed=sealed)
        added = await store.add_rotation(row)
        assert added is not None
        fresh = keyring.seal(b"fresh", key_context(STATIC), "AKIA2")
        await store.move_rotation(replace(added, fresh="AKIA2", fresh_sealed=fresh), done=True)
        await store.set_expiry_hold("asked")
        leases = [await store.begin(builders.intent(number), SPAN) for number in range(5)]
        for lease in leases[:3]:
            assert await lease_steps.activate(store, lease, "AKIA") is not None
        return [lease.id for lease in leases]


async def require_all(store: SqliteStore, keyring: Keyring) -> None:
    """Check that every row grants, and that every secret opens."""
    for mount in ("aws", "lab"):
        found = await store.load_issue_context(mount, "app")
        assert found.root is not None
        assert keyring.open(found.root.sealed, root_context(mount), "1").decode() == f"root of {mount}"
    row = await store.get_rotation(STATIC)
    assert row is not None
    assert keyring.open(row.sealed, key_context(STATIC), row.current) == b"secret"
    assert keyring.open(row.fresh_sealed, key_context(STATIC), row.fresh_version) == b"fresh"
    leases = await store.page(EVERYTHING, None, "", 100)
    assert leases
    assert not any(lease.tampered for lease in leases)
    status = await store.status()
    assert (status.expiry_hold, status.tampered_rows) == ("asked", ())


def require_one_key(folder: Path) -> str:
    """Check that one data key is left, which all rows use; return its id."""
    ((key_id,),) = rows_of(folder, "SELECT id FROM sealing_keys")
    sealed = rows_of(folder, "SELECT sealed FROM roots UNION ALL SELECT sealed FROM rotations")
    sealed += rows_of(folder, "SELECT fresh_sealed FROM rotations")
    assert {
        key_id_of(value, UNDER_DATA_KEY) for (value,) in sealed if isinstance(value, bytes) and value
    } == {key_id}
    macs = rows_of(folder, "SELECT mac FROM leases UNION ALL SELECT mac FROM row_macs")
    assert {mac[:8].hex() for (mac,) in macs if isinstance(mac, bytes)} == {key_id}
    return str(key_id)


async def test_after_a_rotation_everything_is_under_the_new_key(tmp_path: Path) -> None:
    await fill(tmp_path)
    before = require_one_key(tmp_path)
    async with open_with_keyring(tmp_path) as (store, keyring):
        old = await store.get_root("aws")
        assert await rotate(store, keyring) == 4
        await require_all(store, keyring)
        assert old is not None
        with pytest.raises(SealBroken, match="another key"):
            keyring.open(old.sealed, root_context("aws"), "1")
    assert require_one_key(tmp_path) != before
    async with open_with_keyring(tmp_path) as (store, keyring):
        await require_all(store, keyring)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, 8))
async def test_a_rotation_that_was_killed_is_finished_by_the_next_start(
    tmp_path: Path, step: int, after: bool
) -> None:
    await fill(tmp_path)
    before = require_one_key(tmp_path)
    died = False
    try:
        async with open_with_keyring(tmp_path) as (store, keyring):
            await rotate(Dying(store, step, after=after), keyring)
    except BaseExceptionGroup as group:
        died = bool(group.split(Killed)[0])
    assert died
    async with open_with_keyring(tmp_path) as (store, keyring):
        await require_all(store, keyring)
        await rotation_on(store, keyring).finish_earlier()
        await require_all(store, keyring)
    assert (require_one_key(tmp_path) == before) is (step == 1 and not after)


async def test_what_is_written_between_two_steps_is_under_the_new_key(tmp_path: Path) -> None:
    """Even what was sealed, or read, before the rotation began."""
    await fill(tmp_path)
    async with open_with_keyring(tmp_path) as (store, keyring):
        claimed = await store.claim_rotation(STATIC)
        assert claimed is not None
        sealed = keyring.seal(b"root of aws", root_context("aws"), "2")
        new = await keyring.make()
        await store.add_data_key(new)
        keyring.use(new.id)
        assert await store.reseal_mount("") == ("aws", 3)
        assert await store.put_root(replace(builders.stored_root(version=2), sealed=sealed), 1)
        assert await store.move_rotation(claimed, done=True)
        assert await store.reseal_mount("aws") == ("lab", 1)
        assert await store.reseal_mount("lab") is None
        first = await store.reseal_leases("", 3)
        assert first is not None
        assert await store.reseal_leases(first, 3) is not None
        await store.drop_data_keys(new.id)
    require_one_key(tmp_path)


async def test_a_rotation_does_not_make_edited_rows_authentic(tmp_path: Path) -> None:
    lease_id, *others = await fill(tmp_path)
    edit(tmp_path, "UPDATE roles SET etag = 'x' WHERE mount = 'aws'", "UPDATE roots SET account = 'x'")
    edit(tmp_path, "UPDATE leases SET owner = 'thief' WHERE id = ?", values=(lease_id,))
    async with open_with_keyring(tmp_path) as (store, keyring):
        await rotate(store, keyring)
    async with open_with_keyring(tmp_path) as (store, keyring):
        for mount in ("aws", "lab"):
            with pytest.raises(RowTampered):
                await store.load_issue_context(mount, "app")
        assert await store.get_mount("aws") is not None
        leases = {lease.id: lease.tampered for lease in await store.page(EVERYTHING, None, "", 100)}
        assert leases == {lease_id: True, **dict.fromkeys(others, False)}


async def test_a_second_rotation_finishes_the_first(tmp_path: Path) -> None:
    await fill(tmp_path)
    async with open_with_keyring(tmp_path) as (store, keyring):
        new = await keyring.make()
        await store.add_data_key(new)
        assert await rotate(store, keyring) == 4
    assert require_one_key(tmp_path) == new.id


async def test_both_kinds_of_stores_take_the_same_steps(tmp_path: Path) -> None:
    answers = []
    for kind in ("memory", "sqlite"):
        async with bench(kind, tmp_path) as b:
            await b.store.put_mount(None, builders.mount("lab"))
            lease = await b.begun()
            answers.append(
                [
                    await b.store.reseal_mount(""),
                    await b.store.reseal_mount("aws"),
                    await b.store.reseal_mount("lab"),
                    await b.store.reseal_leases("", 10),
                    await b.store.reseal_leases(lease.id, 10),
                ]
            )
    assert answers[0] == answers[1] == [("aws", 0), ("lab", 0), None, lease.id, None]


# --- the upgrade ----------------------------------------------------------------------------------------


@pytest.fixture(name="old")
def unpacked(tmp_path: Path) -> Path:
    """Return a copy of the data directory of ea658e4."""
    (tmp_path / FILE).write_bytes(gzip.decompress((FIXTURE / "lessor.db.gz").read_bytes()))
    shutil.copy(FIXTURE / "sealing-key", tmp_path)
    (tmp_path / "sealing-key").chmod(0o600)
    return tmp_path


def upgrading(old: Path) -> Keyring:
    """Return a keyring without data keys that opens the values of that directory."""
    before = LocalKey((old / "sealing-key").read_bytes(), "sealing-key").cipher
    return Keyring(WRAPPING, before)


async def test_a_database_without_data_keys_is_sealed_in_one_step(old: Path) -> None:
    async with open_store(old, HandClock()) as store:
        keyring = upgrading(old)
        assert await store.list_data_keys() == []
        first = await keyring.make()
        keyring.use(first.id)
        assert await store.begin_keyring(first, keyring) == 2
        await require_fixture(store, keyring)
    require_one_key(old)
    assert rows_of(old, "SELECT * FROM meta WHERE key = 'sealing_key'") == []
    async with open_with_keyring(old) as (store, keyring):
        await require_fixture(store, keyring)


async def require_fixture(store: SqliteStore, keyring: Keyring) -> None:
    """Check that every row of the fixture grants, and that its secrets open."""
    for role in ("app", "wide", "deploy"):
        found = await store.load_issue_context("aws", role, "root", FIXTURE_REQUEST if role == "app" else "")
        assert found.root is not None
        opened = keyring.open(found.root.sealed, root_context("aws"), str(found.root.version))
        assert b"AKIAROOTROOTROOTROOT" in opened
        assert (found.earlier is not None) is (role == "app")
        assert found.earlier is None or not found.earlier.tampered
    row = await store.get_rotation("aws/static-creds/nightly")
    assert row is not None
    assert len(keyring.open(row.sealed, key_context(row.subject), row.current)) == 40
    leases = await store.page(EVERYTHING, None, "", 100)
    assert len(leases) == 4
    assert not any(lease.tampered for lease in leases)
    status = await store.status()
    assert (status.expiry_hold, status.tampered_rows, status.unreadable_rows) == ("the fixture", (), ())


async def test_an_upgrade_that_was_killed_has_changed_nothing(old: Path) -> None:
    class Failing(Keyring):
        """Dies at the nth MAC."""

        left = 0

        def mac(self, place: str, content: object) -> bytes:
            self.left -= 1
            if self.left == 0:
                raise Killed
            return super().mac(place, content)  # type: ignore[arg-type]

    tables = ("roots", "rotations", "roles", "mounts", "meta WHERE key <> 'high_water_us'")
    edit_nothing = [f"SELECT * FROM {table}" for table in tables]
    async with open_store(old, HandClock()):
        pass  # the new schema alone
    before = [rows_of(old, query) for query in edit_nothing]
    for left in (1, 2, 5, 9, 13):
        keyring = Failing(WRAPPING, LocalKey((old / "sealing-key").read_bytes(), "").cipher)
        first = await keyring.make()
        keyring.use(first.id)
        keyring.left = left
        with pytest.raises(BaseExceptionGroup):
            async with open_store(old, HandClock()) as store:
                await store.begin_keyring(first, keyring)
        assert [rows_of(old, query) for query in edit_nothing] == before
        assert rows_of(old, "SELECT 1 FROM sealing_keys UNION ALL SELECT 1 FROM row_macs") == []
    async with open_store(old, HandClock()) as store:
        keyring = upgrading(old)
        first = await keyring.make()
        keyring.use(first.id)
        await store.begin_keyring(first, keyring)
        await require_fixture(store, keyring)


@pytest.mark.parametrize("column", ["owner", "max_expires_us", "request_digest"])
async def test_after_the_upgrade_a_row_without_a_mac_is_tampered(old: Path, column: str) -> None:
    async with open_store(old, HandClock()) as store:
        keyring = upgrading(old)
        first = await keyring.make()
        keyring.use(first.id)
        await store.begin_keyring(first, keyring)
    edit(old, f"UPDATE leases SET mac = x'', {column} = {column}")
    async with open_with_keyring(old) as (store, _):
        assert all(lease.tampered for lease in await store.page(EVERYTHING, None, "", 100))


async def test_a_value_that_does_not_open_stays_as_it_is_in_an_upgrade(old: Path) -> None:
    """The operator sets such a root again, as before."""
    edit(old, "UPDATE roots SET sealed = x'0102'")
    async with open_store(old, HandClock()) as store:
        keyring = upgrading(old)
        first = await keyring.make()
        keyring.use(first.id)
        assert await store.begin_keyring(first, keyring) == 1
        root = await store.get_root("aws")
        assert root is not None
        assert root.sealed == b"\x01\x02"
        assert await store.load_issue_context("aws", "app")
