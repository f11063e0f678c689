"""The backend counts calls and what lives, within its limit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from bench.backend import Backend

from tests.support.standin_http import Connection
from tests.support.virtual_loop import VirtualLoop

_CREATE = b"Action=CreateUser&Version=2010-05-08&UserName=anna"


class Caller:
    """A connection to a backend, over a transport that collects what is written."""

    def __init__(self, backend: Backend) -> None:
        self.written: list[bytes] = []
        self._connection: Connection = backend.connect()
        self._connection.connection_made(self)  # type: ignore[arg-type]

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def send(self, method: str, target: str, body: bytes = b"") -> str:
        """Send a request and return the answer that came at once; empty if none did."""
        self.written.clear()
        head = f"{method} {target} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        self._connection.data_received(head.encode() + body)
        return b"".join(self.written).decode()


@pytest.fixture(name="loop")
def virtual() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    loop.close()


@pytest.fixture(name="backend")
def answering(loop: VirtualLoop) -> Backend:
    return Backend(loop)


@pytest.fixture(name="caller")
def calling(backend: Backend) -> Caller:
    return Caller(backend)


def test_a_user_of_iam_lives_until_it_is_deleted(backend: Backend, caller: Caller) -> None:
    assert "<UserName>anna</UserName>" in caller.send("POST", "/", _CREATE)
    assert backend.obey({})["living"] == {"iam": 1, "rabbitmq": 0}
    caller.send("POST", "/", b"UserName=anna&Action=DeleteUser")
    assert backend.obey({}) == {
        "calls": {"CreateUser": 1, "DeleteUser": 1},
        "living": {"iam": 0, "rabbitmq": 0},
        "peak": 2,
    }


def test_a_user_of_rabbitmq_takes_two_calls(backend: Backend, caller: Caller) -> None:
    assert caller.send("PUT", "/api/users/anna", b"{}").startswith("HTTP/1.1 201")
    caller.send("PUT", "/api/permissions/%2F/anna", b"{}")
    state = backend.obey({})
    assert (state["calls"], state["living"]) == (
        {"PUT users": 1, "PUT permissions": 1},
        {"iam": 0, "rabbitmq": 1},
    )
    assert caller.send("DELETE", "/api/users/anna").startswith("HTTP/1.1 204")
    assert backend.obey({})["living"] == {"iam": 0, "rabbitmq": 0}


def test_no_second_has_more_calls_than_the_limit(backend: Backend, caller: Caller, loop: VirtualLoop) -> None:
    """A call above it is throttled, has no effect, and shows in the highest second."""
    backend.obey({"limit": 2})
    answers = [caller.send("POST", "/", _CREATE.replace(b"anna", name)) for name in (b"a", b"b", b"c")]
    assert ["Throttling" in answer for answer in answers] == [False, False, True]
    state = backend.obey({})
    assert (state["living"], state["peak"]) == ({"iam": 2, "rabbitmq": 0}, 3)
    loop.run_until_complete(asyncio.sleep(1))
    assert "Throttling" not in caller.send("POST", "/", _CREATE)


def test_an_answer_takes_its_latency(backend: Backend, caller: Caller, loop: VirtualLoop) -> None:
    backend.obey({"latency": 0.05})
    assert not caller.send("POST", "/", _CREATE)
    loop.run_until_complete(asyncio.sleep(0.049))
    assert not caller.written
    loop.run_until_complete(asyncio.sleep(0.002))
    assert len(caller.written) == 1
