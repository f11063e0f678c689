"""What a caller without a token can do to a server, frame by frame: it costs a bounded amount.

A legitimate caller, on a connection of its own, calls all the while and loses no call.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2

from lessor.v1 import config_pb2, lease_pb2
from tests.support import http2
from tests.support.clients import connect, meanwhile, refused, until
from tests.support.http2 import Connection
from tests.support.server_process import ServerProcess, serving
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LOOKUP = "/lessor.v1.LeaseService/LookupLease"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
NOT_UTF_8 = ("/\x80\x81/\x82", "/lessor.v1.LeaseService/\u00ed\u00a0\x80", "/\u00f0\x9f", "\u00c3")
"""Paths, each character of which is sent as one byte."""
ENDLESS_BYTES = (1 << 20) - 1
MAX_RESIDENT_MIB = 300
CONNECTIONS, CALLS = 8, 130
"""Calls are a connection's; at most 100 of them are open at the same time."""

Attack = Callable[[Connection], int]


def resident_mib(pid: int) -> int:
    """Return how much memory a process has now."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS:"))


@asynccontextmanager
async def calling_all_the_while(server: ServerProcess) -> AsyncIterator[None]:
    """Call as a legitimate caller while the block runs; each call must succeed."""

    async def call(over: asyncio.Event) -> None:
        async with connect(server.address, server.token) as lessor:
            while not over.is_set():
                await lessor.info()
                await asyncio.sleep(0.02)

    async with meanwhile(call):
        yield


async def flood(server: ServerProcess, attack: Attack, window: int = 65_535) -> int:
    """Attack on one connection until it made its calls or was closed; return the peak of the memory."""
    connection = await Connection.open("127.0.0.1", server.port, window=window)
    peak, open_streams, made = 0, set[int](), 0
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(connection.read())
        while made < CALLS and not connection.closed.is_set():
            open_streams -= connection.ended
            while len(open_streams) < 100 and made < CALLS:
                open_streams.add(attack(connection))
                made += 1
            await connection.drained()
            peak = max(peak, resident_mib(server.pid))
            connection.changed.clear()
            try:
                async with asyncio.timeout(0.2):
                    await connection.changed.wait()
            except TimeoutError:
                if window == 0 or (len(open_streams) >= 100 and attack in STUCK):
                    break  # nothing will be answered any more
        reader.cancel()
    connection.close()
    return peak


def headers_alone(connection: Connection) -> int:
    """Open a call and send nothing more."""
    return connection.call(LOOKUP)


def endless_message(connection: Connection) -> int:
    """Announce a message of nearly 1 MiB and send its beginning."""
    stream = connection.call(LOOKUP)
    connection.data(stream, http2.message(b"", ENDLESS_BYTES + 1))
    connection.pour(stream, ENDLESS_BYTES)
    return stream


def endless_message_to_health(connection: Connection) -> int:
    """Do the same to a method that asks for no token."""
    stream = connection.call(CHECK)
    connection.data(stream, http2.message(b"", ENDLESS_BYTES + 1))
    connection.pour(stream, ENDLESS_BYTES)
    return stream


def much_metadata(connection: Connection) -> int:
    """Send as much metadata as is allowed, and a wrong token."""
    return connection.call(LOOKUP, [("authorization", "Bearer " + "x" * 15_000)])


def watch_of_a_new_name(connection: Connection) -> int:
    """Watch the health of a service that is not there."""
    stream = connection.call(WATCH)
    name = f"service-{stream}".encode()
    connection.data(stream, http2.message(b"\x0a" + bytes((len(name),)) + name), end=True)
    return stream


def garbage_to_health(connection: Connection) -> int:
    """Send bytes that are not a message."""
    stream = connection.call(CHECK)
    connection.data(stream, http2.message(b"\xff\xff\xff"), end=True)
    return stream


def garbage_to_reflection(connection: Connection) -> int:
    """Send bytes that are not a message, on a stream that stays open."""
    stream = connection.call(REFLECTION)
    connection.data(stream, http2.message(b"\xff\xff\xff"))
    return stream


def reflection(connection: Connection) -> int:
    """Ask for a description and keep the stream open."""
    stream = connection.call(REFLECTION)
    connection.data(stream, http2.message(b"\x22\x17lessor.v1.ConfigService"))
    return stream


def unknown_method(connection: Connection) -> int:
    """Call what is not there."""
    return connection.call("/no.such.Service/Method")


def opened_and_reset(connection: Connection) -> int:
    """Open a call and give it up in the next frame (CVE-2023-44487)."""
    stream = connection.call(LOOKUP)
    connection.reset(stream)
    connection.ended.add(stream)
    return stream


ATTACKS: tuple[Attack, ...] = (
    headers_alone,
    endless_message,
    endless_message_to_health,
    much_metadata,
    watch_of_a_new_name,
    garbage_to_health,
    garbage_to_reflection,
    reflection,
    unknown_method,
    opened_and_reset,
)
STUCK = {watch_of_a_new_name, reflection}
"""Attacks whose calls may stay open for as long as the attacker likes."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="target")
async def target_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    async with serving(tmp_path_factory.mktemp("target")) as server:
        yield server


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("window", [65_535, 0], ids=["reads", "reads-nothing"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_a_flood_without_a_token_is_bounded_and_legitimate_calls_succeed(
    target: ServerProcess, attack: Attack, window: int
) -> None:
    async with calling_all_the_while(target), asyncio.TaskGroup() as group:
        floods = [group.create_task(flood(target, attack, window)) for _ in range(CONNECTIONS)]
    assert max(task.result() for task in floods) < MAX_RESIDENT_MIB
    log = target.log_file.read_text(encoding="utf-8")
    assert "Traceback" not in log
    refusals = [line for line in target.log() if line["event"] == "calls_refused"]
    assert len(refusals) < 300


def send_without_end(port: int, frames: bytes, over: threading.Event) -> None:
    """Send frames on one connection until ``over``, as fast as the server reads."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0))
        connection.sendall(http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.headers(REFLECTION)))
        while not over.is_set():
            connection.sendall(frames * 2_000)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "frames",
    [http2.frame(http2.PRIORITY, 0, 1, bytes(5)), http2.frame(http2.WINDOW_UPDATE, 0, 1, b"\0\0\0\1")],
    ids=["priority", "window-update"],
)
async def test_a_connection_that_never_stops_sending_keeps_no_other_from_being_read(
    tmp_path: Path, frames: bytes
) -> None:
    over = threading.Event()
    async with (
        serving(tmp_path) as server,
        connect(server.address, server.token) as lessor,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(4):
            group.create_task(asyncio.to_thread(send_without_end, server.port, frames, over))
        await asyncio.sleep(0.5)
        try:
            async with asyncio.timeout(10):
                await lessor.info()
        finally:
            over.set()


def watch_root(connection: Connection) -> int:
    """Watch the health of the server as a whole."""
    stream = connection.call(WATCH)
    connection.data(stream, http2.message(b""), end=True)
    return stream


@pytest.mark.asyncio(loop_scope="module")
async def test_watchers_that_read_nothing_do_not_freeze_the_health_of_others(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, {"LESSOR_DRAIN_GRACE": "20s"}) as server,
        connect(server.address, server.token) as lessor,
        asyncio.TaskGroup() as group,
    ):
        connection = await Connection.open("127.0.0.1", server.port, window=0)
        reader = group.create_task(connection.read())
        for _ in range(8):
            watch_root(connection)
        while connection.frames.get(http2.HEADERS, 0) < 8:
            connection.changed.clear()
            await connection.changed.wait()
        assert await lessor.health() == health_pb2.HealthCheckResponse.SERVING
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, hard))
        await refused(lessor.enable("other", "http://127.0.0.1:1"))
        await until(lessor.health, lambda status: status == health_pb2.HealthCheckResponse.NOT_SERVING)
        reader.cancel()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", [CHECK, WATCH, "/grpc.health.v1.Health/List", REFLECTION])
async def test_bytes_that_are_not_a_message_are_invalid_to_health_and_reflection(
    target: ServerProcess, path: str
) -> None:
    async with connect(target.address, "") as nobody:
        send = nobody.raw_stream if path in {WATCH, REFLECTION} else nobody.raw
        refusal = await refused(send(path.removeprefix("/"), b"\xff\xff\xff"))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", NOT_UTF_8)
async def test_a_call_whose_path_is_not_utf_8_is_refused_and_others_are_served(
    target: ServerProcess, path: str
) -> None:
    async with connect(target.address, target.token) as lessor, asyncio.TaskGroup() as group:
        await lessor.info()
        connection = await Connection.open("127.0.0.1", target.port)
        reader = group.create_task(connection.read())
        stream = connection.call(path)
        while stream not in connection.ended and not connection.closed.is_set():
            connection.changed.clear()
            await connection.changed.wait()
        assert not connection.closed.is_set()
        await lessor.info()
        async with connect(target.address, target.token) as another:
            await another.info()
        reader.cancel()
    assert not [line for line in target.log() if line["event"] == "internal_error"]


@pytest.mark.asyncio(loop_scope="module")
async def test_metadata_over_the_limit_is_refused(target: ServerProcess) -> None:
    connection = await Connection.open("127.0.0.1", target.port)
    async with asyncio.TaskGroup() as group:
        group.create_task(connection.read())
        stream = connection.call(LOOKUP, [("x-much", "x" * 60_000)])
        while stream not in connection.ended and not connection.closed.is_set():
            connection.changed.clear()
            await connection.changed.wait()
        connection.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_with_all_connections_taken_leases_still_end(tmp_path: Path) -> None:
    async with StandIn.start() as aws:
        settings = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url, "LESSOR_LIMITS_CONNECTIONS": "20"}
        async with serving(tmp_path, settings) as server, connect(server.address, server.token) as lessor:
            await lessor.enable("aws", aws.url)
            await lessor.put_role("aws")
            lease = await lessor.generate("aws", ttl=2)
            idle = [await Connection.open("127.0.0.1", server.port) for _ in range(60)]
            async with asyncio.TaskGroup() as group:
                readers = [group.create_task(one.read()) for one in idle]
                await until(lambda: _closed(idle), lambda closed: closed >= 40)
                lookup = partial(lessor.lookup, lease.lease_id)
                await until(lookup, lambda found: found.state == lease_pb2.Lease.State.GONE)
                assert await lessor.generate("aws", ttl=60)
                for reader in readers:
                    reader.cancel()
            assert await _closed(idle) >= 41  # one place is the legitimate caller's


async def _closed(connections: list[Connection]) -> int:
    """Return how many of them the server has closed."""
    return sum(one.closed.is_set() for one in connections)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_connection_at_its_age_takes_no_new_calls_and_keeps_its_stream(tmp_path: Path) -> None:
    async with serving(tmp_path, {"LESSOR_LIMITS_CONNECTION_AGE": "1s"}) as server:
        connection = await Connection.open("127.0.0.1", server.port)
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(connection.read())
            stream = connection.call(
                "/lessor.v1.LeaseService/WatchLeases", [("authorization", f"Bearer {server.token}")]
            )
            connection.data(stream, http2.message(b"\x0a\x04aws/"), end=True)
            while not connection.frames.get(http2.GOAWAY):
                connection.changed.clear()
                await connection.changed.wait()
            async with connect(server.address, server.token) as lessor:
                await lessor.info()
            assert stream not in connection.ended
            reader.cancel()


@pytest.mark.fire
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("with_call", [True, False])
async def test_a_client_may_ping_every_10_seconds(target: ServerProcess, with_call: bool) -> None:
    connection = await Connection.open("127.0.0.1", target.port)
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(connection.read())
        if with_call:
            extra = [("authorization", f"Bearer {target.token}")]
            stream = connection.call("/lessor.v1.LeaseService/WatchLeases", extra)
            connection.data(stream, http2.message(b"\x0a\x04aws/"), end=True)
        for _ in range(6):
            await asyncio.sleep(10)
            connection.send(http2.frame(http2.PING, 0, 0, b"a client"))
        await connection.drained()
        assert not connection.closed.is_set()
        assert http2.GOAWAY not in connection.frames
        reader.cancel()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_server_that_may_open_too_few_files_does_not_start(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(RuntimeError, match=r"open files are needed .* raise the limit"):
        async with serving(tmp_path, {"LESSOR_LIMITS_CONNECTIONS": str(hard)}):
            pass


@pytest.mark.asyncio(loop_scope="module")
async def test_a_known_caller_that_reads_nothing_until_its_deadline_causes_no_internal_error(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server, connect(server.address, server.token) as lessor:
        await lessor.config.EnableMount(config_pb2.EnableMountRequest(mount="aws"))
        connection = await Connection.open("127.0.0.1", server.port, window=0)
        extra = [("authorization", f"Bearer {server.token}"), ("grpc-timeout", "300m")]
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(connection.read())
            stream = connection.call("/lessor.v1.LeaseService/RevokePrefix", extra)
            connection.data(stream, http2.message(b"\x0a\x04aws/"), end=True)
            while stream not in connection.ended:
                connection.changed.clear()
                await connection.changed.wait()
            reader.cancel()
        assert await server.stop() == 0
    log = server.log_file.read_text(encoding="utf-8")
    assert "Traceback" not in log
    assert "internal_error" not in log
