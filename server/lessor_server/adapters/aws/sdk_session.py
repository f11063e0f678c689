"""Sessions of the SDK that send every request over ``Transport`` and check every answer.

This includes the clients that the SDK creates to fetch the server's own credentials (a web identity, an
assumed role, single sign-on), and its requests to the metadata services of instances and containers.
"""

from __future__ import annotations

import os
import ssl
from datetime import datetime
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioContainerProvider, AioInstanceMetadataProvider
from aiobotocore.session import AioSession
from aiobotocore.utils import _RefCountedSession
from botocore.exceptions import BotoCoreError

from lessor_server.adapters.aws.transport import Transport
from lessor_server.adapters.aws.xml_check import require_aws_answer
from lessor_server.domain.errors.base import LessorError

CA_BUNDLE_VARIABLE: Final = "AWS_CA_BUNDLE"
METADATA_SECONDS = 2
"""The timeouts of metadata services, to connect and to answer, as in the SDK for containers."""


class MetadataTransport(Transport, _RefCountedSession):  # type: ignore[misc]  # aiobotocore ships no types
    """The transport to a metadata service: open only during a request, and without a proxy."""


class CredentialsNotFetched(Exception):
    """The server's own credentials could not be fetched; ``cause`` is the SDK's error."""

    def __init__(self, cause: Exception) -> None:
        """Keep the SDK's error."""
        super().__init__()
        self.cause = cause


class SdkSession(AioSession):  # type: ignore[misc]  # aiobotocore ships no types
    """One session of the SDK."""

    def __init__(self, loader: Any = None) -> None:
        """Read models with ``loader``, which sessions may share, and timestamps by the standard library."""
        super().__init__()
        if loader is not None:
            self.register_component("data_loader", loader)
        parsers = self.get_component("response_parser_factory")
        parsers.set_parser_defaults(timestamp_parser=datetime.fromisoformat)
        for service in ("iam", "sts"):
            self.register(f"before-parse.{service}", require_aws_answer)

    def create_client(self, *args: Any, config: Any = None, **options: Any) -> Any:
        """Return the context manager of a new client that uses ``Transport``."""
        # Set after the merge, which would drop it.
        merged = AioConfig() if config is None else AioConfig().merge(config)
        merged.http_session_cls = Transport
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
                provider._role_fetcher._session = MetadataTransport(timeout=METADATA_SECONDS)  # noqa: SLF001
            elif isinstance(provider, AioContainerProvider):
                provider._fetcher._session = MetadataTransport(timeout=METADATA_SECONDS)  # noqa: SLF001
        return resolver


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
        path = AioSession().get_config_variable("ca_bundle")
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
