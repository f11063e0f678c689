"""Checks what systemd learns of the process."""

from __future__ import annotations

import socket
from pathlib import Path

from lessor_server.adapters.service_manager import READY, STOPPING, ServiceManager


def test_states_arrive_at_the_socket_of_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        for state in (READY, STOPPING):
            ServiceManager({"NOTIFY_SOCKET": str(path)}).report(state)
        assert [manager.recv(64), manager.recv(64)] == [b"READY=1", b"STOPPING=1"]


def test_an_abstract_socket_begins_with_an_at_sign() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # the system draws an abstract name
        name = manager.getsockname().decode().replace("\0", "@", 1)
        ServiceManager({"NOTIFY_SOCKET": name}).report(READY)
        assert manager.recv(64) == b"READY=1"


def test_nothing_is_sent_without_a_socket_or_to_one_that_is_gone(tmp_path: Path) -> None:
    ServiceManager({}).report(READY)
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).report(READY)
