"""``lessor.testing``: a dev server for the tests of other programs."""

from __future__ import annotations

import os

import pytest

import lessor
from lessor.testing import DevServer, DevServerFailed, dev_server, run_dev_server

__all__ = ["dev_server"]

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.slow]


def test_the_fixture_has_a_server_and_its_aws(dev_server: DevServer) -> None:
    with lessor.sync.Client(dev_server.address, token=dev_server.token) as client:
        assert client.get_info().dev_mode
    assert dev_server.aws_url.startswith("http://127.0.0.1:")
    assert dev_server.token not in repr(dev_server)
    with lessor.sync.Client.from_environ(dev_server.environ) as client:
        assert client.who_am_i().identity == "root"


def test_a_server_ends_with_its_block_and_ignores_variables_of_the_caller() -> None:
    environ = {**os.environ, "LESSOR_UNKNOWN": "1", "LESSOR_TOKEN": "x", "LESSOR_LISTEN": "nowhere"}
    with run_dev_server(environ=environ) as server:
        pass
    with (
        lessor.sync.Client(server.address, token=server.token, timeout=0.3) as client,
        pytest.raises(lessor.Unavailable),
    ):
        client.get_info()


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(DevServerFailed, match="No such option"), run_dev_server("--no-such-option"):
        pass
