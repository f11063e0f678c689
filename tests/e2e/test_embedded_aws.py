"""Checks that the embedded AWS serves programs of this machine with a key, and refuses web pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aioboto3
import pytest
import pytest_asyncio
from botocore.exceptions import ClientError

from lessor_server.commands.dev.embedded_aws import DIRECT, REGION, EmbeddedAws, listen, run_embedded_aws
from lessor_server.settings.parsers import Address

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

FORM = "Content-Type: application/x-www-form-urlencoded"


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="aws")
async def one_aws() -> AsyncIterator[EmbeddedAws]:
    """Run one for this module."""
    async with run_embedded_aws(listen(Address("127.0.0.1", 0), "--aws-listen"), "127.0.0.1") as running:
        yield running


def own(aws: EmbeddedAws) -> str:
    """Return its host and port."""
    return aws.url.removeprefix("http://")


async def ask(aws: EmbeddedAws, line: str, *headers: str, body: str = "") -> bytes:
    """Send a request letter by letter, OWN standing for its host, and return the answer whole."""
    host, _, port = own(aws).rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = (f"{line} HTTP/1.1", *headers, f"Content-Length: {len(body)}", "Connection: close", "", body)
    writer.write("\r\n".join(lines).replace("OWN", own(aws)).encode())
    try:
        async with asyncio.timeout(60):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def refused(answer: bytes) -> bool:
    """Tell whether the door refused a request, and not moto."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 403 ") and b"embedded AWS" in body


async def users(aws: EmbeddedAws, url: str = "") -> list[str]:
    """List the users with the key of its root user, which works unless the account was reset."""
    client = aioboto3.Session().client(
        "iam",
        endpoint_url=url or aws.url,
        region_name=REGION,
        aws_access_key_id=aws.access_key,
        aws_secret_access_key=aws.secret_key.reveal(),
        config=DIRECT,
    )
    async with client as iam:
        return [user["UserName"] for user in (await iam.list_users())["Users"]]


async def test_only_its_root_user_is_served(aws: EmbeddedAws) -> None:
    assert await users(aws) == ["lessor-root"]
    assert await users(aws, aws.url.replace("127.0.0.1", "localhost")) == ["lessor-root"]
    stranger = EmbeddedAws(aws.url, "AKIANOBODYNOBODYNOBO", aws.secret_key)
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        await users(stranger)
    unsigned = await ask(aws, "POST /", "Host: OWN", FORM, body="Action=ListUsers&Version=2010-05-08")
    assert b" 200 " not in unsigned.split(b"\r\n")[0]


WEB_IDENTITY = (
    "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleSessionName=web"
    "&RoleArn=arn:aws:iam::123456789012:role/web&WebIdentityToken=a.b.c"
)


async def test_a_web_identity_call_is_served_unsigned(aws: EmbeddedAws) -> None:
    answer = await ask(aws, "POST /", "Host: OWN", FORM, body=WEB_IDENTITY)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"<AccessKeyId>" in answer


@pytest.mark.parametrize(
    ("line", "headers", "body"),
    [
        ("POST /", (FORM,), WEB_IDENTITY.replace("WithWebIdentity", "")),
        ("POST /", (FORM,), WEB_IDENTITY.replace("WithWebIdentity", "WithSAML")),
        ("POST /", (FORM,), f"{WEB_IDENTITY}&Action=ListUsers"),
        ("POST /", (FORM,), f"Action=ListUsers&{WEB_IDENTITY}"),
        ("POST /", (FORM,), WEB_IDENTITY.replace("WebIdentityToken", "Token")),
        ("POST /?Action=ListUsers", (FORM,), WEB_IDENTITY),
        (f"POST /?{WEB_IDENTITY}", (FORM,), ""),
        (f"GET /?{WEB_IDENTITY}", (), ""),
        ("GET /", (FORM,), WEB_IDENTITY),
        ("POST /bucket", (FORM,), WEB_IDENTITY),
        ("POST /", ("Content-Type: text/plain",), WEB_IDENTITY),
        ("POST /", (FORM, "X-Amz-Target: DynamoDB_20120810.ListTables"), WEB_IDENTITY),
        ("POST /", (FORM, "Authorization: Basic eDp5"), WEB_IDENTITY),
    ],
)
async def test_all_other_unsigned_calls_are_refused(
    aws: EmbeddedAws, line: str, headers: tuple[str, ...], body: str
) -> None:
    answer = await ask(aws, line, "Host: OWN", *headers, body=body)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"MissingAuthenticationToken" in answer


@pytest.mark.parametrize("method", ["POST", "GET", "PUT", "OPTIONS"])
async def test_the_control_api_is_closed(aws: EmbeddedAws, method: str) -> None:
    """However its path is written."""
    for path in (
        "/moto-api/reset-auth",
        "/moto-api/reset",
        "/moto-api",
        "/moto-api/",
        "//moto-api/reset",
        "///moto-api/reset",
        "/%6doto-api/data.json",
        "/MOTO-API/",
        "/%2Fmoto-api/reset",
        "/moto%2dapi/config?x=1",
        "/moto-api%2freset",
        "/favicon.ico",
        "/latest/meta-data/iam/security-credentials/",
        "/latest/api/token",
    ):
        assert refused(
            await ask(aws, f"{method} {path}", "Host: OWN", "Content-Type: text/plain", body="0")
        ), path
    assert await users(aws) == ["lessor-root"]


async def test_an_object_named_like_the_control_api_is_served(aws: EmbeddedAws) -> None:
    assert not refused(await ask(aws, "GET /bucket/moto-api/key", "Host: OWN"))


async def test_a_foreign_host_is_refused(aws: EmbeddedAws) -> None:
    """DNS may resolve any name to 127.0.0.1."""
    for host in (
        "evil.example",
        "127.0.0.1",
        "127.0.0.1:1",
        "motoapi.amazonaws.com",
        "OWN.evil.example",
        "OWN@x",
    ):
        assert refused(await ask(aws, "GET /", f"Host: {host}")), host
    for hosts in ((), ("127.0.0.1:1", "OWN"), ("OWN", "evil.example"), ("OWN", "OWN"), ("OWN,OWN",)):
        answer = await ask(aws, "GET /", *(f"Host: {host}" for host in hosts))
        assert refused(answer), hosts


async def test_a_web_page_is_refused(aws: EmbeddedAws) -> None:
    """By its Origin or Sec-Fetch-Site header."""
    listing = "Action=ListUsers&Version=2010-05-08"
    for origin in ("https://evil.example", "null", "http://127.0.0.1", "http://localhost", "http://OWN", ""):
        answer = await ask(aws, "POST /", "Host: OWN", f"Origin: {origin}", FORM, body=listing)
        assert refused(answer), origin
        assert b"access-control-" not in answer.lower()
    preflight = ("Host: OWN", "Origin: https://evil.example", "Access-Control-Request-Method: POST")
    answer = await ask(aws, "OPTIONS /", *preflight)
    assert refused(answer)
    assert b"access-control-" not in answer.lower()
    for site in ("cross-site", "same-site"):
        assert refused(await ask(aws, "GET /?Action=ListUsers", "Host: OWN", f"Sec-Fetch-Site: {site}"))
    plain = await ask(aws, "POST /", "Host: OWN", "Sec-Fetch-Site: none", FORM, body=listing)
    assert not refused(plain)
    assert b"access-control-" not in plain.lower()


async def test_a_request_line_with_a_url_is_refused(aws: EmbeddedAws) -> None:
    """It could name another host than the Host header."""
    for line in (
        "GET http://motoapi.amazonaws.com/moto-api/",
        "GET http://OWN/",
        "OPTIONS *",
        "GET moto-api/",
    ):
        assert refused(await ask(aws, line, "Host: OWN")), line


async def test_a_refused_request_closes_the_connection(aws: EmbeddedAws) -> None:
    """What follows must not be read as another request."""
    inner = "GET /bucket HTTP/1.1\r\nHost: OWN\r\n\r\n"
    answer = await ask(aws, "POST /", "Host: evil.example", body=inner)
    assert answer.count(b"HTTP/1.1 ") == 1
