"""Checks how a client connects: address, TLS and token."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from lessor.channel import BadConnection, Connection, PlaintextWarning
from lessor_server.services.channel_options import MIN_CLIENT_PING_INTERVAL

TOKEN = "a-token-for-tests"
PEM = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("lessor.example", "lessor.example:50051"),
        ("[::1]", "[::1]:50051"),
        ("[::1]:7", "[::1]:7"),
        ("http://127.0.0.1:80/", "127.0.0.1:80"),
        ("grpc://lessor.example", "lessor.example:50051"),
        ("https://lessor.example", "lessor.example:443"),
        ("grpcs://lessor.example:50051", "lessor.example:50051"),
        ("unix:///run/lessor.sock", "unix:///run/lessor.sock"),
        ("HTTPS://lessor.example:50051", "lessor.example:50051"),
        ("Https://lessor.example", "lessor.example:443"),
        ("HTTP://127.0.0.1:80", "127.0.0.1:80"),
        ("GRPC://lessor.example", "lessor.example:50051"),
        ("UNIX:/run/Lessor.sock", "unix:/run/Lessor.sock"),
        ("UNIX:///run/Lessor.sock", "unix:///run/Lessor.sock"),
    ],
)
def test_an_address_is_parsed(address: str, target: str) -> None:
    assert Connection(address).target == target


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:50051",
        "127.8.9.10:50051",
        "[::1]:50051",
        "localhost:50051",
        "LocalHost:50051",
        "http://localhost:50051",
        "http://127.0.0.1",
        "http://[::1]:50051",
        "grpc://127.0.0.1:50051",
        "unix:/run/lessor.sock",
        "unix:///run/lessor.sock",
        "UNIX:/run/lessor.sock",
        "HTTP://localhost:50051",
    ],
)
def test_on_loopback_the_connection_is_plaintext_without_a_warning(address: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Connection(address, token=TOKEN).credentials() is None


@pytest.mark.parametrize(
    "address",
    [
        "192.0.2.2:50051",
        "10.0.0.1:50051",
        "lessor.example",
        "lessor.example:50051",
        "grpc://lessor.example:50051",
        "[2001:db8::1]:50051",
        "localhost.example:50051",
        "localhost.:50051",
        "my.localhost:50051",
        "127.0.0.1.example:50051",
        "127.1:50051",
        "0x7f000001:50051",
        "2130706433:50051",
        "0.0.0.0:50051",
        "[::]:50051",
        "[::ffff:192.0.2.2]:50051",
        "https://127.0.0.1:50051",
        "grpcs://localhost:50051",
        "HTTPS://127.0.0.1:50051",
    ],
)
def test_everywhere_else_and_where_asked_for_the_connection_uses_tls(address: str) -> None:
    """A name that resolves to loopback today may not do so tomorrow."""
    assert Connection(address, token=TOKEN).credentials() is not None


@pytest.mark.parametrize(
    "address",
    ["http://192.0.2.2:50051", "http://lessor.example", "http://[2001:db8::1]:50051", "http://127.1:50051"],
)
def test_plaintext_to_another_machine_needs_http_and_warns(address: str) -> None:
    with pytest.warns(PlaintextWarning, match="means plaintext") as caught:
        assert Connection(address, token=TOKEN).credentials() is None
    assert TOKEN not in str(caught[0].message)


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
        "UNIX:",
        "FTP://x:1",
    ],
)
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(BadConnection):
        assert Connection(address).target


def test_the_variables_describe_a_connection() -> None:
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
    file = tmp_path / "token"
    connection = Connection(token_file=file)
    for token in (TOKEN, f"{TOKEN}-2"):
        file.write_text(f"{token}\n", encoding="ascii")
        assert connection.metadata() == (("authorization", f"Bearer {token}"),)


def test_the_token_itself_wins_over_its_file() -> None:
    connection = Connection(token=TOKEN, token_file=Path("not-there"))
    assert connection.metadata() == (("authorization", f"Bearer {TOKEN}"),)


def test_a_token_may_come_through_a_pipe() -> None:
    """As from ``<(command)`` of a shell."""
    read, written = os.pipe()
    os.write(written, TOKEN.encode())
    os.close(written)
    with os.fdopen(read):
        connection = Connection(token_file=Path(f"/dev/fd/{read}"))
        assert connection.metadata() == (("authorization", f"Bearer {TOKEN}"),)


def test_a_pipe_without_data_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lessor.channel.PIPE_SECONDS", 0.0)
    os.mkfifo(tmp_path / "token")
    with pytest.raises(BadConnection, match="token delivered nothing for 0 s"):
        Connection(token_file=tmp_path / "token").metadata()
    with pytest.raises(BadConnection, match="token delivered nothing for 0 s"):
        Connection("https://localhost", ca_file=tmp_path / "token").credentials()


def test_a_device_is_refused_as_token_file() -> None:
    with pytest.raises(BadConnection, match="is not a file"):
        Connection(token_file=Path("/dev/zero")).metadata()


def test_without_a_token_no_metadata_is_sent() -> None:
    assert Connection().metadata() == ()


@pytest.mark.parametrize("content", ["", "\n", "two words", "é"])
def test_a_token_that_cannot_be_sent_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(content, encoding="utf-8")
    with pytest.raises(BadConnection) as refused:
        Connection(token_file=tmp_path / "token").metadata()
    assert "two words" not in str(refused.value)


def test_a_token_is_never_shown() -> None:
    assert TOKEN not in repr(Connection(token=TOKEN))


def test_files_for_tls_mean_tls(tmp_path: Path) -> None:
    pem = tmp_path / "file.pem"
    pem.write_text(PEM, encoding="ascii")
    assert Connection("127.0.0.1:1", ca_file=pem).credentials() is not None
    assert Connection("127.0.0.1:1", cert_file=pem, key_file=pem).credentials() is not None
    assert Connection("unix:/run/lessor.sock", ca_file=pem).credentials() is None


def test_tls_that_is_set_up_in_part_is_refused(tmp_path: Path) -> None:
    pem, other = tmp_path / "file.pem", tmp_path / "file.txt"
    pem.write_text(PEM, encoding="ascii")
    other.write_text("no certificate", encoding="ascii")
    for connection in (
        Connection("http://host:1", ca_file=pem),
        Connection("http://127.0.0.1:1", ca_file=pem),
        Connection("http://host:1", cert_file=pem, key_file=pem),
        Connection("https://host:1", ca_file=tmp_path / "not-there"),
        Connection("https://host:1", ca_file=other),
        Connection("https://host:1", cert_file=pem, key_file=other),
        Connection("https://host:1", cert_file=pem),
        Connection("https://host:1", key_file=pem),
        Connection("127.0.0.1:1", key_file=pem),
    ):
        with pytest.raises(BadConnection):
            connection.credentials()


@pytest.mark.parametrize(
    ("address", "direct"),
    [("127.0.0.1:1", True), ("unix:/s", True), ("lessor.example:1", False), ("127.example:1", False)],
)
def test_no_proxy_is_used_on_loopback(address: str, *, direct: bool) -> None:
    assert (("grpc.enable_http_proxy", 0) in Connection(address).options) is direct


@pytest.mark.parametrize("address", ["127.0.0.1:1", "https://lessor.example"])
def test_a_channel_pings_every_30_seconds_and_the_server_allows_that(address: str) -> None:
    options = dict(Connection(address).options)
    assert options["grpc.keepalive_time_ms"] == 30_000
    assert MIN_CLIENT_PING_INTERVAL.total_seconds() <= 30
