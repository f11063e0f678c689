"""Checks that ``lessor server --check --deep`` names each broken set-up of a server, with its fix."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from lessor.findings import Finding, Grade
from lessor.v1 import system_pb2
from lessor_server.adapters.clock import SystemClock
from lessor_server.commands.deep_check.machine import check_directory, judge_room
from lessor_server.commands.deep_check.run import check_set_up
from tests.support.access_files import TOKEN, identity, issuer
from tests.support.bad_starts import ended
from tests.support.certificates import Authority
from tests.support.clients import connect
from tests.support.other_user import as_other_user, folder_for_all, only_root
from tests.support.server_process import serving
from tests.support.standin_control import StandIn

OLD = Path(__file__).parents[1] / "fixtures" / "data_of_ea658e4"

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="stopped")
async def stop_a_server(tmp_path_factory: pytest.TempPathFactory, aws: StandIn) -> Path:
    """Return the data directory of a server that had an engine, a root and a role."""
    folder = tmp_path_factory.mktemp("stopped")
    async with serving(folder, {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}) as server:
        async with connect(server.address, server.token) as lessor:
            await lessor.enable("aws", aws.url)
            await lessor.put_role("aws")
        await server.stop()
    return folder / "data"


@dataclass(frozen=True)
class SetUp:
    """A data directory of one test's own, and the variables of its server."""

    folder: Path
    data: Path
    variables: dict[str, str] = field(default_factory=dict)

    async def check(self, **more: str) -> list[Finding]:
        """Check it; each finding that is not ok has a fix, and nothing is left behind."""
        before = self._files()
        found = await check_set_up(None, self.variables | more)
        assert [one for one in found if (one.grade is Grade.OK) != (one.fix == "")] == []
        assert self._files() == before
        return found

    async def fail(self, **more: str) -> Finding:
        """Check it, and return the only failure."""
        [failure] = [one for one in await self.check(**more) if one.grade is Grade.FAIL]
        return failure

    async def warn(self, **more: str) -> Finding:
        """Check it, and return the only warning, without the one that there is no audit."""
        found = await self.check(**more)
        assert Grade.FAIL not in {one.grade for one in found}
        [warning] = [one for one in found if one.grade is Grade.WARN and "no audit" not in one.text]
        return warning

    def access(self, text: str) -> str:
        """Write an access file, and return its path."""
        path = self.folder / "access.toml"
        path.write_text(text)
        return str(path)

    def execute(self, statement: str) -> None:
        """Run a statement on the database."""
        with closing(sqlite3.connect(self.data / "lessor.db", isolation_level=None)) as connection:
            connection.execute(statement)

    def _files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.data.rglob("*") if path.is_file()}


@pytest_asyncio.fixture(loop_scope="module", name="set_up")
async def copy_set_up(stopped: Path, tmp_path: Path, aws: StandIn) -> AsyncIterator[SetUp]:
    """Copy that data directory for one test to damage; AWS works again when the test is over."""
    data = Path(shutil.copytree(stopped, tmp_path / "data"))
    variables = {
        "LESSOR_LISTEN": "127.0.0.1:0",
        "LESSOR_DATA_DIR": str(data),
        "LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url,
    }
    yield SetUp(tmp_path, data, variables)
    await aws.clear_faults()
    await aws.sts(verdicts={})
    await aws.account(max_users=5000, clock_offset=0, account="123456789012")
    await aws.up()


async def test_a_sound_set_up_has_no_failure_and_is_not_changed(set_up: SetUp, aws: StandIn) -> None:
    await aws.forget_calls()
    found = await set_up.check(LESSOR_AUDIT_STDOUT="true")
    assert {one.grade for one in found} == {Grade.OK}
    names = "settings directory disk lock audit listen schema key aws rights quota clock"
    assert [one.check for one in found] == names.split()
    assert all(str(call["action"]).startswith(("Get", "List", "Simulate")) for call in await aws.calls())


async def test_a_first_start(set_up: SetUp) -> None:
    found = await check_set_up(None, set_up.variables | {"LESSOR_DATA_DIR": str(set_up.folder / "new")})
    assert Grade.FAIL not in {one.grade for one in found}
    assert not (set_up.folder / "new").exists()


async def test_a_first_start_is_checked_where_no_directory_for_temporary_files_can_be_written(
    set_up: SetUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root of a container is often read-only."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    found = await set_up.check(LESSOR_DATA_DIR=str(set_up.folder / "new"))
    assert Grade.FAIL not in {one.grade for one in found}


# --- settings and machine -------------------------------------------------------------------------------


async def test_settings_that_are_not_valid(set_up: SetUp) -> None:
    found = await set_up.check(LESSOR_AWS_RATE="fast", LESSOR_LISTEM="x")
    assert [one.grade for one in found] == [Grade.FAIL, Grade.FAIL]
    assert "LESSOR_AWS_RATE" in found[0].text


@only_root
async def test_a_data_directory_that_can_not_be_created_or_used() -> None:
    with folder_for_all() as folder:
        (folder / "closed").mkdir(mode=0o700)
        for path in (folder / "new", folder / "closed"):
            assert as_other_user(lambda path=path: int(check_directory(path).grade is Grade.FAIL)) == 1
        assert check_directory(folder / "new").grade is Grade.OK


@pytest.mark.parametrize(
    ("free", "files", "grade"),
    [
        (10 << 30, None, Grade.OK),
        (500 << 20, 10**6, Grade.WARN),
        (10 << 30, 5, Grade.WARN),
        (9, 9, Grade.FAIL),
    ],
)
async def test_a_disk_that_is_nearly_full(tmp_path: Path, free: int, files: int | None, grade: Grade) -> None:
    found = judge_room(tmp_path, free, files)
    assert found.grade is grade
    assert (found.fix == "") == (grade is Grade.OK)


async def test_a_lock_that_is_no_file(set_up: SetUp) -> None:
    (set_up.data / "lessor.lock").unlink()
    (set_up.data / "lessor.lock").mkdir()
    found = await set_up.fail()
    assert (found.check, found.fix) == ("lock", "remove it")


async def test_a_server_that_runs(set_up: SetUp) -> None:
    """It has the database open, so what needs the database can't be checked."""
    async with serving(set_up.folder) as server:
        found = await check_set_up(None, set_up.variables)
        assert await server.stop() == 0
    assert Grade.FAIL not in {one.grade for one in found}
    assert f"pid {server_pid(found)} runs" in next(one.text for one in found if one.check == "lock")
    [warning] = [one for one in found if one.check == "database"]
    assert "lessor config root check" in warning.fix


def server_pid(found: list[Finding]) -> str:
    """Return the process id that the warning about the database names."""
    [text] = [one.text for one in found if one.check == "database"]
    return text.partition("pid ")[2].partition(" ")[0]


async def test_an_address_that_is_taken(set_up: SetUp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = await set_up.fail(LESSOR_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}")
    assert found.check == "listen"
    assert "stop the process that listens there" in found.fix


async def test_certificates_that_have_ended_or_end_soon(set_up: SetUp) -> None:
    authority = Authority(set_up.folder)
    for name, life, grade in (
        ("long", timedelta(days=90), Grade.OK),
        ("short", timedelta(days=2), Grade.WARN),
        ("old", None, Grade.FAIL),
    ):
        pair = authority.sign(name, expired=life is None, life=life or timedelta())
        tls = {"LESSOR_TLS_CERT_FILE": str(pair.cert), "LESSOR_TLS_KEY_FILE": str(pair.key)}
        [found] = [one for one in await set_up.check(**tls) if one.check == "certificate"]
        assert found.grade is grade, found
        assert found.text.startswith("tls.cert_file")


async def test_an_audit_socket_without_a_collector(set_up: SetUp) -> None:
    found = await set_up.fail(LESSOR_AUDIT_SOCKET=str(set_up.folder / "collector"))
    assert (found.check, found.fix) == ("audit", "start the collector")


async def test_an_audit_key_that_is_gone(set_up: SetUp) -> None:
    (set_up.data / "audit-state").touch(mode=0o600)
    found = await set_up.fail(LESSOR_AUDIT_STDOUT="true")
    assert found.check == "audit"
    assert "audit-key" in found.text


async def test_an_address_for_metrics_that_is_taken_or_elsewhere(set_up: SetUp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = await set_up.fail(LESSOR_METRICS_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}")
        http = await set_up.fail(LESSOR_HTTP_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}")
    assert (found.check, found.fix.startswith("stop the process")) == ("listen", True)
    assert http.fix == "stop the process that listens there, or set another address with LESSOR_HTTP_LISTEN"
    found = await set_up.fail(LESSOR_METRICS_LISTEN="192.0.2.1:9464")
    assert found.fix == "set an address of this machine with LESSOR_METRICS_LISTEN"


async def test_an_audit_file_on_a_full_disk(set_up: SetUp, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = set_up.folder / "audit.log"
    whole, real = shutil.disk_usage(audit.parent), shutil.disk_usage
    full = whole._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full if path == audit.parent else real(path))
    found = await set_up.fail(LESSOR_AUDIT_FILE=str(audit))
    assert (found.check, "audit.log" in found.text) == ("disk", True)


async def test_variables_of_traces_that_stop_a_start(set_up: SetUp) -> None:
    found = await set_up.fail(OTEL_TRACES_EXPORTER="zipkin")
    assert (found.check, "OTEL_SDK_DISABLED" in found.fix) == ("traces", True)
    sound = await set_up.check(OTEL_TRACES_EXPORTER="otlp")
    assert [one.grade for one in sound if one.check == "traces"] == [Grade.OK]


async def test_a_secret_that_every_user_can_read(set_up: SetUp) -> None:
    token = set_up.folder / "token"
    token.write_text("the-token-of-the-root")
    token.chmod(0o644)
    found = await set_up.warn(LESSOR_ROOT_TOKEN_FILE=str(token))
    assert found.fix == f"run chmod o-r {token}"


# --- access ---------------------------------------------------------------------------------------------


async def test_a_root_token_that_is_too_short(set_up: SetUp) -> None:
    token = set_up.folder / "token"
    token.write_text("short")
    token.chmod(0o600)
    found = await set_up.fail(LESSOR_ROOT_TOKEN_FILE=str(token))
    assert (found.check, "16 characters" in found.fix) == ("access", True)


async def test_an_access_file_with_an_error(set_up: SetUp) -> None:
    found = await set_up.fail(LESSOR_ACCESS_FILE=set_up.access("policies = 5"))
    assert (found.check, "access.toml" in found.text) == ("settings", True)


@pytest.mark.parametrize(
    ("expires", "said"), [("2020-01-01T00:00:00Z", "expired on 2020-01-01"), (None, "for 47 more hours")]
)
async def test_a_token_that_has_expired_or_expires_soon(
    set_up: SetUp, expires: str | None, said: str
) -> None:
    soon = datetime.fromtimestamp(SystemClock().wall() + 2 * 86_400, UTC)
    end = expires or f"{soon:%Y-%m-%dT%H:%M:%SZ}"
    file = set_up.access(identity(f"{TOKEN}\ntoken_expires = {end}"))
    found = await set_up.warn(LESSOR_ACCESS_FILE=file)
    assert said in found.text
    assert "lessor token new" in found.fix


async def test_an_issuer_that_does_not_answer(set_up: SetUp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = f'issuer = "https://127.0.0.1:{port}"\naudiences = ["lessor"]'
    found = await set_up.fail(LESSOR_ACCESS_FILE=set_up.access(issuer(lines)))
    assert (found.check, "the keys of j" in found.text, "jwks_url" in found.fix) == ("issuer", True, True)


# --- database and key -----------------------------------------------------------------------------------


async def test_a_file_that_is_not_a_database(set_up: SetUp) -> None:
    (set_up.data / "lessor.db").write_bytes(b"this is no database" * 500)
    found = await set_up.fail()
    assert found.check == "schema"
    assert "restore a backup" in found.fix


async def test_a_database_of_a_newer_version(set_up: SetUp) -> None:
    set_up.execute("PRAGMA user_version = 999")
    found = await set_up.fail()
    assert (found.check, "schema 999" in found.text) == ("schema", True)


async def test_a_database_that_lacks_a_table(set_up: SetUp) -> None:
    set_up.execute("DROP TABLE rotations")
    found = await set_up.fail()
    assert (found.check, "rotations" in found.text) == ("schema", True)


@pytest.mark.parametrize("left", [("sealing-key",), ("rows-sealed",), ("sealing-key", "rows-sealed")])
async def test_a_database_that_was_lost(set_up: SetUp, left: tuple[str, ...]) -> None:
    for name in {"lessor.db", "sealing-key", "rows-sealed"} - set(left):
        (set_up.data / name).unlink()
    found = await set_up.fail()
    assert found.check == "key"


async def test_a_sealing_key_that_was_lost(set_up: SetUp) -> None:
    (set_up.data / "sealing-key").unlink()
    found = await set_up.fail()
    assert found.check == "key"
    assert "sealing-key is missing" in found.text


async def test_a_sealing_key_of_another_database(set_up: SetUp) -> None:
    (set_up.data / "sealing-key").write_bytes(bytes(32))
    found = await set_up.fail()
    assert (found.check, "is not the sealing key" in found.text) == ("key", True)


async def test_a_sealing_key_that_others_can_read(set_up: SetUp) -> None:
    (set_up.data / "sealing-key").chmod(0o644)
    found = await set_up.fail()
    assert (found.check, "chmod 600" in found.fix) == ("key", True)


async def test_a_variable_of_the_sealing_key_that_is_not_set(set_up: SetUp) -> None:
    found = await set_up.fail(LESSOR_SEALING_KEY="env:NO_SUCH_VARIABLE")
    assert (found.check, "NO_SUCH_VARIABLE" in found.text) == ("key", True)


async def test_a_database_of_an_earlier_version(set_up: SetUp) -> None:
    for file in set_up.data.iterdir():
        file.unlink()
    (set_up.data / "lessor.db").write_bytes(gzip.decompress((OLD / "lessor.db.gz").read_bytes()))
    shutil.copy(OLD / "sealing-key", set_up.data)
    (set_up.data / "sealing-key").chmod(0o600)
    [found] = [one for one in await set_up.check() if one.check == "schema"]
    assert (found.grade, found.fix) == (Grade.WARN, "make a backup before that")
    found = await set_up.fail(LESSOR_STORE_MIGRATE="false")
    assert (found.check, "store.migrate" in found.fix) == ("schema", True)


async def test_a_sealing_key_of_aws_kms_without_credentials(
    set_up: SetUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    key = "awskms:arn:aws:kms:eu-west-1:123456789012:key/11111111-1111-1111-1111-111111111111"
    found = await set_up.fail(LESSOR_SEALING_KEY=key, LESSOR_DATA_DIR=str(set_up.folder / "new"))
    assert (found.check, "kms:Decrypt" in found.fix) == ("key", True)


async def test_leases_that_are_stuck(set_up: SetUp, aws: StandIn) -> None:
    async with serving(set_up.folder, {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}) as server:
        async with connect(server.address, server.token) as lessor:
            await lessor.generate("aws")
        await server.stop()
    set_up.execute("UPDATE leases SET state = 'REVOKING', attempts = 9")
    found = await set_up.check()
    [warning] = [one for one in found if one.check == "leases"]
    assert warning.text.startswith("AWS refuses to revoke 1 leases")


async def test_a_row_that_somebody_edited(set_up: SetUp) -> None:
    set_up.execute("UPDATE roles SET body = replace(body, 's3:GetObject', 's3:*')")
    found = await set_up.check()
    assert [one.check for one in found if one.grade is Grade.FAIL] == ["rows"]


# --- AWS ------------------------------------------------------------------------------------------------


async def test_aws_that_does_not_answer(set_up: SetUp, aws: StandIn) -> None:
    await aws.down()
    found = await set_up.fail()
    assert found.check == "aws"
    assert "network" in found.fix


@pytest.mark.parametrize(
    ("code", "status", "fix"),
    [
        ("InvalidClientTokenId", 403, "check the root's key"),
        ("SignatureDoesNotMatch", 403, "check the root's key"),
        ("ExpiredToken", 403, "check the root's key"),
        ("RequestExpired", 400, "by NTP"),
        ("Throttling", 400, "call again later"),
        ("InternalFailure", 500, "call again later"),
    ],
)
async def test_an_aws_that_refuses_the_root(
    set_up: SetUp, aws: StandIn, code: str, status: int, fix: str
) -> None:
    await aws.fault("refuse", "GetCallerIdentity", code=code, status=status)
    found = await set_up.fail()
    assert (found.check, code in found.text, fix in found.fix) == ("aws", True, True)


async def test_a_root_that_lacks_a_right(set_up: SetUp, aws: StandIn) -> None:
    await aws.sts(verdicts={"iam:TagUser": "implicitDeny"})
    found = await set_up.fail()
    assert (found.check, "iam:TagUser" in found.text) == ("rights", True)
    assert "lessor config root check --mount aws --format policy" in found.fix


async def test_a_root_whose_rights_can_not_be_simulated(set_up: SetUp, aws: StandIn) -> None:
    await aws.fault("refuse", "SimulatePrincipalPolicy")
    found = await set_up.check()
    assert Grade.FAIL not in {one.grade for one in found}
    assert "iam:SimulatePrincipalPolicy" in next(one.fix for one in found if one.check == "rights")


@pytest.mark.parametrize(("room", "grade"), [(0, Grade.FAIL), (1, Grade.WARN), (5000, Grade.OK)])
async def test_an_account_without_room(set_up: SetUp, aws: StandIn, room: int, grade: Grade) -> None:
    for number in range(5):
        await aws.call("CreateUser", UserName=f"one-{room}-{number}")
    await aws.account(max_users=len(await aws.users()) + room)
    [found] = [one for one in await set_up.check() if one.check == "quota"]
    assert found.grade is grade


async def test_a_clock_that_differs_from_aws_s(set_up: SetUp, aws: StandIn) -> None:
    await aws.account(clock_offset=200)
    found = await set_up.fail()
    assert found.check == "clock"
    assert "NTP" in found.fix


async def test_a_root_of_another_account_than_the_leases(set_up: SetUp, aws: StandIn) -> None:
    async with serving(set_up.folder, {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}) as server:
        async with connect(server.address, server.token) as lessor:
            await lessor.generate("aws")
        await server.stop()
    await aws.account(account="999999999999")
    found = await set_up.fail()
    assert (found.check, "another account" in found.text) == ("root", True)


async def test_an_engine_without_a_root(set_up: SetUp) -> None:
    set_up.execute("DELETE FROM roots")
    found = await set_up.warn()
    assert (found.check, found.fix) == ("aws", "set one with lessor config root set")


async def test_expiries_that_are_held(set_up: SetUp) -> None:
    async with serving(set_up.folder) as server:
        async with connect(server.address, server.token) as lessor:
            await lessor.system.HoldExpiry(system_pb2.HoldExpiryRequest(reason="a move"))
        await server.stop()
    found = await set_up.warn()
    assert found.check == "expiry"
    assert "a move" in found.text


# --- the command ----------------------------------------------------------------------------------------


async def test_aws_is_reached_also_before_there_is_a_root(set_up: SetUp, aws: StandIn) -> None:
    new = set_up.variables | {"LESSOR_DATA_DIR": str(set_up.folder / "new")}
    found = {one.check: one for one in await check_set_up(None, new)}
    assert found["aws"].text == f"{aws.url} answers"
    assert found["clock"].grade is Grade.OK
    await aws.account(clock_offset=200)
    assert Grade.FAIL in {one.grade for one in await check_set_up(None, new) if one.check == "clock"}
    await aws.down()
    [away] = [one for one in await check_set_up(None, new) if one.check == "aws"]
    assert (away.grade, "HTTPS_PROXY" in away.fix) == (Grade.WARN, True)


async def test_the_command_prints_json_and_exits_with_1_after_a_failure(tmp_path: Path, aws: StandIn) -> None:
    sound = await ended(tmp_path, "--check", "--deep", LESSOR_AWS_ALLOWED_ENDPOINTS=aws.url)
    assert sound.code == 0
    assert {line.split()[0] for line in sound.words.splitlines()} == {"ok", "warn"}
    broken = await ended(tmp_path, "--check", "--deep", "--format", "json", LESSOR_AWS_RATE="fast")
    assert broken.code == 1
    [problem] = json.loads(broken.words)["checks"]
    assert (problem["check"], problem["status"]) == ("settings", "FAIL")
    assert (await ended(tmp_path, "--deep")).code == 2
