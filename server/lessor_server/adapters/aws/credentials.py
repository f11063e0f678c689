"""The credentials that sign the calls of a root, kept while its version is in use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from lessor_server.adapters.aws.operations.base import read_text
from lessor_server.adapters.aws.sdk_session import CredentialsNotFetched, SdkSession
from lessor_server.adapters.aws.signing_key import SigningKey
from lessor_server.domain.root import Hop, Root, RootConfig
from lessor_server.domain.secret import Secret

V = TypeVar("V")

RETIRED_SECONDS: Final = 60.0
"""How long the credentials of an older root are kept, for its calls that are not sent yet."""
MAX_OF_MOUNT: Final = 16
"""A mount's root has one source, each hop of its chain one, and each root that is checked."""


class Source(NamedTuple):
    """The credentials of a root: its keys or token, and its chain. Two mounts never share one."""

    mount: str
    version: int
    access_key: str
    secret_key: Secret
    identity_token_file: str
    chain: tuple[Hop, ...]

    @staticmethod
    def of(root: Root) -> Source:
        """Return the source of a root."""
        config = root.config
        return Source(
            root.mount,
            root.version,
            config.access_key,
            config.secret_key,
            config.identity_token_file,
            config.assume_chain,
        )


class KeptBySource(Generic[V]):
    """Values by source; those of an older version of a mount's root are dropped a minute after the newer."""

    def __init__(self, make: Callable[[], V]) -> None:
        """Make values with ``make``."""
        self._make = make
        self._kept: dict[str, dict[Source, V]] = {}
        self._last: dict[str, tuple[Root, V]] = {}

    def of(self, root: Root) -> V:
        """Return the value of a root's source; it is not looked up again for the root that was used last."""
        last = self._last.get(root.mount)
        if last is not None and last[0] is root:
            return last[1]
        value = self.get(Source.of(root))
        self._last[root.mount] = root, value
        return value

    def get(self, source: Source) -> V:
        """Return the value of a source, which is made if there is none."""
        of_mount = self._kept.setdefault(source.mount, {})
        found = of_mount.get(source)
        if found is None:
            while len(of_mount) >= MAX_OF_MOUNT:
                del of_mount[next(iter(of_mount))]
            found = of_mount[source] = self._make()
            if len({one.version for one in of_mount}) > 1:
                asyncio.get_running_loop().call_later(RETIRED_SECONDS, self._drop_older, source.mount)
        return found

    def forget(self, mount: str) -> None:
        """Drop the values of a mount; calls in flight keep theirs."""
        self._kept.pop(mount, None)
        self._last.pop(mount, None)

    def _drop_older(self, mount: str) -> None:
        of_mount = self._kept.get(mount, {})
        newest = max((source.version for source in of_mount), default=0)
        for source in [one for one in of_mount if one.version < newest]:
            del of_mount[source]
        if mount in self._last and self._last[mount][0].version < newest:
            del self._last[mount]


class RootKey:
    """The key of a root without a chain: its own, or what the SDK's chain of providers finds."""

    def __init__(self) -> None:
        """Begin without a key."""
        self._lock = asyncio.Lock()
        self._provider: Any = None
        self._key: SigningKey | None = None

    def of_root(self, config: RootConfig) -> SigningKey:
        """Return the key in a root; it is always the same for roots of one source."""
        if self._key is None:
            self._key = SigningKey(config.access_key, config.secret_key.reveal())
        return self._key

    async def fetch(self) -> SigningKey:
        """Return the server's own key, which is fetched unless it is fresh.

        Raises:
            CredentialsNotFetched: There is none, or it is due for renewal and can't be renewed.
        """
        async with self._lock:
            if self._provider is None:
                # Another session, since one that found no credentials does not look where they may be now.
                self._provider = await SdkSession().get_credentials()
        if self._provider is None:
            raise CredentialsNotFetched(NoCredentialsError())
        try:
            frozen = await self._provider.get_frozen_credentials()
            found = frozen.access_key, frozen.secret_key, frozen.token or ""
            if self._key is None or not self._key.is_made_of(*found):
                self._key = _signing_key(*found)
        except (BotoCoreError, ClientError) as error:
            raise CredentialsNotFetched(error) from error
        except Exception as error:  # a field is wrong: the provider would keep it until it expires
            self._provider = None
            raise CredentialsNotFetched(error) from error
        return self._key


def _signing_key(access_key: object, secret_key: object, token: object) -> SigningKey:
    """Return the key of what a provider has found, or raise ``WrongField``."""
    found = {"AccessKeyId": access_key, "SecretAccessKey": secret_key, "Token": token}
    texts = [read_text(found, name) for name in found if name != "Token" or token]
    return SigningKey(*texts)
