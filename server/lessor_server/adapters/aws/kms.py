"""A key-encryption key in AWS KMS, which never leaves it; calls use the server's own credentials.

Source: AWS KMS API Reference, Encrypt and Decrypt; AWS KMS Developer Guide, "Encryption context" and "Key
states of AWS KMS keys". The server's identity needs kms:Encrypt and kms:Decrypt on the key.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from lessor_server.adapters.aws.http_connection import NotAnAnswer
from lessor_server.adapters.aws.sdk_session import CredentialsNotFetched, SdkSession
from lessor_server.domain.errors.sealing import SealingKeyMismatch, SealingKeyUnavailable, SealingKeyUnusable
from lessor_server.domain.sealing_key import SealingKeyPlace, may_ask

TRY_SECONDS: Final = 5.0
_WRONG_KEY: Final = frozenset(("InvalidCiphertextException", "IncorrectKeyException"))
_UNUSABLE: Final = frozenset(
    ("NotFoundException", "InvalidArnException", "InvalidKeyUsageException", "ValidationException")
)
_CONTEXT: Final = "lessor-data-key"
_TEXT_LIMIT: Final = 300


class KmsKey:
    """Implements ``KeyEncryptionKey`` with a key of AWS KMS; ``title`` names it."""

    def __init__(self, place: SealingKeyPlace, allowed_endpoints: tuple[str, ...]) -> None:
        """Use the key at ``place``.

        Raises:
            SealingKeyUnusable: Its endpoint is neither AWS's nor allowed.
        """
        if not may_ask(place, allowed_endpoints):
            raise SealingKeyUnusable(
                f"the endpoint {place.endpoint} of sealing.key is neither AWS's nor in aws.allowed_endpoints"
            )
        self.name = self.title = str(place)
        self._place = place

    async def wrap(self, data_key: bytes, key_id: str) -> bytes:
        """Return a data key encrypted by KMS, bound to its id; KMS has decrypted it again.

        Otherwise what is sealed under it would be lost at the next start, as without kms:Decrypt.

        Raises:
            SealingKeyUnavailable: KMS does not encrypt and decrypt now. SealingKeyUnusable: It never will.
        """
        context = {_CONTEXT: key_id}
        wrapped = await self._call("encrypt", "CiphertextBlob", Plaintext=data_key, EncryptionContext=context)
        with suppress(SealingKeyMismatch):
            if await self.unwrap(wrapped, key_id) == data_key:
                return wrapped
        raise _away(self.name, "encrypt", "what it returned does not decrypt to the data key")

    async def unwrap(self, wrapped: bytes, key_id: str) -> bytes:
        """Return the data key with this id.

        Raises:
            SealingKeyMismatch: It was not wrapped by this key, or was changed since.
            SealingKeyUnavailable, SealingKeyUnusable: As above.
        """
        context = {_CONTEXT: key_id}
        return await self._call("decrypt", "Plaintext", CiphertextBlob=wrapped, EncryptionContext=context)

    async def _call(self, operation: str, result: str, **params: object) -> bytes:
        """Call KMS once, and return the bytes that its answer names ``result``."""
        try:
            async with asyncio.timeout(TRY_SECONDS), self._client() as client:
                answer = await getattr(client, operation)(KeyId=self._place.name, **params)
                found = answer.get(result)
        except ClientError as error:
            raise _refusal(self.name, operation, error) from None
        except TimeoutError:
            raise _away(self.name, operation, f"no answer in {TRY_SECONDS:g} s") from None
        except CredentialsNotFetched as error:
            raise _away(self.name, operation, f"no credentials: {_cause(error.cause)}") from None
        except Exception as error:  # noqa: BLE001  # of a parser: a stranger may have written the answer
            raise _away(self.name, operation, _cause(error)) from None
        if not isinstance(found, bytes) or not found:
            raise _away(self.name, operation, f"the answer has no {result}")
        return found

    def _client(self) -> Any:
        """Return the context manager of a client; the environment names no endpoint of it."""
        config = AioConfig(
            connect_timeout=TRY_SECONDS,
            read_timeout=TRY_SECONDS,
            retries={"total_max_attempts": 1},
            ignore_configured_endpoint_urls=True,
        )
        place = self._place
        return SdkSession().create_client(
            "kms", region_name=place.region, endpoint_url=place.endpoint or None, config=config
        )


def _cause(error: Exception) -> str:
    """Return what failed; without the text of a parser, which has the answer: that may be a data key."""
    if isinstance(error, NotAnAnswer):
        return str(error)
    if isinstance(error, BotoCoreError | ClientError):
        return f"{type(error).__name__}: {error}"[:_TEXT_LIMIT]
    return f"the answer cannot be read ({type(error).__name__})"


def _refusal(name: str, operation: str, error: ClientError) -> Exception:
    """Return the error for KMS's answer: only one that can't change by itself ends the start."""
    code = str(error.response.get("Error", {}).get("Code", ""))[:64]
    if code in _WRONG_KEY:
        return SealingKeyMismatch(f"{name} does not decrypt the data keys of the database ({code})")
    if code in _UNUSABLE:
        return SealingKeyUnusable(f"AWS KMS refuses to {operation} with {name}: {code}")
    return _away(name, operation, f"AWS KMS refuses: {code}")


def _away(name: str, operation: str, why: str) -> SealingKeyUnavailable:
    return SealingKeyUnavailable(f"{name} does not {operation} now: {why}", retry_in=TRY_SECONDS)
