"""The certificate authorities by which AWS's hosts are verified, where a file of their own is named."""

from __future__ import annotations

import os
import ssl
from typing import Final

from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError

from lessor_server.domain.errors.base import LessorError

VARIABLE: Final = "AWS_CA_BUNDLE"


class CaBundleUnusable(LessorError):
    """The file of certificate authorities that AWS_CA_BUNDLE names can't be used."""

    reason = "CA_BUNDLE_UNUSABLE"
    fix = "name a readable PEM file of certificates in AWS_CA_BUNDLE, or unset it"


def require_ca_bundle() -> None:
    """Raise ``CaBundleUnusable`` where the SDK would verify hosts by a file that it can't read.

    The SDK reads it with its first connection, and its error names no path. It takes it from the variable
    AWS_CA_BUNDLE, or from ``ca_bundle`` in AWS's configuration file.
    """
    try:
        path = AioSession().get_config_variable("ca_bundle")
    except BotoCoreError:  # of the configuration file, which only some roots need
        path = os.environ.get(VARIABLE)
    if not path:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise CaBundleUnusable(f"the file {path} of {VARIABLE} holds no certificate") from None
    except OSError as error:
        raise CaBundleUnusable(f"the file {path} of {VARIABLE} can't be read: {error.strerror}") from None
