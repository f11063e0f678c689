"""Checks the start of a server on PostgreSQL while another one stores or rotates the data key."""

from __future__ import annotations

import base64
import errno
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support import builders
from tests.support.postgres import shared_postgres
from tests.support.recording import Recording

from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.postgres.clock import DatabaseWall
from lessor_server.adapters.postgres.store import Opening, open_postgres
from lessor_server.adapters.postgres.target import DatabaseTarget
from lessor_server.adapters.sealing.keyring import Keyring
from lessor_server.adapters.sql.stored_keys import StoredKeys
from lessor_server.domain.events import TamperedRow
from lessor_server.domain.sealing_key import SealingKeyKind, SealingKeyPlace
from lessor_server.engine.background import BackgroundTasks
from lessor_server.engine.sealing_ports import RowSeals
from lessor_server.engine.upkeep.sealing_keys import SealingKeys
from lessor_server.keyring_start import KeyringStart
from lessor_server.settings.model import Settings, load

nothing: Any = None


async def no_wait() -> None:
    """Fail: the key of these tests is in a file."""
    raise AssertionError


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of servers on an empty database."""
    key = tmp_path / "sealing-key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    url = shared_postgres().create_database(f"keys_{tmp_path.name}_{tmp_path.parent.name}")
    return load(
        None,
        {
            "LESSOR_STORE_URL": url,
            "LESSOR_SEALING_KEY": f"file:{key}",
            "LESSOR_ROOT_TOKEN": "a-root-token-of-tests",
        },
    )


async def rotate(store: object, keyring: Keyring) -> None:
    """Rotate the data key, as a server that knows of no other."""
    work: BackgroundTasks = nothing
    await SealingKeys(store, keyring, Recording(), work)._rotate("test")  # type: ignore[arg-type]


async def test_a_start_reads_the_keys_again_if_they_were_rotated_after_it_had_read_them(
    settings: Settings,
) -> None:
    target, clock, events = DatabaseTarget(settings.store.url), SystemClock(), Recording()
    first = KeyringStart(settings, nothing, Recording())
    verify = partial(first.verify, no_wait)
    async with open_postgres(target, DatabaseWall(clock), Opening(verify=verify)) as store:
        keyring = await first.open(store)
        await store.put_mount(None, builders.mount())
        await store.set_expiry_hold("BY_CALLER")
        second = KeyringStart(settings, nothing, events)

        async def verify_slowly(stored: StoredKeys) -> RowSeals | None:
            found = await second.verify(no_wait, stored)
            await rotate(store, keyring)
            return found

        opening = Opening(notify=events, verify=verify_slowly)
        async with open_postgres(target, DatabaseWall(clock), opening) as late:
            late_keyring = await second.open(late)
            assert (await late.status()).expiry_hold == (await store.status()).expiry_hold == "BY_CALLER"
            assert await late.list_mounts("", 2) == await store.list_mounts("", 2) == [builders.mount()]
            assert late_keyring.active_id == keyring.active_id
    assert not [event for event in events.events if isinstance(event, TamperedRow)]


async def test_a_key_file_that_cannot_be_read_is_not_an_error_of_the_database(settings: Settings) -> None:
    async def verify(_: StoredKeys) -> RowSeals | None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "sealing-key")

    with pytest.raises(PermissionError, match="sealing-key"):
        async with open_postgres(
            DatabaseTarget(settings.store.url), DatabaseWall(SystemClock()), Opening(verify=verify)
        ):
            pass


async def test_of_servers_that_start_together_one_stores_a_key_which_the_other_opens_without_its_variable(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable is removed when the key was verified."""
    target, clock = DatabaseTarget(settings.store.url), SystemClock()
    in_variable = SealingKeyPlace(SealingKeyKind.ENVIRONMENT, "THE_KEY")
    sealing = settings.sealing.model_copy(update={"key": in_variable})
    settings = settings.model_copy(update={"sealing": sealing})
    first, second = (KeyringStart(settings, nothing, Recording()) for _ in range(2))

    async def verify_both(stored: StoredKeys) -> RowSeals | None:
        for start in (first, second):
            monkeypatch.setenv("THE_KEY", base64.b64encode(bytes(32)).decode())
            await start.verify(no_wait, stored)
        return None

    opening = Opening(verify=verify_both)
    async with (
        open_postgres(target, DatabaseWall(clock), opening) as store,
        open_postgres(target, DatabaseWall(clock)) as late,
    ):
        keyring = await first.open(store)
        assert (await second.open(late)).active_id == keyring.active_id
    assert "THE_KEY" not in os.environ
