"""Checks the rules of the settings, and that every problem is reported."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lessor_server.settings.model import Settings, load
from lessor_server.settings.parsers import Address, Listener
from lessor_server.settings.sources import Problem, SettingsError

TOKEN = "a-token-for-tests"


def written(folder: Path, text: str) -> Path:
    """Write a settings file."""
    file = folder / "lessor.toml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(file: Path | None = None, **variables: str) -> tuple[Problem, ...]:
    """Return what loading complains of; it must complain."""
    with pytest.raises(SettingsError) as caught:
        load(file, variables)
    return caught.value.problems


def problem_of(file: Path | None = None, **variables: str) -> str:
    """Return the one complaint as it is printed."""
    (problem,) = problems(file, **variables)
    return str(problem)


def pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    cert = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{name}.crt", folder / f"{name}.key"
    cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert_file, key_file


def test_the_defaults_are_valid_settings() -> None:
    settings = load(None, {})
    assert settings == Settings()
    assert settings.listen == (Listener(Address(host="127.0.0.1", port=50051)),)
    assert settings.aws.in_flight == 64
    assert settings.drain_grace == timedelta(seconds=10)


def test_every_setting_has_a_variable(tmp_path: Path) -> None:
    access = written(tmp_path, "")
    settings = load(
        None,
        {
            "LESSOR_LISTEN": "[::1]:0",
            "LESSOR_DATA_DIR": str(tmp_path / "data"),
            "LESSOR_ROOT_TOKEN": TOKEN,
            "LESSOR_REFLECTION": "false",
            "LESSOR_DRAIN_GRACE": "1m30s",
            "LESSOR_AWS_ALLOWED_ENDPOINTS": "http://127.0.0.1:5000/, https://Aws.Example",
            "LESSOR_AWS_AMBIENT_MOUNTS": "aws,other",
            "LESSOR_AWS_IDENTITY_TOKEN_DIRS": f"{tmp_path},/",
            "LESSOR_AWS_RATE": "2.5",
            "LESSOR_AWS_IN_FLIGHT": "8",
            "LESSOR_LIMITS_CONNECTIONS": "7",
            "LESSOR_LIMITS_STREAMS_PER_CONNECTION": "8",
            "LESSOR_LIMITS_METADATA_BYTES": "2048",
            "LESSOR_LIMITS_CONNECTION_IDLE": "1m",
            "LESSOR_LIMITS_CONNECTION_AGE": "2h",
            "LESSOR_LIMITS_CONCURRENT_CALLS": "9",
            "LESSOR_LIMITS_CALLS_PER_IDENTITY": "10",
            "LESSOR_LIMITS_WATCHES_PER_IDENTITY": "11",
            "LESSOR_LIMITS_RATE_PER_IDENTITY": "12.5",
            "LESSOR_LIMITS_NEW_JWTS_PER_PEER": "13",
            "LESSOR_LIMITS_NEW_JWTS": "14",
            "LESSOR_ACCESS_FILE": str(access),
            "LESSOR_ACCESS_ROOT_TOKEN": "false",
            "LESSOR_LOG_LEVEL": "DEBUG",
            "LESSOR_LOG_FORMAT": "json",
            "HOME": "/nowhere",
        },
    )
    assert settings.listen == (Listener(Address(host="::1")),)
    assert settings.data_dir == tmp_path / "data"
    assert settings.root_token is not None
    assert settings.root_token.matches(TOKEN)
    assert settings.reflection is False
    assert settings.drain_grace == timedelta(seconds=90)
    assert settings.aws.allowed_endpoints == ("http://127.0.0.1:5000", "https://aws.example")
    assert settings.aws.ambient_mounts == ("aws", "other")
    assert settings.aws.identity_token_dirs == (tmp_path, Path("/"))
    assert settings.token_places.enforced
    assert (settings.aws.rate, settings.aws.in_flight) == (2.5, 8)
    limits = [7, 8, 2048, timedelta(minutes=1), timedelta(hours=2), 9, 10, 11, 12.5, 13, 14]
    assert list(dict(settings.limits).values()) == limits
    assert (settings.log.level, settings.log.format) == ("debug", "json")
    assert (settings.access.file, settings.access.root_token) == (access, False)


def test_a_variable_overrides_the_file(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        'listen = "unix:/run/lessor.sock"\nreflection = false\n'
        '[aws]\nrate = 5\nin_flight = 2\nallowed_endpoints = ["http://localhost:5000"]\n[log]\n',
    )
    settings = load(file, {"LESSOR_AWS_RATE": "7"})
    assert settings.listen == (Listener(Address(path="/run/lessor.sock")),)
    assert settings.reflection is False
    assert settings.aws.rate == 7
    assert settings.aws.in_flight == 2
    assert settings.aws.allowed_endpoints == ("http://localhost:5000",)


def test_schemes_and_hosts_are_case_insensitive() -> None:
    """RFC 3986, 3.1 and 3.2.2. The path of a socket is case-sensitive."""
    settings = load(
        None, {"LESSOR_LISTEN": "UNIX:/run/L", "LESSOR_AWS_ALLOWED_ENDPOINTS": "HTTP://Localhost:1"}
    )
    assert settings.listen == (Listener(Address(path="/run/L")),)
    assert settings.aws.allowed_endpoints == ("http://localhost:1",)


def test_all_problems_are_reported_with_their_lines_or_variables(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        '# comment\nlisten = "here"\nroot_token = "short"\n\n[aws]\nrate = -1\n"in_flight" = 1.5\nrat = 3\n',
    )
    found = problems(file, LESSOR_LOG_LEVEL="loud", LESSOR_DATADIR="x")
    assert {(problem.where, problem.setting) for problem in found} == {
        (str(file), "listen"),
        (str(file), "root_token"),
        (str(file), "aws.rate"),
        (str(file), "aws.in_flight"),
        (str(file), "aws.rat"),
        ("LESSOR_LOG_LEVEL", "log.level"),
        ("LESSOR_DATADIR", ""),
    }


def test_a_conflict_and_each_item_of_a_list_are_reported_with_other_problems(tmp_path: Path) -> None:
    cert, _ = pair(tmp_path, "a")
    found = problems(
        written(tmp_path, f'root_token = "{TOKEN}"\n[tls]\ncert_file = "{cert}"\n'),
        LESSOR_ROOT_TOKEN_FILE="/none",
        LESSOR_AWS_ALLOWED_ENDPOINTS="http://a/b,http://c,ftp://d",
        LESSOR_AWS_AMBIENT_MOUNTS="a b",
    )
    assert [(problem.where, problem.setting) for problem in found] == [
        ("LESSOR_ROOT_TOKEN_FILE", "root_token_file"),
        ("LESSOR_AWS_ALLOWED_ENDPOINTS", "aws.allowed_endpoints[0]"),
        ("LESSOR_AWS_ALLOWED_ENDPOINTS", "aws.allowed_endpoints[2]"),
        ("LESSOR_AWS_AMBIENT_MOUNTS", "aws.ambient_mounts[0]"),
        (str(tmp_path / "lessor.toml"), "tls.cert_file"),
        ("LESSOR_ROOT_TOKEN_FILE", "root_token_file"),
    ]


def test_a_conflict_in_the_file_is_reported_where_both_values_are_invalid(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        'root_token = "short"\nroot_token_file = "/none"\n[tls]\ncert_file = "/a"\nkey_file = "/b"\n',
    )
    found = problems(file)
    assert {problem.where for problem in found} == {str(file)}
    assert "root_token_file: is set together with root_token" in str(found[-1])


def test_a_toml_error_is_reported_with_its_line(tmp_path: Path) -> None:
    file = written(tmp_path, 'reflection = true\nlisten = "127.0.0.1:1\n')
    assert problem_of(file).startswith(f"{file}:2: ")


def test_toml_that_ends_too_early_is_reported_with_its_last_line(tmp_path: Path) -> None:
    file = written(tmp_path, "[aws]\nallowed_endpoints = [\n")
    assert problem_of(file).startswith(f"{file}:2: ")


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    assert "No such file" in problem_of(tmp_path / "missing.toml")
    assert "is not a regular file" in problem_of(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in problem_of(tmp_path / "pipe")
    assert "is not a regular file" in problem_of(LESSOR_ROOT_TOKEN_FILE=str(tmp_path / "pipe"))
    assert "not UTF-8" in problem_of(binary)


@pytest.mark.parametrize("unknown", ["LESSOR_AWS_RATES", "LESSOR_", "LESSOR_TLS"])
def test_an_unknown_variable_stops_the_start(unknown: str) -> None:
    assert problem_of(**{unknown: "1"}).startswith(f"{unknown}: is not a setting")


def test_an_unknown_table_is_reported_with_the_nearest_name() -> None:
    assert "did you mean LESSOR_AWS_RATE?" in problem_of(LESSOR_AWS_RATES="1")


@pytest.mark.parametrize("text", ["[other]\n", "[aws.rate]\nx = 1\n", "aws = 1\n", "[[aws]]\nrate = 1\n"])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    assert "is not a setting" in problem_of(written(tmp_path, text))


def test_a_table_where_a_value_belongs_is_refused_under_a_variable_too(tmp_path: Path) -> None:
    file = written(tmp_path, "[aws.rate]\nx = 1\n")
    assert problem_of(file, LESSOR_AWS_RATE="1").startswith(f"{file}: aws.rate.x: is not a setting; ")


def test_an_item_of_a_text_with_commas_is_reported_at_the_text(tmp_path: Path) -> None:
    file = written(tmp_path, '[aws]\nambient_mounts = "a,b c"\n')
    assert problem_of(file).startswith(f"{file}: aws.ambient_mounts[1]: ")


def test_the_variables_of_the_client_are_ignored() -> None:
    names = (
        *("ADDR", "TOKEN", "TOKEN_FILE", "CACERT", "CLIENT_CERT", "CLIENT_KEY"),
        *("CONTEXT", "FORMAT", "LEASE_ID", "ROLE"),
    )
    assert load(None, {f"LESSOR_{name}": "anything" for name in names}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LISTEN", ""),
        ("LISTEN", "50051"),
        ("LISTEN", ":50051"),
        ("LISTEN", "127.0.0.1:65536"),
        ("LISTEN", "::1:50051"),
        ("LISTEN", "[nope]:1"),
        ("LISTEN", "unix:relative"),
        ("REFLECTION", "yes"),
        ("DRAIN_GRACE", "10"),
        ("DRAIN_GRACE", ""),
        ("DRAIN_GRACE", "30m1h"),
        ("DRAIN_GRACE", "61m"),
        ("AWS_RATE", "0"),
        ("AWS_RATE", "nan"),
        ("AWS_RATE", "inf"),
        ("AWS_RATE", "fast"),
        ("AWS_IN_FLIGHT", "0"),
        ("AWS_IN_FLIGHT", "1.5"),
        ("LIMITS_CONNECTIONS", "0"),
        ("LIMITS_STREAMS_PER_CONNECTION", "many"),
        ("LIMITS_METADATA_BYTES", "1"),
        ("LIMITS_CONNECTION_IDLE", "0s"),
        ("LIMITS_CONNECTION_AGE", "25h"),
        ("LIMITS_CONCURRENT_CALLS", "-1"),
        ("AWS_ALLOWED_ENDPOINTS", "127.0.0.1:5000"),
        ("AWS_ALLOWED_ENDPOINTS", "http://host/path"),
        ("AWS_ALLOWED_ENDPOINTS", "http://host:port"),
        ("AWS_AMBIENT_MOUNTS", "a b"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("ROOT_TOKEN_FILE", "/does/not/exist"),
        ("ROOT_TOKEN", "fifteen-letters"),
        ("ROOT_TOKEN", "with blanks in its middle"),
    ],
)
def test_an_invalid_value_is_refused_with_its_variable(variable: str, value: str) -> None:
    assert problem_of(**{f"LESSOR_{variable}": value}).startswith(f"LESSOR_{variable}: ")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/tmp", '"unix:/tmp" exists and is not a socket; name a file that does not exist yet'),
        (
            "/nonexistent/x",
            "No such file or directory; name a file in an existing folder",
        ),
        ("/etc/passwd/x", "is not in a folder; name a file in an existing folder"),
        ("/tmp/" + "x" * 103, "has a path of 108 bytes; give a path of at most 107"),
        ("/tmp/" + "\u00e9" * 52, "has a path of 109 bytes; give a path of at most 107"),
    ],
)
def test_a_path_that_can_hold_no_socket_is_refused_with_its_fix(path: str, problem: str) -> None:
    assert problem_of(LESSOR_LISTEN=f"unix:{path}").startswith("LESSOR_LISTEN: listen: ")
    assert problem_of(LESSOR_LISTEN=f"unix:{path}").endswith(problem)


def test_a_stale_socket_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert load(None, {"LESSOR_LISTEN": f"unix:{path}"}).listen[0].address == Address(path=str(path))


def test_a_text_with_a_nul_character_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, 'data_dir = "a\\u0000b"\n')
    assert problem_of(file).endswith("data_dir: holds a NUL character; remove it")


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("listen = 50051", "listen"),
        ("reflection = 1", "reflection"),
        ("drain_grace = 10", "drain_grace"),
        ("root_token = 1234567890123456", "root_token"),
        ("[aws]\nrate = true", "aws.rate"),
        ("[aws]\nallowed_endpoints = [1]", "aws.allowed_endpoints[0]"),
        ("[aws]\nambient_mounts = 2020-01-01", "aws.ambient_mounts"),
        ("[log]\nlevel = []", "log.level"),
    ],
)
def test_a_value_of_another_type_is_refused(tmp_path: Path, text: str, setting: str) -> None:
    file = written(tmp_path, text)
    assert problem_of(file).startswith(f"{file}: {setting}: ")


def test_listen_may_name_several_addresses(tmp_path: Path) -> None:
    text = '[[listen]]\naddress = "127.0.0.1:1"\n[[listen]]\naddress = "[::1]:2"\nclient_auth = "none"\n'
    first, second = load(written(tmp_path, text), {}).listen
    assert (str(first.address), first.client_auth) == ("127.0.0.1:1", "")
    assert (str(second.address), second.client_auth) == ("[::1]:2", "none")
    by_variable = load(None, {"LESSOR_LISTEN": "127.0.0.1:1, [::1]:2"}).listen
    assert [str(one.address) for one in by_variable] == ["127.0.0.1:1", "[::1]:2"]
    mixed = load(written(tmp_path, 'listen = ["127.0.0.1:1", {address = "[::1]:2"}]'), {}).listen
    assert mixed == by_variable


@pytest.mark.parametrize(
    ("listen", "problem"),
    [
        ("[]", "names no address"),
        ('["127.0.0.1:1", "here"]', '"here" has no port'),
        ('[{client_auth = "none"}]', "has no address"),
        ('[{address = "127.0.0.1:1", client_auth = "maybe"}]', '"maybe" is not a valid choice'),
        ('[{address = "127.0.0.1:1", tls = true}]', 'has an unknown key "tls"'),
        ('["127.0.0.1:1", "127.0.0.1:1"]', "has 127.0.0.1:1 twice"),
        ('[{address = "127.0.0.1:1", client_auth = "require"}]', "no authority of client certificates"),
        ('["127.0.0.1:1", "10.0.0.1:1"]', "10.0.0.1:1 is neither loopback nor a unix socket"),
    ],
)
def test_listeners_that_cannot_be_used_are_refused(tmp_path: Path, listen: str, problem: str) -> None:
    found = problem_of(written(tmp_path, f"listen = {listen}"))
    assert ": listen: " in found
    assert problem in found


def test_a_server_that_nobody_could_call_is_refused() -> None:
    assert "nobody could call" in problem_of(LESSOR_ACCESS_ROOT_TOKEN="false")


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/run/x.sock"]
)
def test_plaintext_is_allowed_on_loopback_and_unix_sockets(listen: str) -> None:
    settings = load(None, {"LESSOR_LISTEN": listen})
    assert [str(one.address) for one in settings.listen] == [listen]
    assert not settings.exposed


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "lessor.example:1", "localhost.example:1"]
)
def test_plaintext_to_other_machines_needs_insecure_listen(listen: str) -> None:
    assert "insecure_listen" in problem_of(LESSOR_LISTEN=listen)
    settings = load(None, {"LESSOR_LISTEN": listen, "LESSOR_INSECURE_LISTEN": "true"})
    assert settings.exposed


def test_with_tls_any_address_is_allowed(tmp_path: Path) -> None:
    cert, key = pair(tmp_path, "a")
    settings = load(
        None,
        {
            "LESSOR_LISTEN": "0.0.0.0:1",
            "LESSOR_TLS_CERT_FILE": str(cert),
            "LESSOR_TLS_KEY_FILE": str(key),
            "LESSOR_TLS_CLIENT_CA_FILE": str(cert),
        },
    )
    assert settings.tls is not None
    assert (settings.tls.cert_file, settings.tls.key_file, settings.tls.client_ca_file) == (cert, key, cert)
    assert not settings.exposed


def test_the_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    cert, _ = pair(tmp_path, "a")
    _, key = pair(tmp_path, "b")
    assert "do not work as a pair" in problem_of(LESSOR_TLS_CERT_FILE=str(cert), LESSOR_TLS_KEY_FILE=str(key))


@pytest.mark.parametrize("name", ["CERT_FILE", "KEY_FILE", "CLIENT_CA_FILE"])
def test_incomplete_tls_is_refused(tmp_path: Path, name: str) -> None:
    cert, _ = pair(tmp_path, "a")
    assert "is set without" in problem_of(**{f"LESSOR_TLS_{name}": str(cert)})


def test_incomplete_tls_on_a_public_address_is_one_problem(tmp_path: Path) -> None:
    """The error must not suggest plaintext to an operator who wants TLS."""
    cert, _ = pair(tmp_path, "a")
    assert "tls.key_file" in problem_of(LESSOR_LISTEN="0.0.0.0:1", LESSOR_TLS_CERT_FILE=str(cert))


def test_a_root_token_and_a_file_of_it_exclude_each_other(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    assert "set one of the two" in problem_of(LESSOR_ROOT_TOKEN=TOKEN, LESSOR_ROOT_TOKEN_FILE=str(file))


def test_a_data_dir_that_is_or_lies_in_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "is not a folder" in problem_of(LESSOR_DATA_DIR=str(file))
    assert "is not a folder" in problem_of(LESSOR_DATA_DIR=str(file / "below"))


def test_a_token_directory_must_be_absolute_and_exist(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    name = "LESSOR_AWS_IDENTITY_TOKEN_DIRS"
    assert "is not an absolute path" in problem_of(**{name: "tokens"})
    assert "is not an absolute path" in problem_of(**{name: f"{tmp_path}/../x"})
    assert "is not a folder" in problem_of(**{name: f"{tmp_path},{file}"})
    assert "is not a folder" in problem_of(**{name: str(tmp_path / "none")})


def test_the_default_token_directories_are_those_of_kubernetes() -> None:
    """They need not exist. An empty list allows none."""
    places = load(None, {}).token_places
    assert places.dirs == ("/var/run/secrets/eks.amazonaws.com/serviceaccount", "/var/run/secrets/tokens")
    assert not places.enforced
    none = load(None, {"LESSOR_AWS_IDENTITY_TOKEN_DIRS": ""}).token_places
    assert (none.dirs, none.enforced) == ((), True)


def test_the_files_of_the_settings_are_refused_as_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cert, key = pair(tmp_path, "server")
    token_file = tmp_path / "root"
    token_file.write_text(TOKEN)
    file = written(
        tmp_path,
        f'data_dir = "data"\nroot_token_file = "root"\n[tls]\ncert_file = "{cert}"\n'
        f'key_file = "{key}"\nclient_ca_file = "server.crt"\n[sealing]\nkey = "file:seal"\n',
    )
    places = load(Path(file.name), {}).token_places
    assert places.data_dir == str(tmp_path / "data")
    assert set(places.private_files) == {str(one) for one in (file, token_file, cert, key, tmp_path / "seal")}


def test_no_secret_is_shown(tmp_path: Path) -> None:
    assert TOKEN not in repr(load(None, {"LESSOR_ROOT_TOKEN": TOKEN}))
    found = problems(
        written(tmp_path, 'root_token = "short-hush"\n'), LESSOR_AWS_ALLOWED_ENDPOINTS="https://me:hush@host"
    )
    assert len(found) == 2
    assert "hush" not in "\n".join(map(str, found))


def test_the_error_has_one_problem_per_line() -> None:
    with pytest.raises(SettingsError) as caught:
        load(None, {"LESSOR_AWS_RATE": "0", "LESSOR_LOG_FORMAT": "xml"})
    assert str(caught.value).splitlines() == [
        'LESSOR_AWS_RATE: aws.rate: "0" is not above 0 and at most 100000; give calls per second',
        'LESSOR_LOG_FORMAT: log.format: "xml" is not a valid choice; write one of auto, json, console',
    ]
