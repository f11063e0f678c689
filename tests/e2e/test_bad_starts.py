"""A server that can't start says why, in words: every fault of its settings at once, or one line."""

from __future__ import annotations

import asyncio
import resource
import shutil
import socket
import sqlite3
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.clients import connect
from tests.support.server_process import COMMAND, TOKEN, bare_environment, serving

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

BAD_START, BAD_SETTINGS = 1, 2


@dataclass(frozen=True, slots=True)
class Ended:
    """How a server ended that did not stay."""

    code: int
    words: str


def environment(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return what a server over ``folder/data`` is started with; an empty value takes a variable away."""
    given = {
        **bare_environment(),
        "LESSOR_LISTEN": "127.0.0.1:0",
        "LESSOR_DATA_DIR": str(folder / "data"),
        "LESSOR_ROOT_TOKEN": TOKEN,
        **variables,
    }
    return {name: value for name, value in given.items() if value}


async def ended(folder: Path, *flags: str, **variables: str) -> Ended:
    """Run a server that must end by itself; never with a stack trace."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *COMMAND,
        *flags,
        env=environment(folder, variables),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    words = out.decode()
    assert "Traceback" not in words
    assert process.returncode is not None
    return Ended(process.returncode, words)


async def refuses_to_start(folder: Path, **variables: str) -> str:
    """Assert that a start fails in one line that says how to mend it; return that line."""
    end = await ended(folder, **variables)
    assert end.code == BAD_START, end.words
    lines = [line for line in end.words.splitlines() if line.startswith("lessor")]
    assert len(lines) == 1, end.words
    return lines[0]


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


async def test_every_fault_of_the_settings_is_told_at_once(tmp_path: Path) -> None:
    """Four wrong variables are four lines, exit code 2, and the token's text is in none of them."""
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
async def test_a_file_s_faults_have_their_lines(tmp_path: Path) -> None:
    """A fault in the TOML file is told with the file and the line."""
    file = tmp_path / "lessor.toml"
    file.write_text('listen = "127.0.0.1:0"\n\n[aws]\nrate = "fast"\nratte = 3\n')
    end = await ended(tmp_path, "--config", str(file), LESSOR_LISTEN="")
    assert end.code == BAD_SETTINGS
    assert f"{file}:4" in end.words
    assert f"{file}:5" in end.words


@pytest.mark.slow
async def test_a_check_checks_and_starts_nothing(tmp_path: Path) -> None:
    """``--check`` ends with 0 for right settings and with 2 for wrong ones, and makes no data directory."""
    assert (await ended(tmp_path, "--check")).code == 0
    assert (await ended(tmp_path, "--check", LESSOR_LISTEN="0.0.0.0:0")).code == BAD_SETTINGS
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
async def test_the_client_s_variables_stop_no_server(tmp_path: Path) -> None:
    """Where a person has set up the client, a server starts all the same."""
    names = ("ADDR", "TOKEN", "TOKEN_FILE", "CACERT", "CLIENT_CERT", "CLIENT_KEY")
    end = await ended(tmp_path, "--check", **{f"LESSOR_{name}": "x" for name in names})
    assert end.code == 0


# --- starts that fail -----------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_busy_port_is_told(tmp_path: Path) -> None:
    """A second listener never shares a port unseen."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address in await refuses_to_start(tmp_path, LESSOR_LISTEN=address)


async def test_a_second_server_on_the_same_data_names_the_first(tmp_path: Path) -> None:
    """The lock on the data directory tells which process has it, and the first one does not notice."""
    async with serving(tmp_path) as server:
        assert str(server.pid) in await refuses_to_start(tmp_path)
        async with connect(server.address, server.token) as lessor:
            assert (await lessor.info()).instance_id


@pytest.mark.slow
async def test_a_broken_database_is_told(tmp_path: Path) -> None:
    """A file that is no database stops the start, and is left as it is."""
    (tmp_path / "data").mkdir(mode=0o700)
    file = tmp_path / "data" / "lessor.db"
    file.write_bytes(b"this is no database" * 500)
    assert "database" in await refuses_to_start(tmp_path)
    assert file.read_bytes().startswith(b"this is no database")


@pytest.mark.slow
async def test_a_database_with_a_broken_page_is_told(tmp_path: Path, data: Path) -> None:
    """Damage within a database of ours stops the start in words, not in a trace."""
    file = data / "lessor.db"
    content = file.read_bytes()
    file.write_bytes(content[:200] + b"\xff" * (len(content) - 200))
    assert "database" in await refuses_to_start(tmp_path)


@pytest.mark.slow
async def test_a_newer_database_is_refused(tmp_path: Path, data: Path) -> None:
    """A schema from the future is not touched."""
    with sqlite3.connect(data / "lessor.db") as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    assert "999" in await refuses_to_start(tmp_path)


@pytest.mark.slow
async def test_another_program_s_database_is_refused(tmp_path: Path) -> None:
    """A database that Lessor did not make is not made Lessor's."""
    (tmp_path / "data").mkdir(mode=0o700)
    with sqlite3.connect(tmp_path / "data" / "lessor.db") as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    assert "another program" in await refuses_to_start(tmp_path)


@pytest.mark.slow
async def test_a_sealing_key_that_others_can_read_is_refused(tmp_path: Path, data: Path) -> None:
    """What seals the roots belongs to the server alone."""
    (data / "sealing-key").chmod(0o644)
    assert "sealing-key" in await refuses_to_start(tmp_path)


@pytest.mark.slow
async def test_a_sealing_key_that_is_cut_short_is_refused(tmp_path: Path, data: Path) -> None:
    """Half a key opens nothing."""
    file = data / "sealing-key"
    file.write_bytes(file.read_bytes()[:10])
    assert "sealing-key" in await refuses_to_start(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["a file", "below a file", "no place for folders"])
async def test_a_data_directory_that_can_t_be_is_told(tmp_path: Path, where: str) -> None:
    """A file in its place, and a place where none can be made, end the start in words."""
    (tmp_path / "file").touch()
    places = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "data"}
    end = await ended(tmp_path, LESSOR_DATA_DIR=str(places.get(where, "/proc/lessor")))
    assert end.code in (BAD_START, BAD_SETTINGS)
    assert len(end.words.splitlines()) == 1


@pytest.mark.slow
async def test_a_disk_without_room_ends_the_start_in_words(tmp_path: Path) -> None:
    """A database that can't be written is told, and exit code 1."""
    (tmp_path / "data").mkdir(mode=0o700)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        await refuses_to_start(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
