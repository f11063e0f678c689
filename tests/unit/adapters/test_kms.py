"""Checks the key-encryption key in AWS KMS: the real calls on moto, and failures on the stand-in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from tests.support.standin_control import StandIn
from tests.support.standin_fixtures import aws, url
from tests.support.stranger import certified, page, stranger

from lessor_server.adapters.aws import kms
from lessor_server.adapters.aws.kms import KmsKey
from lessor_server.adapters.sealing.keyring import Keyring
from lessor_server.domain.errors.sealing import SealingKeyMismatch, SealingKeyUnavailable, SealingKeyUnusable
from lessor_server.domain.sealing_key import SealingKeyKind, SealingKeyPlace, may_ask, parse_sealing_key
from lessor_server.settings.model import load
from lessor_server.settings.sources import SettingsError

__all__ = ["aws", "url"]

ARN = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-4333-8444-555555555555"
OTHER_ARN = ARN.replace("1111", "9999")
PLAIN, KEY_ID = bytes(range(32)), "0123456789abcdef"


@pytest.fixture(autouse=True)
def ambient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the process credentials, as a role of its machine would."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAAMBIENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """Run moto's KMS."""
    from moto.server import ThreadedMotoServer  # it takes a while, in each process that collects this file

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()


def key_at(endpoint: str, arn: str = ARN) -> KmsKey:
    """Return a key at an endpoint that is allowed."""
    return KmsKey(SealingKeyPlace(SealingKeyKind.KMS, arn, endpoint, "eu-central-1"), (endpoint,))


def new_key(endpoint: str) -> KmsKey:
    """Create a key on moto."""
    client = boto3.client("kms", "eu-central-1", endpoint_url=endpoint)
    return key_at(endpoint, client.create_key()["KeyMetadata"]["Arn"])


async def test_a_keyring_is_wrapped_and_unwrapped_by_kms(moto_url: str) -> None:
    key = new_key(moto_url)
    ring = Keyring(key)
    stored = await ring.make()
    ring.use(stored.id)
    sealed = ring.seal(b"hush", "roots/aws", "1")
    again = Keyring(key)
    await again.load([stored])
    assert again.open(sealed, "roots/aws", "1") == b"hush"
    assert stored.wrapped_by == f"awskms:{key._place.name}"
    with pytest.raises(SealingKeyMismatch):
        await key.unwrap(stored.wrapped, KEY_ID)
    with pytest.raises((SealingKeyMismatch, SealingKeyUnavailable)):  # AWS: IncorrectKeyException
        await new_key(moto_url).unwrap(stored.wrapped, stored.id)
    with pytest.raises(SealingKeyUnusable, match="NotFoundException"):
        await key_at(moto_url, OTHER_ARN).wrap(PLAIN, KEY_ID)


async def test_the_standin_answers_as_kms(aws: StandIn) -> None:
    key = key_at(aws.url)
    wrapped = await key.wrap(PLAIN, KEY_ID)
    assert PLAIN not in wrapped
    assert await key.unwrap(wrapped, KEY_ID) == PLAIN
    for other, key_id, blob in ((key, "another", wrapped), (key, KEY_ID, b"changed")):
        with pytest.raises(SealingKeyMismatch, match="InvalidCiphertext"):
            await other.unwrap(blob, key_id)
    with pytest.raises(SealingKeyMismatch, match="IncorrectKey"):
        await key_at(aws.url, OTHER_ARN).unwrap(wrapped, KEY_ID)


@pytest.mark.parametrize(
    "code",
    [
        "ThrottlingException",
        "LimitExceededException",
        "KeyUnavailableException",
        "KMSInternalException",
        "DependencyTimeoutException",
        "AccessDeniedException",
        "UnrecognizedClientException",
        "ExpiredTokenException",
        "x" * 500,
    ],
)
async def test_what_can_pass_is_asked_again_and_only_once_a_try(aws: StandIn, code: str) -> None:
    key = key_at(aws.url)
    wrapped = await key.wrap(PLAIN, KEY_ID)
    before = (await aws.kms(fault=code)).get("Decrypt", 0)
    with pytest.raises(SealingKeyUnavailable) as raised:
        await key.unwrap(wrapped, KEY_ID)
    assert code[:60] in raised.value.message
    assert len(raised.value.message) < 300
    assert (await aws.kms(fault=""))["Decrypt"] == before + 1
    assert await key.unwrap(wrapped, KEY_ID) == PLAIN


@pytest.mark.parametrize("state", ["Disabled", "PendingDeletion"])
async def test_a_disabled_or_pending_key_is_asked_again(aws: StandIn, state: str) -> None:
    """Somebody may enable it."""
    key = key_at(aws.url)
    wrapped = await key.wrap(PLAIN, KEY_ID)
    await aws.kms(arn=ARN, state=state)
    with pytest.raises(SealingKeyUnavailable):
        await key.unwrap(wrapped, KEY_ID)
    with pytest.raises(SealingKeyUnavailable):
        await key.wrap(PLAIN, KEY_ID)
    await aws.kms(arn=ARN, state="Enabled")
    assert await key.unwrap(wrapped, KEY_ID) == PLAIN


async def test_a_removed_key_is_final(aws: StandIn) -> None:
    key = key_at(aws.url)
    wrapped = await key.wrap(PLAIN, KEY_ID)
    await aws.kms(arn=ARN, state="Removed")
    with pytest.raises(SealingKeyUnusable, match="NotFound"):
        await key.unwrap(wrapped, KEY_ID)


async def test_kms_that_can_not_be_reached_is_asked_again(aws: StandIn) -> None:
    with pytest.raises(SealingKeyUnavailable):
        await key_at("http://127.0.0.1:1").unwrap(b"x", KEY_ID)
    await aws.down()
    try:
        with pytest.raises(SealingKeyUnavailable):
            await key_at(aws.url).unwrap(b"x", KEY_ID)
    finally:
        await aws.up()


async def test_a_try_that_is_not_answered_ends(aws: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kms.TRY_SECONDS == 5.0
    monkeypatch.setattr(kms, "TRY_SECONDS", 0.2)
    await aws.kms(fault="silence")
    with pytest.raises(SealingKeyUnavailable, match="decrypt now: no answer in"):
        await key_at(aws.url).unwrap(b"x", KEY_ID)
    await asyncio.sleep(0)


# --- a stranger in place of KMS -------------------------------------------------------------------------


async def refusal(key: KmsKey) -> str:
    """Return why a key does not encrypt now."""
    with pytest.raises(SealingKeyUnavailable) as raised:
        await key.wrap(PLAIN, KEY_ID)
    return raised.value.message


@pytest.mark.parametrize("proxied", [False, True])
async def test_no_data_key_is_sent_to_a_host_with_a_certificate_of_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxied: bool
) -> None:
    cert_file, context = certified(tmp_path, "other.test")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(cert_file))
    async with stranger(tls=None if proxied else context) as one:
        one.tunnel = context
        if proxied:
            monkeypatch.setenv("HTTPS_PROXY", one.url)
        url = "https://kms.eu-central-1.amazonaws.com" if proxied else one.url.replace("http", "https")
        assert "SSLError" in await refusal(key_at(url))
    assert not any(request.startswith(b"POST") for request in one.received)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_data_key_is_sent_where_a_redirect_leads(aws: StandIn, status: int) -> None:
    before = await aws.kms()
    async with stranger(page(status, b"", f"Location: {aws.url}/")) as one:
        assert f"encrypt now: HTTP {status}: a redirect" in await refusal(key_at(one.url))
    assert len(one.received) == 1
    assert await aws.kms() == before


async def test_the_environment_names_no_endpoint_of_kms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # AWS itself is not called
    async with stranger() as one:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", one.url)
        assert "ProxyConnectionError" in await refusal(key_at(""))
    assert one.received == []


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{}", b"[]", b"null", b"<html/>", b"\xff\xfe", b"[" * 100_000),
        *(b'{"CiphertextBlob": %s}' % value for value in (b"5", b"null", b'""', b'"*"', b"[]", b'{"a": 1}')),
    ],
)
async def test_an_answer_without_a_ciphertext_is_asked_for_again(body: bytes) -> None:
    async with stranger(page(200, body)) as one:
        await refusal(key_at(one.url))
    assert len(one.received) == 1


async def test_a_parser_s_text_of_an_answer_is_not_shown() -> None:
    async with stranger(page(200, b'{"Plaintext": "hush-hush-hush', length=28)) as one:
        with pytest.raises(SealingKeyUnavailable) as raised:
            await key_at(one.url).unwrap(b"x", KEY_ID)
    assert "hush" not in raised.value.message


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    async with stranger(page(200, b"a" * (4 << 20))) as one:
        assert "longer than" in await refusal(key_at(one.url))


async def test_a_ciphertext_that_kms_does_not_decrypt_is_not_used(aws: StandIn) -> None:
    """Rows under its data key could not be read after the next start."""
    answer = {"CiphertextBlob": "AAAA", "KeyId": OTHER_ARN, "Plaintext": "AAAA"}
    async with stranger(page(200, json.dumps(answer).encode())) as one:
        assert "does not decrypt to the data key" in await refusal(key_at(one.url))
    key = key_at(aws.url)
    await aws.kms(fault="AccessDeniedException", action="Decrypt")
    assert "does not decrypt now: AWS KMS refuses: AccessDenied" in await refusal(key)
    await aws.kms(fault="InvalidCiphertextException", action="Decrypt")
    assert "does not decrypt to the data key" in await refusal(key)
    await aws.kms(fault="")


# --- the setting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("file:/etc/key", SealingKeyPlace(SealingKeyKind.FILE, "/etc/key")),
        ("file:a:b", SealingKeyPlace(SealingKeyKind.FILE, "a:b")),
        ("env:THE_KEY", SealingKeyPlace(SealingKeyKind.ENVIRONMENT, "THE_KEY")),
        (f"awskms:{ARN}", SealingKeyPlace(SealingKeyKind.KMS, ARN, "", "eu-central-1")),
        (
            f"awskms:{ARN}?endpoint=http://127.0.0.1:5000&region=us-east-1",
            SealingKeyPlace(SealingKeyKind.KMS, ARN, "http://127.0.0.1:5000", "us-east-1"),
        ),
        (
            "awskms:arn:aws-cn:kms:cn-north-1:123456789012:alias/lessor",
            SealingKeyPlace(
                SealingKeyKind.KMS, "arn:aws-cn:kms:cn-north-1:123456789012:alias/lessor", "", "cn-north-1"
            ),
        ),
    ],
)
def test_a_place_is_parsed(written: str, place: SealingKeyPlace) -> None:
    assert parse_sealing_key(written) == place


@pytest.mark.parametrize(
    "written",
    [
        "",
        "file:",
        "file:a\0b",
        "env:",
        "env:A B",
        "env:$(x)",
        "/etc/key",
        "http://x",
        "awskms:",
        "awskms:alias/lessor",
        "awskms:arn:aws:iam::123456789012:role/x",
        "awskms:arn:aws:kms:eu-central-1:123456789012:key/",
        "awskms:arn:aws:kms::123456789012:key/x",
        f"awskms:{ARN}?endpoint=ftp://x",
        f"awskms:{ARN}?endpoint=https://user:pw@x",
        f"awskms:{ARN}?endpoint=https://x/path",
        f"awskms:{ARN}?endpoint=https://x:port",
        f"awskms:{ARN}?endpoint=",
        f"awskms:{ARN}?region=nowhere",
        f"awskms:{ARN}?region=us-east-1&region=us-east-2",
        f"awskms:{ARN}?profile=x",
        f"awskms:{ARN}?nonsense",
    ],
)
def test_a_malformed_place_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_sealing_key(written)


def test_a_key_that_was_written_as_a_variable_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="variable") as raised:
        parse_sealing_key("env:c2VjcmV0IGtleSBvZiB0aGUgdGVzdHM=")
    assert "c2Vj" not in str(raised.value)


@pytest.mark.parametrize(
    ("endpoint", "allowed"),
    [
        ("", True),
        ("https://kms.eu-central-1.amazonaws.com", True),
        ("https://kms-fips.eu-central-1.amazonaws.com:443", True),
        ("https://kms.us-east-1.amazonaws.com", False),
        ("http://kms.eu-central-1.amazonaws.com", False),
        ("https://kms.eu-central-1.amazonaws.com:8443", False),
        ("https://kms.eu-central-1.amazonaws.com.evil.example", False),
        ("http://127.0.0.1:5000", False),
        ("http://localhost:9000", True),
    ],
)
def test_an_endpoint_is_aws_or_allowed(endpoint: str, allowed: bool) -> None:
    place = SealingKeyPlace(SealingKeyKind.KMS, ARN, endpoint, "eu-central-1")
    assert may_ask(place, ("http://localhost:9000/",)) is allowed
    if not allowed:
        with pytest.raises(SealingKeyUnusable, match="allowed_endpoints"):
            KmsKey(replace(place), ())


def test_the_setting_is_read_from_a_variable_and_its_problem_shows_no_key() -> None:
    assert load(None, {}).sealing.key is None
    assert load(None, {"LESSOR_SEALING_KEY": "env:THE_KEY"}).sealing.key == parse_sealing_key("env:THE_KEY")
    with pytest.raises(SettingsError) as raised:
        load(None, {"LESSOR_SEALING_KEY": "env:c2VjcmV0IGtleQ=="})
    assert "sealing.key" in str(raised.value)
    assert "c2Vj" not in str(raised.value)
