"""Checks a server whose store is PostgreSQL: from outside it is the same service."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import aiohttp
import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2

from lessor.findings import Finding, Grade
from lessor.v1 import config_pb2, lease_pb2, system_pb2
from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.postgres.store import migrate_database
from lessor_server.adapters.postgres.target import DatabaseTarget
from lessor_server.commands.deep_check.run import check_set_up
from tests.support.bad_starts import refuses_to_start
from tests.support.clients import connect, nothing_left, refused, until, users_of
from tests.support.command_line import CommandLine
from tests.support.own_server import own_server
from tests.support.postgres import BINARIES, PostgresProcess, own_postgres
from tests.support.server_process import TOKEN, ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

State = lease_pb2.Lease.State
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
DATABASES = count(1)


@pytest.fixture(scope="module", name="postgres")
def own_server_of_postgres() -> Iterator[PostgresProcess]:
    """Run a PostgreSQL that the tests of this module kill."""
    with own_postgres() as postgres:
        yield postgres


@pytest.fixture(scope="module", name="key")
def sealing_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a sealing key."""
    key = tmp_path_factory.mktemp("key") / "sealing-key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    return key


@pytest.fixture(name="settings")
def settings_of_a_new_database(postgres: PostgresProcess, key: Path, aws: StandIn) -> dict[str, str]:
    """Return the settings of servers that share a new database."""
    return {
        "LESSOR_STORE_URL": postgres.create_database(f"lessor{next(DATABASES)}"),
        "LESSOR_SEALING_KEY": f"file:{key}",
        "LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url,
    }


@pytest_asyncio.fixture(loop_scope="module", name="server")
async def ready_server(
    tmp_path: Path, aws: StandIn, settings: dict[str, str]
) -> AsyncIterator[ServerProcess]:
    """Run a server with the mount `aws` and a role, over an account without users."""
    await aws.reset()
    async with own_server(tmp_path, aws, settings) as process:
        yield process


async def test_a_credential_is_issued_and_revoked_without_a_data_directory(
    server: ServerProcess, aws: StandIn
) -> None:
    async with connect(server.address, server.token) as lessor:
        lease = (await lessor.generate("aws")).lease_id
        assert len(await users_of(aws, "aws")) == 1
        assert (await lessor.info()).store_kind == "postgresql"
        await lessor.revoke(lease)
        await until(lambda: lessor.lookup(lease), lambda found: found.state == State.GONE)
    await nothing_left(aws, "aws")
    assert not server.data_dir.exists()


async def test_leases_survive_a_kill_of_the_server(
    server: ServerProcess, tmp_path: Path, settings: dict[str, str]
) -> None:
    async with connect(server.address, server.token) as lessor:
        lease = (await lessor.generate("aws")).lease_id
    await server.kill()
    await server.start(tmp_path, settings)
    async with connect(server.address, server.token) as lessor:
        assert (await lessor.lookup(lease)).state == State.ACTIVE
        assert (await lessor.generate("aws")).lease_id != lease


async def test_two_servers_share_a_database(
    server: ServerProcess, tmp_path: Path, settings: dict[str, str]
) -> None:
    """What one has written, the other honours: leases, roles and revocations."""
    second = ServerProcess()
    (tmp_path / "second").mkdir()
    await second.start(tmp_path / "second", settings)
    try:
        async with connect(server.address, TOKEN) as one, connect(second.address, TOKEN) as two:
            lease = (await one.generate("aws")).lease_id
            assert (await two.lookup(lease)).state == State.ACTIVE
            await two.put_role("aws", "other")
            assert (await one.generate("aws", "other")).lease_id
            await two.revoke(lease)
            await until(lambda: one.lookup(lease), lambda found: found.state == State.GONE)
    finally:
        await second.kill()


async def test_servers_may_start_together_on_an_empty_database(
    aws: StandIn, tmp_path: Path, settings: dict[str, str]
) -> None:
    """One creates the tables and the keyring, and the others use both; hashes of their audits are alike."""
    await aws.reset()
    servers = [ServerProcess() for _ in range(3)]
    folders = [tmp_path / f"server{number}" for number in range(3)]
    try:
        async with asyncio.TaskGroup() as group:
            for server, folder in zip(servers, folders, strict=True):
                folder.mkdir()
                audit = {"LESSOR_AUDIT_FILE": str(folder / "audit.log")}
                group.create_task(server.start(folder, settings | audit))
        async with connect(servers[0].address, TOKEN) as lessor:
            await lessor.enable("aws", aws.url)
            await lessor.put_role("aws")
        for server in servers:
            async with connect(server.address, TOKEN) as lessor:
                await lessor.generate("aws")
                lease = (await lessor.generate("aws")).lease_id
                await lessor.revoke(lease)
    finally:
        for server in servers:
            await server.kill()
    assert len(await users_of(aws, "aws")) == 3
    keys = {line.split("|")[0] for line in keys_of_audits(settings)}
    assert len(keys) == 3
    for folder in folders:
        assert sorted(one.name for one in (folder / "audit.log.state").iterdir()) == [
            "audit-key",
            "audit-state",
        ]


def keys_of_audits(settings: dict[str, str]) -> list[str]:
    """Return the public keys of audits that the database has."""
    command = [BINARIES / "psql", "-qAtX", settings["LESSOR_STORE_URL"], "-c"]
    query = "SELECT key FROM meta WHERE key LIKE 'audit_key/%'"
    return subprocess.run([*command, query], check=True, capture_output=True, text=True).stdout.splitlines()


async def test_the_server_recovers_when_postgresql_is_killed(
    server: ServerProcess, postgres: PostgresProcess
) -> None:
    async with connect(server.address, server.token) as lessor:
        lease = (await lessor.generate("aws")).lease_id
        await asyncio.to_thread(postgres.kill)
        error = await refused(lessor.generate("aws"))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        await until(lessor.health, lambda status: status == NOT_SERVING)
        await asyncio.to_thread(postgres.start)
        async with asyncio.timeout(10):
            await until(lessor.health, lambda status: status == SERVING)
        assert (await lessor.lookup(lease)).state == State.ACTIVE
        assert (await lessor.generate("aws")).lease_id


async def test_a_backup_is_the_database_s(server: ServerProcess) -> None:
    async with connect(server.address, server.token) as lessor:
        call = lessor.system.Backup(system_pb2.BackupRequest(path="copy.db"))
        error = await refused(call)
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BACKUP_BY_DATABASE")


async def run_tool(name: str, *arguments: str | Path) -> None:
    """Run a program of PostgreSQL."""
    command = [BINARIES / name, *arguments]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=60)


async def test_a_restored_dump_holds_expiries(
    server: ServerProcess, postgres: PostgresProcess, tmp_path: Path, settings: dict[str, str]
) -> None:
    async with connect(server.address, server.token) as lessor:
        lease = (await lessor.generate("aws")).lease_id
    dump = tmp_path / "dump"
    url = settings["LESSOR_STORE_URL"]
    await run_tool("pg_dump", "-Fc", "-f", dump, url)
    await server.stop()
    restored = postgres.create_database(f"lessor{next(DATABASES)}")
    await run_tool("pg_restore", "-d", restored, dump)
    await server.start(tmp_path, settings | {"LESSOR_STORE_URL": restored})
    async with connect(server.address, server.token) as lessor:
        assert "STORE_ROLLED_BACK" in "\n".join((await lessor.info()).warnings)
        assert (await lessor.lookup(lease)).state == State.ACTIVE
        await lessor.system.ResumeExpiry(system_pb2.ResumeExpiryRequest())
        assert "STORE_ROLLED_BACK" not in "\n".join((await lessor.info()).warnings)
    await server.stop()
    await server.start(tmp_path, settings | {"LESSOR_STORE_URL": restored})
    async with connect(server.address, server.token) as lessor:
        assert "STORE_ROLLED_BACK" not in "\n".join((await lessor.info()).warnings)


# --- starts that are refused ----------------------------------------------------------------------------


async def test_each_database_that_cannot_be_used_is_one_line(
    postgres: PostgresProcess, settings: dict[str, str], tmp_path: Path
) -> None:
    postgres.create_database("foreign")
    postgres.run("CREATE TABLE other (x int)", "foreign")
    postgres.run("CREATE ROLE poor LOGIN; CREATE DATABASE poors")
    cases = {
        postgres.url("foreign"): "of another program",
        postgres.url("nowhere"): 'database "nowhere" does not exist',
        postgres.url("poors").replace("lessor@", "poor@"): "cannot create the tables",
        "postgresql://lessor:hush-hush@127.0.0.1:1/lessor": "Connection refused",
        "postgresql://lessor:hush-hush@nowhere.invalid/lessor": "start the database, or correct the host",
    }
    for url, problem in cases.items():
        line = await refuses_to_start(tmp_path, **settings | {"LESSOR_STORE_URL": url})
        assert problem in line
        assert "hush" not in line


async def test_another_sealing_key_is_refused(
    server: ServerProcess, settings: dict[str, str], tmp_path: Path
) -> None:
    key = tmp_path / "another"
    line = await refuses_to_start(tmp_path, **settings | {"LESSOR_SEALING_KEY": f"file:{key}"})
    assert f"{key} does not exist; create a key" in line
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    line = await refuses_to_start(tmp_path, **settings | {"LESSOR_SEALING_KEY": f"file:{key}"})
    assert f"{key} is not the sealing key of the database" in line
    async with connect(server.address, server.token) as lessor:
        assert (await lessor.generate("aws")).lease_id


async def test_a_schema_of_another_version_is_refused(
    server: ServerProcess, postgres: PostgresProcess, settings: dict[str, str], tmp_path: Path
) -> None:
    await server.stop()
    name = settings["LESSOR_STORE_URL"].partition("@/")[2].partition("?")[0]
    cli = CommandLine(tmp_path, settings | {"LESSOR_TOKEN": TOKEN})
    done = await cli("migrate", "--check")
    assert (done.code, done.out) == (0, "schema 11 of 11\n")
    later = "UPDATE meta SET value = '99' WHERE key = 'oldest_schema'"
    postgres.run(f"INSERT INTO lessor_migrations VALUES (99, 'later'); {later}", name)
    assert "this version knows up to 11" in await refuses_to_start(tmp_path, **settings)
    postgres.run("DELETE FROM lessor_migrations WHERE number IN (11, 99)", name)
    postgres.run("DROP TABLE login_tokens", name)
    assert "run lessor migrate" in await refuses_to_start(tmp_path, **settings)
    done = await cli("migrate", "--check")
    assert (done.code, done.out) == (1, "schema 10 of 11\n")
    assert (await cli("migrate")).out == "schema 11 of 11\n"


# --- commands that read the database ---------------------------------------------------------------------


async def test_the_audit_keys_of_all_servers_are_read_from_the_database(
    tmp_path: Path, aws: StandIn, settings: dict[str, str]
) -> None:
    """A hash is the same in the records of all servers; each signs with a key of its own."""
    await aws.reset()
    cli = CommandLine(tmp_path, settings | {"LESSOR_TOKEN": TOKEN})
    assert "has no key of the hashes yet" in (await cli("audit", "hash", "AKIA")).err
    assert "has no audit keys yet" in (await cli("audit", "key")).err
    file, server = tmp_path / "audit.log", ServerProcess()
    await server.start(tmp_path, settings | {"LESSOR_AUDIT_FILE": str(file)})
    try:
        async with connect(server.address, TOKEN) as lessor:
            await lessor.enable("aws", aws.url)
            await lessor.put_role("aws")
            key_id = (await lessor.generate("aws")).access_key
    finally:
        await server.stop()
    hashed = await cli("audit", "hash", key_id)
    assert hashed.code == 0, hashed.err
    assert f'"access_key_hmac":"{hashed.out.strip()}"' in file.read_text()
    keys = (await cli("audit", "key")).out.splitlines()
    assert len(keys) == 1
    public, first_use = keys[0].split()
    assert first_use.endswith("Z")
    assert (await cli("audit", "key", "--data-dir", str(tmp_path / "audit.log.state"))).out.strip() == public
    verified = await cli("audit", "verify", "--key", public, str(file))
    assert verified.code == 0, verified.out
    wrong = tmp_path / "wrong-key"
    wrong.write_bytes(bytes(32))
    wrong.chmod(0o600)
    other = CommandLine(tmp_path, settings | {"LESSOR_SEALING_KEY": f"file:{wrong}", "LESSOR_TOKEN": TOKEN})
    refused = (await other("audit", "hash", key_id)).err
    assert "is not the sealing key of the database" in refused
    assert "set sealing.key to the key of the other servers" in refused


async def test_the_data_keys_are_wrapped_by_another_sealing_key(
    server: ServerProcess, settings: dict[str, str], tmp_path: Path
) -> None:
    new = f"file:{tmp_path / 'new-key'}"
    cli = CommandLine(tmp_path, settings | {"LESSOR_TOKEN": TOKEN})
    await server.stop()
    done = await cli("sealing", "rewrap", "--to", new)
    assert (done.code, done.out) == (0, f"1 data key wrapped by {new}; set sealing.key to it\n"), done.err
    assert "is not the sealing key of the database" in (await cli("sealing", "rewrap", "--to", new)).err
    assert "is not the sealing key of the database" in await refuses_to_start(tmp_path, **settings)
    await server.start(tmp_path, settings | {"LESSOR_SEALING_KEY": new})
    async with connect(server.address, server.token) as lessor:
        assert (await lessor.generate("aws")).lease_id


# --- the way from SQLite --------------------------------------------------------------------------------


async def test_a_sqlite_store_is_copied_and_served(
    postgres: PostgresProcess, aws: StandIn, tmp_path: Path
) -> None:
    await aws.reset()
    server, allowed = ServerProcess(), {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}
    await server.start(tmp_path, allowed)
    async with connect(server.address, server.token) as lessor:
        await lessor.enable("aws", aws.url)
        await lessor.put_role("aws")
        lease = (await lessor.generate("aws")).lease_id
        ended = (await lessor.generate("aws")).lease_id
        await lessor.revoke(ended)
    cli = CommandLine(tmp_path, {"LESSOR_TOKEN": TOKEN})
    url = postgres.create_database(f"lessor{next(DATABASES)}")
    copy = ("store", "copy", "--from", f"sqlite:{server.data_dir}", "--to", url)
    try:
        done = await cli(*copy)
        assert done.code == 1
        assert "Another server" in done.err or "stop that server" in done.err
        await server.stop()
        done = await cli(*copy, "--verify")
        assert done.code == 0, done.err
        assert "leases: 2 rows" in done.err
        assert "leases                 2  sha256 " in done.out
        assert (await cli(*copy)).code == 0
        key = f"file:{server.data_dir / 'sealing-key'}"
        await server.start(tmp_path, allowed | {"LESSOR_STORE_URL": url, "LESSOR_SEALING_KEY": key})
        async with connect(server.address, server.token) as lessor:
            assert "STORE_ROLLED_BACK" in "\n".join((await lessor.info()).warnings)
            assert (await lessor.lookup(ended)).state == State.GONE
            await lessor.system.ResumeExpiry(system_pb2.ResumeExpiryRequest())
            await lessor.revoke(lease)
            await lessor.generate("aws")
        assert len(await users_of(aws, "aws")) == 1
    finally:
        await server.kill()


async def test_a_nul_in_a_text_is_what_it_is_on_sqlite(server: ServerProcess) -> None:
    """PostgreSQL has no NUL in texts (PostgreSQL, "Character Types")."""
    odd = "a\0b\uf8ffc\uf8ff0"
    async with connect(server.address, server.token) as lessor:
        await lessor.config.EnableMount(config_pb2.EnableMountRequest(mount="odd", description=odd))
        found = await lessor.config.ListMounts(config_pb2.ListMountsRequest())
        assert [one.description for one in found.mounts if one.mount == "odd"] == [odd]
        for call in (
            lessor.put_role("aws", "other", source_identity=odd),
            lessor.lookup("aws/creds/app/\0"),
            lessor.generate(odd),
        ):
            error = await refused(call)
            assert error.code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE), error


async def test_a_server_shows_the_leases_of_all_servers_in_its_metrics(
    server: ServerProcess, settings: dict[str, str], tmp_path: Path
) -> None:
    async with connect(server.address, server.token) as lessor:
        for _ in range(3):
            await lessor.generate("aws")
    other, folder = ServerProcess(), tmp_path / "other"
    folder.mkdir()
    await other.start(folder, {**settings, "LESSOR_METRICS_LISTEN": "127.0.0.1:0"})
    try:
        line = next(one for one in other.log() if one["event"] == "serving_metrics")

        async def read() -> list[str]:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{line['address']}/metrics") as a,
            ):
                return (await a.text()).splitlines()

        page = await until(read, lambda lines: any(one.startswith("lessor_leases{") for one in lines))
        assert 'lessor_leases{mount="aws",state="active"} 3.0' in page
        assert any(one.startswith("lessor_store_commit_seconds_count ") for one in page)
        assert "lessor_leases_stuck 0.0" in page
    finally:
        await other.kill()


# --- the deep check -------------------------------------------------------------------------------------


async def deep_check(settings: dict[str, str], **more: str) -> dict[str, Finding]:
    """Return what the deep check of a server finds, by its check."""
    own = {"LESSOR_LISTEN": "127.0.0.1:0", "LESSOR_ROOT_TOKEN": TOKEN, "LESSOR_AUDIT_STDOUT": "true"}
    return {one.check: one for one in await check_set_up(None, own | settings | more)}


async def test_the_deep_check_of_a_database_that_works_or_is_empty(
    server: ServerProcess, settings: dict[str, str], postgres: PostgresProcess
) -> None:
    await server.stop()
    empty = {"LESSOR_STORE_URL": postgres.create_database(f"lessor{next(DATABASES)}")}
    for found in (await deep_check(settings), await deep_check(settings | empty)):
        assert {one.grade for one in found.values()} == {Grade.OK}
    assert "lessor config root check" in (await deep_check(settings))["database"].text
    refused_to_migrate = await deep_check(settings | empty, LESSOR_STORE_MIGRATE="false")
    assert "lessor migrate" in refused_to_migrate["schema"].fix


async def test_the_deep_check_of_a_migrated_database_ignores_the_marker_of_a_sqlite_store(
    settings: dict[str, str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "rows-sealed").touch(mode=0o600)
    await migrate_database(DatabaseTarget(settings["LESSOR_STORE_URL"]))
    assert (await deep_check(settings, LESSOR_DATA_DIR=str(data)))["key"].grade == Grade.OK


async def test_the_deep_check_names_what_is_wrong_with_a_database(
    server: ServerProcess,
    settings: dict[str, str],
    postgres: PostgresProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await server.stop()
    url, key = settings["LESSOR_STORE_URL"], tmp_path / "another"
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    read_only = f"{url}&options=-c%20default_transaction_read_only%3Don"
    for name, value, check, fix in (
        ("STORE_URL", "postgresql://lessor@127.0.0.1:9/x", "database", "start the database"),
        ("STORE_URL", "postgresql://lessor@a.invalid/x", "database", "correct the host"),
        ("STORE_URL", url.replace("lessor@", "nobody@"), "database", "correct the user and the password"),
        ("STORE_URL", postgres.url("none"), "database", "create the database"),
        ("STORE_URL", read_only, "database", "name the primary"),
        ("SEALING_KEY", f"file:{key}", "key", "set sealing.key to the key of the other servers"),
        ("SEALING_KEY", f"file:{key}.none", "key", "create a key of 32 random bytes"),
    ):
        found = (await deep_check(settings, **{f"LESSOR_{name}": value}))[check]
        assert (found.grade, fix in found.fix) == (Grade.FAIL, True), found
        assert "lessor.db" not in str(found)
    wall = SystemClock.wall
    monkeypatch.setattr(SystemClock, "wall", lambda clock: wall(clock) + 60)
    found = (await deep_check(settings))["database"]
    assert (found.grade, found.fix) == (Grade.WARN, "set the clocks of both machines by NTP")
