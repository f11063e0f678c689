"""Checks ``lessor sealing rewrap`` where it fails or is killed: one of the two keys opens everything."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner

from lessor.cli.main import root as cli
from lessor_server.adapters.sealing.key_file import KeyFile
from lessor_server.adapters.sealing.keyring import Keyring
from lessor_server.adapters.sealing.local_key import LocalKey
from lessor_server.adapters.sqlite.store import SqliteStore, open_store
from lessor_server.commands.sealing import read_given_key, rewrap_data_keys
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.errors.sealing import SealingKeyMismatch, SealingKeyUnavailable, SealingKeyUnusable
from lessor_server.domain.root import root_context
from lessor_server.domain.sealing_key import SealingKeyPlace, parse_sealing_key
from lessor_server.keyring_start import KeyringStart
from lessor_server.settings.model import Settings, load
from tests.support import builders
from tests.support.recording import Recording
from tests.support.standin_control import StandIn
from tests.support.standin_fixtures import aws, url
from tests.support.stores import HandClock

__all__ = ["aws", "url"]

NOTHING: Any = None
ARN = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-4333-8444-555555555555"


def settings(folder: Path, key: str = "", allowed: str = "") -> Settings:
    """Return the settings of a server with its data in ``folder``."""
    given = {"LESSOR_SEALING_KEY": key, "LESSOR_AWS_ALLOWED_ENDPOINTS": allowed}
    chosen = {name: value for name, value in given.items() if value}
    return load(None, {"LESSOR_DATA_DIR": str(folder / "data"), **chosen})


@asynccontextmanager
async def started(folder: Path, key: str = "") -> AsyncIterator[tuple[SqliteStore, Keyring]]:
    """Open the store as a start with this sealing key does."""
    start = KeyringStart(settings(folder, key), NOTHING, Recording())
    async with open_store(folder / "data", HandClock(), verify=start.verify_once) as store:  # type: ignore[arg-type]
        yield store, await start.open(store)


@pytest_asyncio.fixture(name="folder", params=[1, 2], ids=["one key", "two keys"])
async def fill(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a folder with a data directory that has a sealed root; with two keys a rotation was killed."""
    (tmp_path / "data").mkdir()
    async with started(tmp_path) as (store, keyring):
        await store.put_mount(None, builders.mount())
        sealed = keyring.seal(b"root", root_context("aws"), "1")
        await store.put_root(replace(builders.stored_root(), sealed=sealed), 0)
        if request.param > 1:
            await store.add_data_key(await keyring.make())
    return tmp_path


async def require_root(folder: Path, key: str = "") -> None:
    """Check that a start with this key opens the root."""
    async with started(folder, key) as (store, keyring):
        root = await store.get_root("aws")
        assert root is not None
        assert keyring.open(root.sealed, root_context("aws"), "1") == b"root"
        assert (await store.load_issue_context("aws", "app")).root is not None


def new_key(folder: Path) -> SealingKeyPlace:
    """Return the place of the new key."""
    return parse_sealing_key(f"file:{folder}/new-key")


def content_of(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file of the data directory, but for its lock."""
    files = (folder / "data").iterdir()
    return {file.name: file.read_bytes() for file in files if file.name != "lessor.lock"}


async def test_a_rewrap_that_was_killed_before_its_commit_is_repeated(folder: Path) -> None:
    """The file of the new key is there, and nothing else: all wrapped keys change in one transaction."""
    new = new_key(folder)
    key = KeyFile.load_or_make(folder / "new-key")
    await require_root(folder)
    with pytest.raises(SealingKeyMismatch):
        await require_root(folder, str(new))
    assert await rewrap_data_keys(settings(folder), new) >= 1
    assert KeyFile.load(folder / "new-key") == key
    await require_root(folder, str(new))


async def test_after_the_commit_the_new_key_alone_opens_everything(folder: Path) -> None:
    """A kill after that only loses the message."""
    new = new_key(folder)
    await rewrap_data_keys(settings(folder), new)
    before = content_of(folder)
    with pytest.raises(SealingKeyMismatch):
        await rewrap_data_keys(settings(folder), new)
    with pytest.raises(SealingKeyMismatch):
        await require_root(folder)
    assert content_of(folder) == before
    await require_root(folder, str(new))


@pytest.mark.parametrize(
    ("to", "error"),
    [
        ("env:NO_SUCH_VARIABLE", SealingKeyUnusable),
        (f"awskms:{ARN}?endpoint=http://127.0.0.1:1", SealingKeyUnusable),
        ("file:{folder}/short", SealingKeyUnusable),
        ("file:{folder}/nowhere/key", OSError),
    ],
)
async def test_a_new_key_that_can_not_be_used_changes_no_byte(
    folder: Path, to: str, error: type[Exception]
) -> None:
    (folder / "short").write_bytes(b"short")
    (folder / "short").chmod(0o600)
    before = content_of(folder)
    with pytest.raises(error):
        await rewrap_data_keys(settings(folder), parse_sealing_key(to.format(folder=folder)))
    assert content_of(folder) == before


async def test_a_kms_that_does_not_wrap_changes_no_byte(
    folder: Path, aws: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAAMBIENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
    await aws.kms(fault="AccessDeniedException")
    before = content_of(folder)
    with pytest.raises(SealingKeyUnavailable, match="does not encrypt now"):
        await rewrap_data_keys(
            settings(folder, allowed=aws.url), parse_sealing_key(f"awskms:{ARN}?endpoint={aws.url}")
        )
    assert content_of(folder) == before


async def test_a_wrong_old_key_makes_no_new_one(folder: Path) -> None:
    (folder / "data" / "sealing-key").write_bytes(bytes(32))
    before = content_of(folder)
    with pytest.raises(LessorError) as raised:
        await rewrap_data_keys(settings(folder), new_key(folder))
    assert "--config" in raised.value.fix
    assert content_of(folder) == before
    assert not (folder / "new-key").exists()


KEY = bytes(range(32))
SECRETS = {
    "hex": KEY.hex(),
    "hex with colons": KEY.hex(":"),
    "31 bytes": base64.b64encode(KEY[:31]).decode(),
    "33 bytes": base64.b64encode(KEY + b"x").decode(),
    "after env:": f"env:{base64.b64encode(KEY).decode()}",
    "after awskms:": f"awskms:{base64.b64encode(KEY).decode()}",
    "another scheme": f"base64:{base64.b64encode(KEY).decode()}",
}


@pytest.mark.parametrize("written", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("command", ["variable", "option", "file"])
def test_a_text_that_may_be_a_key_is_never_shown(
    command: str, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESSOR_DATA_DIR", str(tmp_path))
    rewrap, words = ["sealing", "rewrap", "--to"], ["server", "--check", "--config", str(tmp_path / "toml")]
    (tmp_path / "toml").write_text(f'[sealing]\nkey = "{written}"\n' if command == "file" else "")
    if command == "variable":
        monkeypatch.setenv("LESSOR_SEALING_KEY", written)
    if command != "file":
        words = [*rewrap, written if command == "option" else f"file:{tmp_path}/new"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code in {1, 2}
    assert "file:PATH" in result.output
    secret = written.rpartition(":")[2] if ":" in written[:8] else written
    assert not [at for at in range(len(secret) - 7) if secret[at : at + 8] in result.output]
    assert command != "variable" or "lessor server:" not in result.output


@pytest.mark.parametrize("wrap", [" {}{}", "{}{}\n", "{}\n{}\n"])
def test_a_key_in_base64_is_read_with_blanks_and_line_ends(wrap: str) -> None:
    """As ``base64`` without ``-w0`` writes it."""
    key = base64.b64encode(KEY).decode()
    given = read_given_key({"LESSOR_SEALING_KEY": wrap.format(key[:20], key[20:])})
    assert given is not None
    assert given.id == LocalKey(KEY, "").id


@pytest.mark.parametrize(
    ("to", "environment", "says"),
    [
        ("env:NO_SUCH", {}, "--to"),
        ("file:{folder}/nowhere/key", {}, "{folder}/nowhere/key cannot be used"),
        ("file:{folder}/nowhere/key", {}, "--to"),
        ("file:{folder}/new", {"LESSOR_DATA_DIR": "{folder}/none"}, "LESSOR_DATA_DIR"),
        ("file:{folder}/new", {"LESSOR_SEALING_KEY": "file:{folder}/none"}, "LESSOR_SEALING_KEY"),
        ("file:{folder}/new", {"LESSOR_SEALING_KEY": base64.b64encode(KEY).decode()}, "LESSOR_SEALING_KEY"),
    ],
)
def test_a_failed_rewrap_says_what_to_give_and_never_to_give_up_the_roots(
    to: str, environment: dict[str, str], says: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESSOR_DATA_DIR", str(folder / "data"))
    given = {name: value.format(folder=folder) for name, value in environment.items()}
    result = CliRunner().invoke(cli, ["sealing", "rewrap", "--to", to.format(folder=folder)], env=given)
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 1
    assert says.format(folder=folder) in result.output
    assert "ACCEPT_MISMATCH" not in result.output


async def test_another_user_than_the_servers_does_not_rewrap(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root does, whose key the server could not read."""
    before, user = content_of(folder), os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(SealingKeyMismatch, match="another user") as raised:
        await rewrap_data_keys(settings(folder), new_key(folder))
    assert "runuser" in raised.value.fix
    assert content_of(folder) == before
    assert not (folder / "new-key").exists()
