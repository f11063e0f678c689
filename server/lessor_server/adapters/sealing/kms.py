"""A key-encryption key in AWS KMS, which never leaves it; calls use the server's own credentials.

Source: AWS KMS API Reference, Encrypt and Decrypt; AWS KMS Developer Guide, "Encryption context" and "Key
states of AWS KMS keys". The server's identity needs kms:Encrypt and kms:Decrypt on the key.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError

from lessor_server.domain.errors.sealing import SealingKeyMismatch, SealingKeyUnavailable, SealingKeyUnusable
from lessor_server.domain.sealing_key import SealingKeyPlace, may_ask

TRY_SECONDS: Final = 5.0
_WRONG_KEY: Final = frozenset(("InvalidCiphertextException", "IncorrectKeyException"))
_UNUSABLE: Final = frozenset(
    ("NotFoundException", "InvalidArnException", "InvalidKeyUsageException", "ValidationException")
)
_CONTEXT: Final = "lessor-data-key"


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
        """Return a data key encrypted by KMS, bound to its id.

        Raises:
            SealingKeyUnavailable: KMS does not encrypt now. SealingKeyUnusable: It never will.
        """
        answer = await self._call("encrypt", Plaintext=data_key, EncryptionContext={_CONTEXT: key_id})
        return bytes(answer["CiphertextBlob"])

    async def unwrap(self, wrapped: bytes, key_id: str) -> bytes:
        """Return the data key with this id.

        Raises:
            SealingKeyMismatch: It was not wrapped by this key, or was changed since.
            SealingKeyUnavailable, SealingKeyUnusable: As above.
        """
        answer = await self._call("decrypt", CiphertextBlob=wrapped, EncryptionContext={_CONTEXT: key_id})
        return bytes(answer["Plaintext"])

    async def _call(self, operation: str, **params: object) -> dict[str, Any]:
        place = self._place
        config = AioConfig(
            connect_timeout=TRY_SECONDS, read_timeout=TRY_SECONDS, retries={"total_max_attempts": 1}
        )
        try:
            async with asyncio.timeout(TRY_SECONDS):
                session = AioSession()
                session.register_component("data_loader", _loader())
                async with session.create_client(
                    "kms", region_name=place.region, endpoint_url=place.endpoint or None, config=config
                ) as client:
                    answer: dict[str, Any] = await getattr(client, operation)(KeyId=place.name, **params)
                    return answer
        except ClientError as error:
            raise _refusal(self.name, operation, error) from None
        except TimeoutError:
            raise _away(self.name, operation, f"no answer in {TRY_SECONDS:g} s") from None
        except (BotoCoreError, OSError) as error:
            raise _away(self.name, operation, type(error).__name__) from None


@cache
def _loader() -> object:
    """Return a loader that keeps the SDK's models, which take longer to read than a call."""
    return AioSession().get_component("data_loader")


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
