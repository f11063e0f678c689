"""Checks what a supervisor and its workers agree on, without processes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lessor_server.commands.worker import WorkerPlace
from lessor_server.commands.workers import MAX_WORKERS, WorkersUnusable, hold_ports, require_shared
from lessor_server.grpc_server import PortTaken
from lessor_server.settings.model import Settings, load
from lessor_server.settings.parsers import Address, Listener


def settings(**variables: str) -> Settings:
    """Return the settings of variables."""
    given = {
        "LESSOR_STORE_URL": "postgresql://lessor@db/lessor",
        "LESSOR_SEALING_KEY": "env:KEY",
        "LESSOR_ROOT_TOKEN": "the-root-token-of-tests",
        **variables,
    }
    return load(None, given)


def test_a_worker_shares_ports_and_has_an_audit_file_of_its_own() -> None:
    place = WorkerPlace.parse("2:50051,50052:abc")
    assert str(place) == "2:50051,50052:abc"
    base = settings(LESSOR_LISTEN="127.0.0.1:0,127.0.0.1:50052", LESSOR_AUDIT_FILE="/var/log/audit.log")
    own = place.apply(base)
    assert [one.address.port for one in own.listen] == [50051, 50052]
    assert own.audit.file == Path("/var/log/audit.log.2")
    assert (own.worker, base.worker) == (2, 0)


def test_a_worker_serves_its_metrics_to_its_supervisor() -> None:
    place = WorkerPlace(3, (50051,), "abc")
    address = place.apply(settings(LESSOR_METRICS_LISTEN="127.0.0.1:9464")).metrics.listen
    assert address == Address(path="lessor-worker/abc/3")


def test_workers_share_the_port_of_http() -> None:
    given = settings(LESSOR_LISTEN="127.0.0.1:0", LESSOR_HTTP_LISTEN="127.0.0.1:0")
    own = WorkerPlace.parse("2:50051,8200:supervisor").apply(given)
    assert own.http.listen is not None
    assert own.http.listen.address == Address("127.0.0.1", 8200)
    assert [one.address.port for one in own.listen] == [50051]


def test_a_worker_has_no_metrics_unless_they_are_on() -> None:
    assert WorkerPlace(3, (50051,), "abc").apply(settings()).metrics.listen is None


@pytest.mark.parametrize(
    ("variables", "count", "why"),
    [
        ({"LESSOR_STORE_URL": "sqlite:"}, 2, "several workers need PostgreSQL"),
        ({"LESSOR_LISTEN": "unix:/tmp/lessor.sock"}, 2, "cannot share unix:/tmp/lessor.sock"),
        ({}, 0, "is not from 1 to"),
        ({}, MAX_WORKERS + 1, "is not from 1 to"),
    ],
)
def test_settings_that_workers_cannot_share_are_refused(
    variables: dict[str, str], count: int, why: str
) -> None:
    with pytest.raises(WorkersUnusable, match=why):
        require_shared(settings(**variables), count)


def test_a_port_is_held_for_workers_only() -> None:
    with hold_ports([Listener(Address(host="127.0.0.1", port=0))]) as (port,):
        listener = Listener(Address(host="127.0.0.1", port=port))
        with pytest.raises(PortTaken), hold_ports([listener]):
            pass
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(("127.0.0.1", port))
            worker.listen()
    with hold_ports([listener]) as ports:
        assert ports == (port,)


def test_a_port_on_which_somebody_listens_is_refused() -> None:
    """Also if they would share it."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        listener = Listener(Address(host="127.0.0.1", port=other.getsockname()[1]))
        with pytest.raises(PortTaken, match="cannot listen on"), hold_ports([listener]):
            pass
