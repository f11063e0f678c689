"""Checks how console links are made from credentials."""

from __future__ import annotations

import json
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.support.federation import TOKEN, serving

from lessor import signin
from lessor.values import InvalidValue

SESSION = signin.Session("ASIAEXAMPLE", "a/secret+key", "a-token==")


def test_credentials_are_sent_in_the_body() -> None:
    """So no log of URLs has them."""
    with serving() as server:
        assert signin.token(server.url, SESSION) == TOKEN
        ((path, form),) = server.asked
    assert path == "/federation"
    assert set(form) == {"Action", "Session"}
    assert form["Action"] == ["getSigninToken"]
    assert json.loads(form["Session"][0]) == {
        "sessionId": "ASIAEXAMPLE",
        "sessionKey": "a/secret+key",
        "sessionToken": "a-token==",
    }


def test_a_duration_is_sent_in_seconds() -> None:
    with serving() as server:
        signin.token(server.url, SESSION, timedelta(hours=2))
        assert server.asked[0][1]["SessionDuration"] == ["7200"]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, "nonsense", "answered 400"),
        (403, '{"SigninToken": "x"}', "answered 403"),
        (200, "<html>", "without a token"),
        (200, "[]", "without a token"),
        (200, '{"SigninToken": ""}', "without a token"),
        (200, '{"SigninToken": 7}', "without a token"),
    ],
)
def test_the_error_of_an_answer_without_a_token_has_no_secret(status: int, body: str, expected: str) -> None:
    with serving() as server:
        server.status, server.body = status, body
        with pytest.raises(signin.NotSignedIn, match=expected) as error:
            signin.token(server.url, SESSION)
    assert not any(part in str(error.value) for part in ("secret", "ASIA", "token==", "nonsense"))


def test_a_redirect_is_not_followed() -> None:
    with serving() as server, serving() as elsewhere:
        server.status, server.location = 307, elsewhere.url
        with pytest.raises(signin.NotSignedIn, match="answered 307"):
            signin.token(server.url, SESSION)
        assert elsewhere.asked == []


def test_a_plaintext_request_uses_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only https hides the content from a proxy."""
    with serving() as server, serving() as proxy:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", proxy.url)
        assert signin.token(server.url, SESSION) == TOKEN
        assert proxy.asked == []


def test_an_unreachable_endpoint_is_an_error() -> None:
    with serving() as server:
        url = server.url
    with pytest.raises(signin.NotSignedIn, match="can't be reached"):
        signin.token(url, SESSION)


@pytest.mark.parametrize(
    ("endpoint", "good"),
    [
        ("https://signin.example.com/federation", True),
        ("http://127.0.0.1:5000/federation", True),
        ("http://localhost/federation", True),
        ("http://[::1]:1/federation", True),
        ("http://signin.aws.amazon.com/federation", False),
        ("http://127.0.0.1.example.com/federation", False),
        ("http://127.0.0.1@example.com/federation", False),
        ("ftp://127.0.0.1/", False),
        ("file:///etc/passwd", False),
        ("https://", False),
        ("", False),
    ],
)
def test_credentials_are_sent_only_by_https_or_to_loopback(endpoint: str, good: bool) -> None:
    if good:
        assert signin.checked(endpoint) == endpoint
    else:
        with pytest.raises(InvalidValue):
            signin.checked(endpoint)


@pytest.mark.parametrize(
    ("partition", "federation", "console"),
    [
        ("aws", "https://signin.aws.amazon.com/federation", "https://console.aws.amazon.com/"),
        ("aws-cn", "https://signin.amazonaws.cn/federation", "https://console.amazonaws.cn/"),
        (
            "aws-us-gov",
            "https://signin.amazonaws-us-gov.com/federation",
            "https://console.amazonaws-us-gov.com/",
        ),
    ],
)
def test_each_partition_has_its_own_console(partition: str, federation: str, console: str) -> None:
    found = signin.partition_of(f"arn:{partition}:sts::123456789012:assumed-role/app/x")
    assert (found.federation, found.console) == (federation, console)
    assert signin.checked(found.federation)


@pytest.mark.parametrize("arn", ["", "arn", "arn:aws-iso:sts::1:x", "arn:evil.example.com:sts::1:x"])
def test_a_partition_without_a_known_console_is_refused(arn: str) -> None:
    with pytest.raises(InvalidValue):
        signin.partition_of(arn)


def test_the_link_has_destination_and_token_encoded() -> None:
    made = signin.link("https://signin.example.com/federation", TOKEN, "https://console.example.com/s3?a=b&c")
    fields = parse_qs(urlsplit(made).query)
    assert fields == {
        "Action": ["login"],
        "Destination": ["https://console.example.com/s3?a=b&c"],
        "SigninToken": [TOKEN],
    }
    made = signin.link("https://x/", TOKEN, "https://y/", issuer="https://broker.example.com/")
    assert parse_qs(urlsplit(made).query)["Issuer"] == ["https://broker.example.com/"]


def test_the_repr_of_a_session_has_no_secret() -> None:
    assert not any(part in repr(SESSION) for part in ("ASIA", "secret+key", "token"))
