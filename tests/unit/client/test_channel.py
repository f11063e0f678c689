"""How a client reaches its server: the address, TLS, and the token."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessor.channel import BadConnection, Connection
from lessor_server.services.channel_options import MIN_CLIENT_PING_INTERVAL

TOKEN = "a-token-for-tests"


@pytest.mark.parametrize(
    ("address", "target", "tls"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051", False),
        ("lessor.example", "lessor.example:50051", False),
        ("[::1]", "[::1]:50051", False),
        ("[::1]:7", "[::1]:7", False),
        ("http://lessor.example:80/", "lessor.example:80", False),
        ("grpc://lessor.example", "lessor.example:50051", False),
        ("https://lessor.example", "lessor.example:443", True),
        ("grpcs://lessor.example:50051", "lessor.example:50051", True),
        ("unix:/run/lessor.sock", "unix:/run/lessor.sock", False),
        ("unix:///run/lessor.sock", "unix:///run/lessor.sock", False),
    ],
)
def test_an_address_says_where_to_go_and_whether_by_tls(address: str, target: str, tls: bool) -> None:
    """The scheme alone decides on TLS where no CA file is given."""
    connection = Connection(address)
    assert connection.target == target
    assert (connection.credentials() is not None) is tls


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ftp://x:1",
        ":50051",
        "::1",
        "host:",
        "host:0",
        "host:65536",
        "host:port",
        "user@host:1",
        "h/x:1",
        "unix:",
    ],
)
def test_an_address_of_another_form_is_refused(address: str) -> None:
    """A slip of the pen is told before anything is dialled."""
    with pytest.raises(BadConnection):
        assert Connection(address).target


def test_the_variables_describe_a_connection() -> None:
    """Each of the six variables counts; one that is empty counts as not set."""
    environ = {
        "LESSOR_ADDR": "host:1",
        "LESSOR_TOKEN": "",
        "LESSOR_TOKEN_FILE": "token",
        "LESSOR_CACERT": "ca",
        "LESSOR_CLIENT_CERT": "cert",
        "LESSOR_CLIENT_KEY": "key",
    }
    found = Connection.from_environ(environ)
    assert found == Connection("host:1", "", Path("token"), Path("ca"), Path("cert"), Path("key"))
    assert Connection.from_environ({"LESSOR_ADDR": "", "LESSOR_CACERT": ""}) == Connection()


def test_the_token_file_is_read_at_each_use(tmp_path: Path) -> None:
    """A token that was replaced is the one that is sent next."""
    file = tmp_path / "token"
    connection = Connection(token_file=file)
    for token in (TOKEN, f"{TOKEN}-2"):
        file.write_text(f"{token}\n", encoding="ascii")
        assert connection.metadata() == (("authorization", f"Bearer {token}"),)


def test_the_token_itself_wins_over_its_file() -> None:
    """With both given the file is not even read."""
    connection = Connection(token=TOKEN, token_file=Path("not-there"))
    assert connection.metadata() == (("authorization", f"Bearer {TOKEN}"),)


def test_no_token_sends_nothing() -> None:
    """A caller without a token is told by the server what it lacks."""
    assert Connection().metadata() == ()


@pytest.mark.parametrize("content", ["", "\n", "two words", "é"])
def test_a_token_that_cannot_be_sent_is_refused(content: str, tmp_path: Path) -> None:
    """An empty file and characters that metadata can't carry are told; the token is not."""
    (tmp_path / "token").write_text(content, encoding="utf-8")
    with pytest.raises(BadConnection) as refused:
        Connection(token_file=tmp_path / "token").metadata()
    assert "two words" not in str(refused.value)


def test_a_token_is_never_shown() -> None:
    """The repr, which ends up in logs, has no token."""
    assert TOKEN not in repr(Connection(token=TOKEN))


def test_a_ca_file_means_tls(tmp_path: Path) -> None:
    """With a CA file a bare address is dialled by TLS, a socket of this machine is not."""
    ca = tmp_path / "ca.pem"
    ca.write_text("", encoding="ascii")
    assert Connection("host:1", ca_file=ca).credentials() is not None
    assert Connection("unix:/run/lessor.sock", ca_file=ca).credentials() is None


def test_tls_that_is_half_asked_for_is_refused(tmp_path: Path) -> None:
    """Nothing falls back to the clear: neither a CA file with http:// nor a missing file or key."""
    ca = tmp_path / "ca.pem"
    ca.write_text("", encoding="ascii")
    for connection in (
        Connection("http://host:1", ca_file=ca),
        Connection("https://host:1", ca_file=tmp_path / "not-there"),
        Connection("https://host:1", cert_file=ca),
        Connection("https://host:1", key_file=ca),
    ):
        with pytest.raises(BadConnection):
            connection.credentials()


@pytest.mark.parametrize(
    ("address", "direct"), [("127.0.0.1:1", True), ("unix:/s", True), ("lessor.example:1", False)]
)
def test_no_proxy_stands_between_two_ends_of_one_machine(address: str, *, direct: bool) -> None:
    """A proxy of the environment is for other machines."""
    assert (("grpc.enable_http_proxy", 0) in Connection(address).options) is direct


@pytest.mark.parametrize("address", ["127.0.0.1:1", "https://lessor.example"])
def test_a_channel_pings_every_30_seconds_and_the_server_takes_that(address: str) -> None:
    options = dict(Connection(address).options)
    assert options["grpc.keepalive_time_ms"] == 30_000
    assert MIN_CLIENT_PING_INTERVAL.total_seconds() <= 30
