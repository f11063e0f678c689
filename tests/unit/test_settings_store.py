"""Checks the settings of the store: where it is, and what servers that share one must share."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessor_server.domain.store_url import without_password
from lessor_server.settings.model import STAND_IN, Settings, forget_tokens, load
from lessor_server.settings.sources import SettingsError

AT_AFTER_HOST = "has an @ after its host; in a password / is %2F and ? is %3F"
TOKEN = "a-token-for-tests"
URL = "postgresql://lessor@db.example/lessor"
SHARED = {"LESSOR_STORE_URL": URL, "LESSOR_SEALING_KEY": "env:KEY", "LESSOR_ROOT_TOKEN": TOKEN}


def problems_of(**variables: str) -> list[str]:
    """Return the names of the settings that loading complains of, with the problems."""
    with pytest.raises(SettingsError) as caught:
        load(None, variables)
    return [f"{problem.setting}: {problem.problem}" for problem in caught.value.problems]


def test_the_store_is_sqlite_unless_it_is_set() -> None:
    assert not Settings().store.is_shared
    assert not load(None, {"LESSOR_STORE_URL": "sqlite:"}).store.is_shared
    assert load(None, SHARED).store.is_shared


def test_what_servers_share_has_no_default() -> None:
    (key, token) = problems_of(LESSOR_STORE_URL=URL)
    assert key.startswith("sealing.key: is not set")
    assert token.startswith("root_token_file: is not set")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///lessor?host=/run/postgresql",
        "postgres://lessor:secret@a.example:5433,b.example/lessor?target_session_attrs=read-write",
        "postgresql://lessor@[::1]:5432/lessor?sslmode=verify-full&application_name=x",
        "postgresql://lessor:a@b:c@%2Frun%2Fpostgresql:5433/lessor?user=a@b",
    ],
)
def test_uris_of_libpq_are_accepted(url: str) -> None:
    assert load(None, SHARED | {"LESSOR_STORE_URL": url}).store.url == url


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://lessor@db/lessor", "does not begin with postgresql://"),
        ("lessor.db", "does not begin with postgresql://"),
        ("postgresql:lessor", "does not have // after its scheme"),
        ("postgresql://lessor:hush#hush@db/lessor", "has a #; in a password it is %23"),
        ("postgresql://db/lessor?sslmode=verify", "has an sslmode that does not exist"),
        (
            "postgresql://db/lessor?target_session_attrs=master",
            "has a target_session_attrs that does not exist",
        ),
        ("postgresql://db/lessor?host=a&host=b", "has a parameter twice"),
        ("postgresql://lessor:hush@[db/lessor", "is not a URI"),
        ("postgresql://lessor:hush/hush@db/lessor", AT_AFTER_HOST),
        ("postgresql://lessor:12/hush@db/lessor", AT_AFTER_HOST),
        ("postgresql://lessor:12?a=hush@db/lessor", AT_AFTER_HOST),
        ("postgresql://lessor:a@b/hush@db/lessor", AT_AFTER_HOST),
        ("postgresql://lessor:hush", "has a port that is not a number"),
        ("postgresql://lessor@db:5432,b:x/lessor", "has a port that is not a number"),
        (f"postgresql://db/{'x' * 4096}", "has more than 4096 characters"),
    ],
)
def test_other_urls_are_refused_and_no_password_is_shown(url: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(None, SHARED | {"LESSOR_STORE_URL": url})
    assert [one.problem for one in caught.value.problems] == [problem]
    assert "hush" not in str(caught.value)


def test_the_password_is_in_one_place(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hush")
    both = {"LESSOR_STORE_URL": "postgresql://lessor:hush@db/lessor", "LESSOR_STORE_PASSWORD_FILE": str(file)}
    assert problems_of(**SHARED | both) == ["store.password_file: is set, and store.url has a password"]
    assert problems_of(LESSOR_STORE_PASSWORD_FILE=str(file)) == [
        "store.password_file: is set, and the store is SQLite"
    ]


def test_a_password_is_never_shown() -> None:
    url = "postgresql://lessor:hush@db/lessor?password=hush&sslpassword=hush&sslmode=require"
    settings = load(None, SHARED | {"LESSOR_STORE_URL": url})
    assert "hush" not in repr(settings)
    assert without_password(url) == "postgresql://lessor@db/lessor?sslmode=require"
    assert (
        without_password("postgresql:///lessor?host=/run&password=hush") == "postgresql:///lessor?host=/run"
    )


def test_the_environment_keeps_no_secret_and_can_be_read_again() -> None:
    environ = dict(SHARED)
    kept = forget_tokens(environ)
    assert environ == {"LESSOR_SEALING_KEY": "env:KEY"}
    assert kept == {"LESSOR_STORE_URL": URL, "LESSOR_ROOT_TOKEN": STAND_IN}
    assert load(None, environ | kept).store == load(None, SHARED).store
