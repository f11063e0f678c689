"""Fills a data directory with rows of each kind, for attacks on a copy of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from lessor_server.adapters.sqlite.store import FILE, SqliteStore
from lessor_server.domain.lease import Request
from lessor_server.domain.root import root_context
from lessor_server.domain.rotation import Rotation, key_context, static_subject
from lessor_server.domain.schedule import Schedule
from tests.support import builders, lease_steps
from tests.support.sealed_store import open_with_keyring
from tests.support.stores import SPAN

REQUEST = Request("11111111-2222-4333-8444-555555555555", "digest")
STATIC, WEEKLY = static_subject("aws", "nightly"), static_subject("aws", "weekly")
SCHEDULE = Schedule(timedelta(days=7))


def static(**changes: object) -> Rotation:
    """Return a static role's row."""
    plain = Rotation(STATIC, schedule=SCHEDULE, account=builders.ACCOUNT, user_name="nightly", user_id="AIDA")
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a data directory with rows of each kind in two mounts, and the id of its lease."""
    folder = tmp_path_factory.mktemp("filled")
    async with open_with_keyring(folder) as (store, keyring):
        for name in ("aws", "lab"):
            await store.put_mount(None, builders.mount(name))
            sealed = keyring.seal(b"root of " + name.encode(), root_context(name), "1")
            await store.put_root(replace(builders.stored_root(name), sealed=sealed), 0)
            await store.put_role(builders.role(mount_name=name), None)
        await store.put_role(builders.role("other"), None)
        sealed = keyring.seal(b"secret", key_context(STATIC), "AKIA1")
        added = await store.add_rotation(static(current="AKIA1", sealed=sealed))
        assert added is not None
        await store.move_rotation(added, done=True)
        begun = await store.begin(builders.intent(request=REQUEST, policy_rule="aws/creds/*"), SPAN)
        assert await lease_steps.activate(store, begun, "AKIA2") is not None
    return folder, begun.id


@pytest.fixture
def data(filled: tuple[Path, str], tmp_path: Path) -> Path:
    """Return a copy of that directory, for one attack."""
    shutil.copy(filled[0] / FILE, tmp_path / FILE)
    return tmp_path


@pytest.fixture
def lease_id(filled: tuple[Path, str]) -> str:
    """Return the lease's id."""
    return filled[1]


async def context_of(store: SqliteStore, role: str = "app", mount: str = "aws") -> object:
    """Read what an issue needs."""
    return await store.load_issue_context(mount, role, "root", REQUEST.id)
