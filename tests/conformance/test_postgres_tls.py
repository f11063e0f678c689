"""Checks TLS and passwords of connections to PostgreSQL, by a proxy that ends TLS as PostgreSQL does."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from tests.support.access_server import free_port
from tests.support.certificates import Authority
from tests.support.hand_clock import HandClock
from tests.support.postgres import PostgresProcess, own_postgres, shared_postgres
from tests.support.postgres_proxy import PostgresProxy, postgres_proxy
from tests.support.postgres_store import HandDatabaseClock

from lessor_server.adapters.postgres.connection import DatabaseRefused
from lessor_server.adapters.postgres.store import PostgresStore, open_postgres
from lessor_server.adapters.postgres.target import DatabaseTarget

PASSWORD = "hush-hush-hush"


@pytest.fixture(name="authority")
def made(tmp_path: Path) -> Authority:
    """Make an authority of certificates."""
    return Authority(tmp_path)


@asynccontextmanager
async def tls_proxy(
    authority: Authority, names: Sequence[x509.GeneralName] | None = None
) -> AsyncIterator[PostgresProxy]:
    """Run a proxy that ends TLS with a certificate for ``names``, or for localhost."""
    pair = authority.sign("server", names=names)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    async with postgres_proxy(shared_postgres().folder / ".s.PGSQL.5432", context) as proxy:
        yield proxy


@pytest.fixture(name="proxy")
async def proxied(authority: Authority) -> AsyncIterator[PostgresProxy]:
    """Run a proxy that ends TLS with a certificate for localhost."""
    async with tls_proxy(authority) as proxy:
        yield proxy


@pytest.fixture(name="database", scope="module")
def created() -> str:
    """Return the name of a database."""
    name = f"tls{os.getpid()}"
    shared_postgres().create_database(name)
    return name


@asynccontextmanager
async def opened(target: DatabaseTarget) -> AsyncIterator[PostgresStore]:
    """Open a database."""
    async with open_postgres(target, HandDatabaseClock(HandClock())) as store:
        yield store


async def test_a_certificate_of_the_authority_is_accepted(
    proxy: PostgresProxy, authority: Authority, database: str
) -> None:
    for mode in ({}, {"sslmode": "verify-full"}, {"sslmode": "verify-ca"}):
        async with opened(
            DatabaseTarget(proxy.url(database, host="localhost", **mode), authority.ca)
        ) as store:
            assert (await store.status()).schema_version
    assert proxy.connections > 2


async def test_a_certificate_of_another_authority_is_refused(
    proxy: PostgresProxy, database: str, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    with pytest.raises(DatabaseRefused, match="certificate verify failed") as raised:
        async with opened(DatabaseTarget(proxy.url(database), other.ca)):
            pass
    assert "store.ca_file" in raised.value.fix


async def test_the_authorities_of_the_system_are_used_without_a_file(
    proxy: PostgresProxy, database: str
) -> None:
    with pytest.raises(DatabaseRefused, match="certificate verify failed"):
        async with opened(DatabaseTarget(proxy.url(database, sslmode="verify-full"))):
            pass


async def test_a_certificate_for_another_host_is_refused(authority: Authority, database: str) -> None:
    async with tls_proxy(authority, [x509.DNSName("db.example")]) as proxy:
        url = proxy.url(database, host="localhost")
        with pytest.raises(DatabaseRefused, match="not valid for 'localhost'"):
            async with opened(DatabaseTarget(url, authority.ca)):
                pass
        async with opened(DatabaseTarget(f"{url}?sslmode=verify-ca", authority.ca)):
            pass


async def test_a_server_without_tls_is_refused(authority: Authority, database: str) -> None:
    async with postgres_proxy(shared_postgres().folder / ".s.PGSQL.5432") as plain:
        with pytest.raises(DatabaseRefused, match="rejected SSL upgrade") as raised:
            async with opened(DatabaseTarget(plain.url(database), authority.ca)):
                pass
    assert "correct sslmode" in raised.value.fix


async def test_a_parameter_that_nobody_knows_is_to_be_corrected(database: str) -> None:
    url = f"{shared_postgres().url(database)}&colour=blue"
    with pytest.raises(DatabaseRefused, match='unrecognized configuration parameter "colour"') as raised:
        async with opened(DatabaseTarget(url)):
            pass
    assert raised.value.fix.startswith("correct store.url")


# --- passwords ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="guarded")
def with_passwords() -> Iterator[PostgresProcess]:
    """Run a server that wants a password on TCP."""
    with own_postgres(port=free_port()) as server:
        server.run(f"ALTER ROLE lessor PASSWORD '{PASSWORD}'")
        rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (server.data / "pg_hba.conf").write_text(rules)
        server.run("SELECT pg_reload_conf()")
        server.create_database("guarded")
        yield server


async def test_a_password_is_taken_from_the_url_or_a_file(guarded: PostgresProcess, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    plain = f"postgresql://lessor@127.0.0.1:{guarded.port}/guarded"
    targets = (
        DatabaseTarget(plain.replace("lessor@", f"lessor:{PASSWORD}@")),
        DatabaseTarget(plain, password_file=file),
    )
    for target in targets:
        async with opened(target) as store:
            assert (await store.status()).schema_version


async def test_a_wrong_password_is_refused_and_not_shown(guarded: PostgresProcess) -> None:
    url = f"postgresql://lessor:{PASSWORD}x@127.0.0.1:{guarded.port}/guarded"
    with pytest.raises(DatabaseRefused, match="password authentication failed") as raised:
        async with opened(DatabaseTarget(url)):
            pass
    assert PASSWORD not in f"{raised.value} {raised.value.fix}"


async def test_a_standby_is_passed_over_for_the_primary(guarded: PostgresProcess) -> None:
    """Several hosts: those that nobody answers at, and the one that can be written to."""
    url = f"postgresql://lessor:{PASSWORD}@127.0.0.1:1,127.0.0.1:{guarded.port}/guarded"
    async with opened(DatabaseTarget(url)) as store:
        assert (await store.status()).schema_version
