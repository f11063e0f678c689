"""Checks connections to AWS: TLS verification, proxies, and which failures mean that nothing was sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.gateways import NOBODY_THERE, chained, gateway, root, token_file
from tests.support.standin_control import StandIn
from tests.support.stranger import RESET, certified, page, stranger

from lessor_server.adapters.aws.http_client import is_near
from lessor_server.adapters.aws.http_connection import MAX_ANSWER_BYTES
from lessor_server.domain.aws.errors import AwsRefused, AwsUnknown
from lessor_server.domain.aws.iam_calls import Call, CreateUser
from lessor_server.domain.aws.sts_calls import GetCallerIdentity
from lessor_server.domain.root import Root
from lessor_server.domain.secret import Secret

CALL = CreateUser("ann", "/", "", ())
HOST = "sts.us-east-1.amazonaws.com"


async def failure(at: Root, call: Call[object] = CALL, *urls: str) -> AwsUnknown:
    """Send a call that has no clear answer, and return the error."""
    async with gateway(at.config.iam_endpoint, *urls) as door:
        with pytest.raises(AwsUnknown) as caught:
            await door.send(at, call)
    return caught.value


# --- what was sent ----------------------------------------------------------------------------------------


async def test_after_a_reset_the_call_may_have_happened() -> None:
    async with stranger(RESET) as one:
        error = await failure(root(one.url))
    assert one.received
    assert error.sent


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\n", b"rubbish\r\n\r\n", b"HTTP/9.9 x y\r\n\r\n", b"\n"]
)
async def test_after_an_answer_that_is_not_http_the_call_may_have_happened(answer: bytes) -> None:
    async with stranger(answer) as one:
        assert (await failure(root(one.url))).sent


async def test_a_refused_connection_means_that_nothing_was_sent() -> None:
    assert not (await failure(root(NOBODY_THERE))).sent


@pytest.mark.parametrize("status", [200, 403, 500])
async def test_a_truncated_body_is_not_a_refusal(status: int) -> None:
    body = b"<ErrorResponse><Error><Code>NoSuchEntity</Code></Error></ErrorResponse>"
    async with stranger(page(status, body, length=len(body) + 1)) as one:
        error = await failure(root(one.url))
    assert error.sent
    assert error.detail == f"HTTP {status}: the body is cut"


async def test_an_endless_body_is_not_read_to_its_end() -> None:
    endless = page(200, b"", "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    endless += b"100000\r\n" + b"a" * (1 << 20) + b"\r\n"
    for answer in (
        page(200, b"a" * (MAX_ANSWER_BYTES + 1)),
        endless + b"100000\r\n" + b"a" * (1 << 20) + b"\r\n1\r\na\r\n",
    ):
        async with stranger(answer) as one:
            error = await failure(root(one.url))
        assert error.detail == f"HTTP 200: the body is longer than {MAX_ANSWER_BYTES} bytes"


async def test_cookies_are_not_kept() -> None:
    async with stranger(page(500, b"", "Set-Cookie: a=b")) as one:
        url = one.url.replace("127.0.0.1", "localhost")
        async with gateway(url) as door:
            for _ in range(2):
                with pytest.raises(AwsUnknown):
                    await door.send(root(url), CALL)
    assert not any(b"cookie" in request.lower() for request in one.received)


# --- whom it trusts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize(
    ("names", "trusted"), [((HOST, "localhost"), False), (("other.test",), True), ((HOST, "localhost"), True)]
)
async def test_a_certificate_must_be_trusted_and_match_the_host(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, ...],
    trusted: bool,
    proxied: bool,
) -> None:
    cert_file, context = certified(tmp_path, *names)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(cert_file if trusted else certified(tmp_path, "any.test")[0]))
    body = b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"
    async with stranger(page(403, body), tls=None if proxied else context) as one:
        one.tunnel = context
        if proxied:
            monkeypatch.setenv("HTTPS_PROXY", one.url)
        url = "" if proxied else one.url.replace("http://127.0.0.1", "https://localhost")
        async with gateway(url) as door:
            if trusted and HOST in names:
                with pytest.raises(AwsRefused, match="AccessDenied"):
                    await door.send(root(url), GetCallerIdentity())
            else:
                with pytest.raises(AwsUnknown, match="SSLError") as caught:
                    await door.send(root(url), GetCallerIdentity())
                assert not caught.value.sent
                assert not any(request.startswith(b"POST") for request in one.received)


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
async def test_no_variable_switches_verification_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "")
    _, context = certified(tmp_path, "localhost")
    async with stranger(tls=context) as one:
        url = one.url.replace("http://127.0.0.1", "https://localhost")
        error = await failure(root(url))
    assert not error.sent
    assert one.received == []


async def test_with_an_invalid_ca_bundle_nothing_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").write_text("none")
    _, context = certified(tmp_path, "localhost")
    for name in ("missing", "empty"):
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / name))
        async with stranger(tls=context) as one:
            error = await failure(root(one.url.replace("http://127.0.0.1", "https://localhost")))
        assert (error.sent, one.received) == (False, [])
        assert "SSL" in error.detail


# --- proxies ----------------------------------------------------------------------------------------------


async def test_a_proxy_that_refuses_to_connect_is_not_a_refusal_of_aws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for status in (407, 403, 302):
        async with stranger(page(status, b"<html/>", "Location: http://127.0.0.1:1/")) as one:
            monkeypatch.setenv("HTTPS_PROXY", one.url)
            error = await failure(root(""), GetCallerIdentity())
        assert (error.detail, error.sent) == (f"HTTP {status}: the proxy refused to connect", False)
        assert [request.split()[1] for request in one.received] == [f"{HOST}:443".encode()]


async def test_requests_to_loopback_use_no_proxy(
    aws: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A web identity token for a loopback endpoint must not leave the machine in plaintext."""
    web = await aws.role("web", audience="sts.amazonaws.com")
    path = token_file(tmp_path / "token", aud="sts.amazonaws.com")
    without_keys = root(aws.url, access_key="", secret_key=Secret(), identity_token_file=path)
    async with stranger() as one, gateway(aws.url) as door:
        for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(variable, one.url)
        await door.send(chained(without_keys, web), GetCallerIdentity())
    assert one.received == []


async def test_a_plaintext_endpoint_elsewhere_is_reached_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with stranger(page(407, b"<html/>")) as one:
        monkeypatch.setenv("HTTP_PROXY", one.url)
        error = await failure(root("http://aws.test:5000"))
    assert error.sent
    assert "HTTP 407" in error.detail
    assert one.received[0].startswith(b"POST http://aws.test:5000/")


def test_addresses_of_this_machine_and_link_use_no_proxy() -> None:
    """Of names only localhost counts (RFC 6761, 6.3)."""
    for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1", "169.254.169.254", "fe80::1"):
        assert is_near(host)
    for host in ("fd00:ec2::254", "fd00:ec2:0::254", "fd00:ec2::23"):  # those of AWS's metadata services
        assert is_near(host)
    for host in (
        "",
        "aws.test",
        "localhost.test",
        "10.0.0.1",
        "128.0.0.1",
        "fd00:ec2::1",
        "127.0.0.1.test",
    ):
        assert not is_near(host)
