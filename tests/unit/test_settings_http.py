"""Checks the settings of the HTTP edge."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessor_server.settings.model import load
from lessor_server.settings.parsers import Address
from lessor_server.settings.sources import SettingsError


def problem_of(file: Path | None = None, **variables: str) -> str:
    with pytest.raises(SettingsError) as raised:
        load(file, variables)
    (problem,) = raised.value.problems
    return str(problem)


@pytest.mark.parametrize("value", [None, ""])
def test_the_edge_is_off_by_default_and_with_an_empty_text(value: str | None) -> None:
    settings = load(None, {} if value is None else {"LESSOR_HTTP_LISTEN": value})
    assert settings.http.listen is None
    assert settings.http.vault_api
    assert settings.http.console


def test_a_listener_may_ask_for_no_certificate(tmp_path: Path) -> None:
    file = tmp_path / "lessor.toml"
    file.write_text(
        '[http]\nlisten = {address = "127.0.0.1:8200", client_auth = "none"}\nvault_api = false\n'
    )
    settings = load(file, {})
    assert settings.http.listen is not None
    assert settings.http.listen.address == Address("127.0.0.1", 8200)
    assert settings.http.listen.client_auth == "none"
    assert not settings.http.vault_api


def test_plaintext_beyond_this_machine_needs_insecure_listen() -> None:
    text = problem_of(LESSOR_HTTP_LISTEN="0.0.0.0:8200")
    assert "LESSOR_HTTP_LISTEN" in text
    assert "there is no TLS" in text
    settings = load(None, {"LESSOR_HTTP_LISTEN": "0.0.0.0:8200", "LESSOR_INSECURE_LISTEN": "true"})
    assert settings.exposed


def test_it_needs_an_address_of_its_own() -> None:
    address = "127.0.0.1:8200"
    assert "is also an address of listen" in problem_of(LESSOR_HTTP_LISTEN=address, LESSOR_LISTEN=address)


@pytest.mark.parametrize("value", ["unix:/tmp/http", "8200", "localhost"])
def test_another_address_is_refused(value: str) -> None:
    assert "LESSOR_HTTP_LISTEN" in problem_of(LESSOR_HTTP_LISTEN=value)


def test_hosts_are_names_and_addresses_in_lower_case() -> None:
    given = {"LESSOR_HTTP_HOSTS": "Vault.Example.org,10.0.0.1,[2001:DB8::1]"}
    assert load(None, given).http.hosts == ("vault.example.org", "10.0.0.1", "2001:db8::1")


@pytest.mark.parametrize("value", ["https://vault.example.org", "vault.example.org:8200", "a b", "-x"])
def test_a_host_with_a_scheme_or_a_port_is_refused(value: str) -> None:
    assert "is not a host name" in problem_of(LESSOR_HTTP_HOSTS=value)
