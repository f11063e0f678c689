"""Checks when an answer is too late: a connection keeps its timer from one request to the next."""

from __future__ import annotations

import asyncio

import botocore.exceptions as sdk
import pytest
from tests.support.virtual_loop import virtual

from lessor_server.adapters.aws.http_connection import Connection

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class FakeTransport(asyncio.Transport):
    """Takes all that is written; the server answers each request after some seconds, or never."""

    def __init__(self, connection: Connection) -> None:
        """Serve one connection."""
        super().__init__()
        self._connection = connection
        self._closed = False
        self.delay: float | None = 0.0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Answer a request."""
        del data
        if self.delay is not None:
            asyncio.get_running_loop().call_later(self.delay, self._connection.data_received, OK)

    def get_write_buffer_size(self) -> int:
        """Return that all is sent."""
        return 0

    def is_closing(self) -> bool:
        """Return whether it was closed."""
        return self._closed

    def abort(self) -> None:
        """Close it."""
        self._closed = True


def connected() -> tuple[Connection, FakeTransport]:
    """Return a connection and its transport."""
    connection = Connection("http://127.0.0.1:1")
    transport = FakeTransport(connection)
    connection.connection_made(transport)
    return connection, transport


@virtual
async def test_each_request_has_its_own_deadline() -> None:
    """Whether the deadline of the request before it was earlier or later."""
    loop = asyncio.get_running_loop()
    for seconds in (1.0, 5.0, 20.0):
        connection, transport = connected()
        transport.delay = 0.5
        for _ in range(3):
            assert (await connection.exchange(b"", loop.time() + 5)).body == b"ok"
        transport.delay = None
        began = loop.time()
        with pytest.raises(sdk.ReadTimeoutError):
            await connection.exchange(b"", began + seconds)
        assert loop.time() - began == pytest.approx(seconds)
        assert not connection.is_open


@virtual
async def test_an_answer_just_before_its_deadline_is_taken() -> None:
    loop = asyncio.get_running_loop()
    connection, transport = connected()
    for _ in range(5):
        transport.delay = 4.9
        assert (await connection.exchange(b"", loop.time() + 5)).body == b"ok"
        await asyncio.sleep(2)


@virtual
async def test_an_idle_connection_is_not_closed_by_a_deadline_that_has_passed() -> None:
    loop = asyncio.get_running_loop()
    connection, _ = connected()
    await connection.exchange(b"", loop.time() + 1)
    await asyncio.sleep(10)
    assert connection.is_open
    assert connection.is_reusable
