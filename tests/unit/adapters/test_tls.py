"""Checks when gRPC is given a new certificate: it then frees the old one, which handshakes may need."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from tests.support.certificates import Authority

from lessor_server.adapters.tls import SETTLE_SECONDS, NewConfigurations


class Handshakes:
    """The handshakes of a port, in a time of their own."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_000.0
        authority = Authority(folder)
        files = [authority.sign(name) for name in ("first", "second")]
        self.first, self.second = (
            grpc.ssl_server_certificate_configuration([(pair.key.read_bytes(), pair.cert.read_bytes())])
            for pair in files
        )
        self.newest = self.first
        self.slept: list[float] = []
        self.ask = NewConfigurations(lambda: self.newest, lambda: self.now, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture(name="handshakes")
def new_handshakes(tmp_path: Path) -> Handshakes:
    return Handshakes(tmp_path)


def test_a_configuration_that_is_used_is_not_given_again(handshakes: Handshakes) -> None:
    assert [handshakes.ask() for _ in range(3)] == [None, None, None]
    handshakes.newest = handshakes.second
    assert handshakes.ask() is handshakes.second
    assert [handshakes.ask() for _ in range(3)] == [None, None, None]
    handshakes.newest = handshakes.first
    assert handshakes.ask() is handshakes.first


def test_a_new_configuration_waits_until_the_last_handshake_has_gone_on(handshakes: Handshakes) -> None:
    handshakes.ask()
    handshakes.newest = handshakes.second
    handshakes.now += 0.2
    handshakes.ask()
    assert handshakes.slept == [pytest.approx(SETTLE_SECONDS - 0.2)]


def test_without_a_recent_handshake_a_new_configuration_does_not_wait(handshakes: Handshakes) -> None:
    handshakes.newest = handshakes.second
    handshakes.ask()
    handshakes.newest = handshakes.first
    handshakes.now += SETTLE_SECONDS
    handshakes.ask()
    assert handshakes.slept == [0, 0]


def test_a_handshake_that_gets_a_new_configuration_has_time_to_go_on_too(handshakes: Handshakes) -> None:
    handshakes.ask()
    for newest in (handshakes.second, handshakes.first):
        handshakes.newest = newest
        handshakes.ask()
    assert handshakes.slept == [pytest.approx(SETTLE_SECONDS)] * 2
