"""Sessions of the SDK, for the server's own credentials and the SDK's settings.

The SDK fetches those credentials itself: a web identity, an assumed role, single sign-on, or from the
metadata services of instances and containers. Its requests too are sent by ``HttpClient``, and its answers
are checked.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioContainerProvider, AioInstanceMetadataProvider
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError
from botocore.httpsession import ProxyConfiguration, get_cert_path

from lessor_server.adapters.aws.http_client import HttpClient
from lessor_server.adapters.aws.query_protocol import loader
from lessor_server.adapters.aws.xml_check import require_aws_answer
from lessor_server.domain.errors.base import LessorError

CA_BUNDLE_VARIABLE: Final = "AWS_CA_BUNDLE"
METADATA_SECONDS: Final = 2
"""The timeouts of metadata services, to connect and to answer, as in the SDK for containers."""


DEFAULT_REGION: Final = "us-east-1"
_OWN_HEADERS: Final = frozenset(
    ("host", "content-length", "accept-encoding", "transfer-encoding", "connection")
)
"""Headers that ``HttpClient`` writes itself."""


@dataclass(frozen=True, slots=True)
class _Body:
    """A body that is read already, for ``AioAWSResponse``."""

    content: bytes

    async def read(self) -> bytes:
        """Return it."""
        return self.content


class SdkTransport:
    """The HTTP session of one of the SDK's own clients, and of its requests to metadata services."""

    def __init__(
        self, timeout: Any = METADATA_SECONDS, proxies: Any = None, verify: Any = True, **_: object
    ) -> None:
        """Take what the SDK gives a session; ``timeout`` may be two, to connect and to answer."""
        connect, read = timeout if isinstance(timeout, list | tuple) else (timeout, timeout)
        proxy = ProxyConfiguration(proxies)
        self._http = HttpClient(
            lambda: str(get_cert_path(verify or True)),
            connect_seconds=connect,
            read_seconds=read,
            find_proxy=lambda url: proxy.proxy_url_for(url) or "",
        )

    async def __aenter__(self) -> Self:
        """Begin without connections."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the idle connections."""
        self._http.close()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Self]:
        """Serve one fetch from a metadata service."""
        async with self:
            yield self

    async def send(self, request: Any) -> AioAWSResponse:
        """Send one request of the SDK; errors as those of ``HttpClient``."""
        headers = {
            name: value.decode() if isinstance(value, bytes) else str(value)
            for name, value in request.headers.items()
            if name.lower() not in _OWN_HEADERS
        }
        body = request.body.encode() if isinstance(request.body, str) else bytes(request.body or b"")
        answer = await self._http.send(request.method, request.url, headers, body)
        return AioAWSResponse(request.url, answer.status, answer.headers, _Body(answer.body))

    async def close(self) -> None:
        """Close the idle connections."""
        self._http.close()


class CredentialsNotFetched(Exception):
    """The server's own credentials could not be fetched; ``cause`` is the SDK's error."""

    def __init__(self, cause: Exception) -> None:
        """Keep the SDK's error."""
        super().__init__()
        self.cause = cause


class SdkSession(AioSession):  # type: ignore[misc]  # aiobotocore ships no types
    """One session of the SDK."""

    def __init__(self) -> None:
        """Read the SDK's settings from the environment and its files."""
        super().__init__()
        self.register_component("data_loader", loader())
        if not self.get_config_variable("region"):
            self.set_config_variable("region", DEFAULT_REGION)
        for service in ("iam", "sts"):
            self.register(f"before-parse.{service}", require_aws_answer)

    def create_client(self, *args: Any, config: Any = None, **options: Any) -> Any:
        """Return the context manager of a new client that uses ``SdkTransport``."""
        # Set after the merge, which would drop it.
        merged = AioConfig() if config is None else AioConfig().merge(config)
        merged.http_session_cls = SdkTransport
        return super().create_client(*args, config=merged, **options)

    async def get_credentials(self) -> Any:
        """Return the credentials that clients sign with, or None.

        Raises:
            CredentialsNotFetched: The source of the server's own credentials did not return them.
        """
        try:
            return await super().get_credentials()
        except Exception as error:
            raise CredentialsNotFetched(error) from error

    def _create_credential_resolver(self) -> Any:
        """Return the chain of providers, with our own transport to the metadata services."""
        resolver = super()._create_credential_resolver()
        for provider in resolver.providers:
            if isinstance(provider, AioInstanceMetadataProvider):
                provider._role_fetcher._session = SdkTransport()  # noqa: SLF001
            elif isinstance(provider, AioContainerProvider):
                provider._fetcher._session = SdkTransport()  # noqa: SLF001
        return resolver


def find_ca_file() -> str:
    """Return the path of the authorities that the SDK trusts: a setting's, or those that it brings."""
    path = _read_ca_bundle()
    return str(get_cert_path((os.environ.get("REQUESTS_CA_BUNDLE") if path is None else path) or True))


def _read_ca_bundle() -> str | None:
    """Return the SDK's setting, from the environment or its files."""
    path: str | None = AioSession(include_builtin_handlers=False).get_config_variable("ca_bundle")
    return path


class CaBundleUnusable(LessorError):
    """The file of certificate authorities that AWS_CA_BUNDLE names can't be used."""

    reason = "CA_BUNDLE_UNUSABLE"
    fix = "name a readable PEM file of certificates in AWS_CA_BUNDLE, or unset it"


def require_ca_bundle() -> None:
    """Raise ``CaBundleUnusable`` if the SDK would verify hosts by a file that it can't read.

    The SDK reads it at its first connection, and its error names no path. The path is in the variable
    AWS_CA_BUNDLE, or in ``ca_bundle`` in AWS's configuration file.
    """
    try:
        path = _read_ca_bundle()
    except BotoCoreError:  # from the configuration file, which only some roots need
        path = os.environ.get(CA_BUNDLE_VARIABLE)
    if not path:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise CaBundleUnusable(f"the file {path} of {CA_BUNDLE_VARIABLE} holds no certificate") from None
    except OSError as error:
        raise CaBundleUnusable(
            f"the file {path} of {CA_BUNDLE_VARIABLE} can't be read: {error.strerror}"
        ) from None
