"""The client of Lessor: ``Client`` and ``sync.Client``, sessions for AWS's SDKs, errors, stubs in ``v1``.

Everything is imported when it is used, because gRPC takes long to load and not each command needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import lessor.aioboto3 as aioboto3
    import lessor.boto3 as boto3
    import lessor.sync as sync
    import lessor.testing as testing
    from lessor.channel import BadConnection, PlaintextWarning
    from lessor.client import Client, Lease
    from lessor.errors import (
        Aborted,
        AlreadyExists,
        DeadlineExceeded,
        Error,
        Invalid,
        NotFound,
        PermissionDenied,
        Precondition,
        QuotaExceeded,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        Violation,
    )
    from lessor.leases import Credentials
    from lessor.reasons import Reason
    from lessor.values import InvalidValue

    __version__: str

__all__ = [
    "Aborted",
    "AlreadyExists",
    "BadConnection",
    "Client",
    "Credentials",
    "DeadlineExceeded",
    "Error",
    "Invalid",
    "InvalidValue",
    "Lease",
    "NotFound",
    "PermissionDenied",
    "PlaintextWarning",
    "Precondition",
    "QuotaExceeded",
    "Reason",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "__version__",
    "aioboto3",
    "boto3",
    "sync",
    "testing",
]

_MODULES: Final = ("aioboto3", "boto3", "sync", "testing")
_HOMES: Final = {
    "BadConnection": "channel",
    "Client": "client",
    "Credentials": "leases",
    "InvalidValue": "values",
    "Lease": "client",
    "PlaintextWarning": "channel",
    "Reason": "reasons",
}
"""The module of each name; all others are in ``errors``."""


def __getattr__(name: str) -> object:
    """Import what a name stands for, and keep it."""
    if name not in __all__:
        raise AttributeError(f"module 'lessor' has no attribute {name!r}")
    found: object
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - it is slow

        found = version("lessor")
    elif name in _MODULES:
        found = import_module(f"lessor.{name}")
    else:
        found = getattr(import_module(f"lessor.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return the names to complete."""
    return sorted({*globals(), *__all__})
