"""Checks the sink that is a collector on a socket: reconnects, and a collector that does not read."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.audit_lines import record
from tests.support.audit_reading import requests, serious, until
from tests.support.audit_sinks import HandClock, MemoryFile, audit_log

from lessor_server.adapters.audit.targets import SocketTarget
from lessor_server.domain.errors.access import AuditUnavailable
from lessor_server.domain.events import AuditSinkBack, AuditSinkFailed


def seqs(received: bytearray) -> list[int]:
    """Return the numbers of the whole lines."""
    return [json.loads(line)["seq"] for line in bytes(received).split(b"\n")[:-1]]


async def test_a_collector_on_a_socket_gets_one_chain_over_reconnects(tmp_path: Path) -> None:
    """It reads all that was sent before it goes, so nothing is lost with it."""
    path, clock = tmp_path / "collector", HandClock()
    received = bytearray()
    closing: list[asyncio.StreamWriter] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closing.append(writer)
        while data := await reader.read(100):
            received.extend(data)
        writer.close()

    server = await asyncio.start_unix_server(collect, path)
    async with audit_log(tmp_path, SocketTarget(path, unread_seconds=1e6), clock=clock) as (log, notes):
        await log.write(record(0))
        await until(lambda: seqs(received) == [1, 2])
        closing[0].close()
        await closing[0].wait_closed()
        server.close()
        with pytest.raises(AuditUnavailable):
            await log.write(record(1))
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(collect, path)
        clock.seconds += 2
        await notes.until(AuditSinkBack)
        await log.write(record(99))
        await until(lambda: b"r99" in received)
    await until(lambda: received.endswith(b"\n") and b"checkpoint" in received.splitlines()[-1])
    server.close()
    assert requests(received) == ["r0", "r1", "r99"]
    assert serious(tmp_path, received) == []


@contextmanager
def silent_collector(path: Path) -> Iterator[socket.socket]:
    """Yield a socket on which a collector listens that reads nothing by itself."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(5)
        yield listener


async def test_a_write_to_a_socket_that_is_not_read_fails_in_time(tmp_path: Path) -> None:
    path = tmp_path / "collector"
    target, errors = SocketTarget(path, seconds=0.01), list[OSError]()

    def fill() -> None:
        try:
            while True:
                target.write(memoryview(bytes(1 << 12)))
        except OSError as error:
            errors.append(error)

    with silent_collector(path):
        target.open()
        thread = threading.Thread(target=fill, daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, 10)
        target.close()
    assert [type(one) for one in errors] == [TimeoutError]


async def test_a_socket_that_is_not_read_fails_and_never_blocks_the_loop(tmp_path: Path) -> None:
    """The collector reads the first record and nothing more; while a write waits, all else goes on."""
    path, file = tmp_path / "collector", MemoryFile()
    with silent_collector(path) as listener:
        target = SocketTarget(path, seconds=1e6, unread_seconds=1e6)
        peers: list[socket.socket] = []

        def read_once() -> None:
            peers.append(listener.accept()[0])
            peers[0].recv(1 << 16)

        threading.Thread(target=read_once, daemon=True).start()
        async with audit_log(tmp_path, target, file, clock=HandClock()) as (log, notes):
            await until(lambda: all(one.works and one.last_seq for one in log.statuses()))
            socket_sink = log._sinks["socket"]
            for number in range(1_000):
                log.note(record(number), has_effect=True)
            await log.write(record(1_000))
            assert socket_sink.waiting
            assert requests(file.content)[-1] == "r1000"
            peers[0].close()
            await notes.until(AuditSinkFailed)
            assert [one.works for one in log.statuses()] == [False, True]
            listener.close()


async def test_a_missing_collector_is_a_failed_sink(tmp_path: Path) -> None:
    async with audit_log(tmp_path, SocketTarget(tmp_path / "nobody")) as (log, _):
        assert not log.works
        assert any("socket" in one for one in log.warnings())
