"""Checks that a server that can't start prints every problem of its settings, or one line with the cause."""

from __future__ import annotations

import resource
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.bad_starts import BAD_SETTINGS, BAD_START, ended, refuses_to_start
from tests.support.clients import connect
from tests.support.server_process import TOKEN, serving

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data directory of a server that ran and was stopped."""
    folder = tmp_path_factory.mktemp("stopped")
    async with serving(folder) as server:
        await server.stop()
    return folder / "data"


@pytest.fixture
def data(stopped: Path, tmp_path: Path) -> Path:
    """Copy that data directory for one test to damage."""
    return Path(shutil.copytree(stopped, tmp_path / "data"))


# --- settings -------------------------------------------------------------------------------------------


async def test_every_problem_of_the_settings_is_printed(tmp_path: Path) -> None:
    """The token is not printed."""
    end = await ended(
        tmp_path,
        LESSOR_LISTEN="nonsense",
        LESSOR_AWS_RATE="-1",
        LESSOR_DATA_DIRR="x",
        LESSOR_ROOT_TOKEN="tooshort",
    )
    assert end.code == BAD_SETTINGS
    for name in ("LESSOR_LISTEN", "LESSOR_AWS_RATE", "LESSOR_DATA_DIRR", "LESSOR_ROOT_TOKEN"):
        assert name in end.words
    assert "LESSOR_DATA_DIR" in end.words
    assert "tooshort" not in end.words
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
async def test_problems_of_a_file_have_the_paths_of_their_keys(tmp_path: Path) -> None:
    file = tmp_path / "lessor.toml"
    file.write_text('listen = "127.0.0.1:0"\n\n[aws]\nrate = "fast"\nratte = 3\n')
    end = await ended(tmp_path, "--config", str(file), LESSOR_LISTEN="")
    assert end.code == BAD_SETTINGS
    assert f"{file}: aws.rate: " in end.words
    assert f"{file}: aws.ratte: " in end.words


@pytest.mark.slow
async def test_check_starts_nothing(tmp_path: Path) -> None:
    assert (await ended(tmp_path, "--check")).code == 0
    assert (await ended(tmp_path, "--check", LESSOR_LISTEN="0.0.0.0:0")).code == BAD_SETTINGS
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
async def test_the_client_s_variables_are_ignored(tmp_path: Path) -> None:
    names = ("ADDR", "TOKEN", "TOKEN_FILE", "CACERT", "CLIENT_CERT", "CLIENT_KEY")
    end = await ended(tmp_path, "--check", **{f"LESSOR_{name}": "x" for name in names})
    assert end.code == 0


# --- starts that fail -----------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_busy_port_stops_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address in await refuses_to_start(tmp_path, LESSOR_LISTEN=address)


async def test_a_second_server_on_the_same_data_names_the_first(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert str(server.pid) in await refuses_to_start(tmp_path)
        async with connect(server.address, server.token) as lessor:
            assert (await lessor.info()).instance_id


@pytest.mark.slow
async def test_a_file_that_is_not_a_database_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    file = tmp_path / "data" / "lessor.db"
    file.write_bytes(b"this is no database" * 500)
    assert "database" in await refuses_to_start(tmp_path)
    assert file.read_bytes().startswith(b"this is no database")


@pytest.mark.slow
async def test_a_database_with_a_damaged_page_stops_the_start(tmp_path: Path, data: Path) -> None:
    file = data / "lessor.db"
    content = file.read_bytes()
    file.write_bytes(content[:200] + b"\xff" * (len(content) - 200))
    assert "database" in await refuses_to_start(tmp_path)


@pytest.mark.parametrize("name", ["lessor.db", "sealing-key"])
async def test_a_folder_in_the_place_of_a_file_stops_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / "data" / name).mkdir(parents=True)
    line = await refuses_to_start(tmp_path)
    assert str(tmp_path / "data" / name) in line


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lessor.lock", "lessor.db-wal", "root-token"])
async def test_other_folders_in_the_place_of_a_file_stop_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / "data" / name).mkdir(parents=True)
    await refuses_to_start(tmp_path, LESSOR_ROOT_TOKEN="")


async def test_a_database_without_a_table_stops_the_start(tmp_path: Path, data: Path) -> None:
    with sqlite3.connect(data / "lessor.db") as connection:
        connection.execute("DROP TABLE rotations")
    connection.close()
    assert "rotations" in await refuses_to_start(tmp_path)


@pytest.mark.slow
async def test_a_newer_database_is_refused(tmp_path: Path, data: Path) -> None:
    with sqlite3.connect(data / "lessor.db") as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    assert "999" in await refuses_to_start(tmp_path)


@pytest.mark.slow
async def test_another_program_s_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    with sqlite3.connect(tmp_path / "data" / "lessor.db") as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    assert "another program" in await refuses_to_start(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "lessor.db", "lessor.lock"])
async def test_a_data_directory_that_others_can_write_to_is_refused(
    tmp_path: Path, data: Path, name: str
) -> None:
    (data / name).chmod(0o777)
    for flags in ((), ("--check",)):
        end = await ended(tmp_path, *flags)
        assert end.code == BAD_SETTINGS
        (line,) = end.words.splitlines()
        assert line.endswith(f"run chmod go-w {data / name}")


@pytest.mark.slow
async def test_a_token_that_every_user_can_read_is_warned_of(tmp_path: Path) -> None:
    """In the log and by GetInfo."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    settings = {"LESSOR_ROOT_TOKEN_FILE": str(file)}
    async with serving(tmp_path, settings, without=("LESSOR_ROOT_TOKEN",)) as server:
        async with connect(server.address, TOKEN) as lessor:
            warnings = (await lessor.info()).warnings
        (warning,) = [one for one in warnings if f"run chmod o-r {file}" in one]
        assert warning in [line.get("warning") for line in server.log()]


@pytest.mark.slow
async def test_a_sealing_key_that_others_can_read_is_refused(tmp_path: Path, data: Path) -> None:
    (data / "sealing-key").chmod(0o644)
    assert "sealing-key" in await refuses_to_start(tmp_path)


@pytest.mark.slow
async def test_a_truncated_sealing_key_is_refused(tmp_path: Path, data: Path) -> None:
    file = data / "sealing-key"
    file.write_bytes(file.read_bytes()[:10])
    assert "sealing-key" in await refuses_to_start(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["a file", "below a file", "no place for folders"])
async def test_a_data_directory_that_can_t_be_created_stops_the_start(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    places = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "data"}
    end = await ended(tmp_path, LESSOR_DATA_DIR=str(places.get(where, "/proc/lessor")))
    assert end.code in (BAD_START, BAD_SETTINGS)
    assert len(end.words.splitlines()) == 1


@pytest.mark.slow
async def test_a_full_disk_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        await refuses_to_start(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", ["missing", "empty", "directory"])
@pytest.mark.parametrize("flags", [(), ("--check",)])
async def test_an_invalid_ca_bundle_stops_the_start(
    tmp_path: Path, kind: str, flags: tuple[str, ...]
) -> None:
    """The SDK would report it at its first connection, without the path."""
    path = tmp_path / "bundle.pem"
    if kind == "empty":
        path.write_text("no certificate\n", encoding="utf-8")
    elif kind == "directory":
        path.mkdir()
    end = await ended(tmp_path, *flags, AWS_CA_BUNDLE=str(path))
    assert end.code == BAD_SETTINGS
    assert str(path) in end.words
    assert "AWS_CA_BUNDLE" in end.words
