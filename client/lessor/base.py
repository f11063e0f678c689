"""What ``lessor.Client`` and ``lessor.sync.Client`` have in common: their arguments."""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, Self, TypeVar

from lessor.arguments import DurationLike, PolicyLike, span
from lessor.calls import DEFAULT_TIMEOUT, Calls, Wire
from lessor.channel import DEFAULT_ADDRESS, Connection
from lessor.clock import Clock, MachineClock
from lessor.leases import WAIT_USABLE, LeaseKeeper, LeaseView

PathLike = str | os.PathLike[str]
L_co = TypeVar("L_co", bound=LeaseView, covariant=True)


class ClientBase(ABC, Generic[L_co]):
    """Calls a Lessor server; each RPC is a method.

    A client connects with its first call. A call waits, within its deadline, until the server can be reached.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        token: str = "",
        token_file: PathLike | None = None,
        ca: PathLike | None = None,
        cert: PathLike | None = None,
        key: PathLike | None = None,
        timeout: DurationLike = DEFAULT_TIMEOUT,
    ) -> None:
        """Configure the client.

        Args:
            address: ``host:port``, ``https://host[:port]`` or ``unix:/path``.
            token: The caller's token; overrides ``token_file``.
            token_file: A file with the token, read again at each call.
            ca: A PEM file with the authorities to trust.
            cert: The caller's certificate, a PEM file.
            key: The key of ``cert``, a PEM file.
            timeout: How long a call may take, with its retries, unless it is given its own ``timeout``.
        """
        token_path, ca_path, cert_path, key_path = (
            None if path is None else Path(path) for path in (token_file, ca, cert, key)
        )
        self._connection = Connection(address, token, token_path, ca_path, cert_path, key_path)
        self._calls = Calls(self._make_wire(), span(timeout), random.SystemRandom())

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str] = os.environ, *, timeout: DurationLike = DEFAULT_TIMEOUT
    ) -> Self:
        """Return the client that the six variables of ``lessor.channel`` describe."""
        found = Connection.from_environ(environ)
        return cls(
            found.address,
            token=found.token,
            token_file=found.token_file,
            ca=found.ca_file,
            cert=found.cert_file,
            key=found.key_file,
            timeout=timeout,
        )

    def lease(
        self,
        role: str,
        *,
        mount: str = "aws",
        ttl: DurationLike | None = None,
        reason: str | None = None,
        role_arn: str | None = None,
        role_session_name: str | None = None,
        mfa_code: str | None = None,
        session_policy: PolicyLike | None = None,
        wait_usable: DurationLike = WAIT_USABLE,
    ) -> L_co:
        """Return a lease to enter by ``with``; the arguments are those of ``generate_credentials``."""
        fields = {
            "mount": mount,
            "role": role,
            "ttl": ttl,
            "reason": reason,
            "role_arn": role_arn,
            "role_session_name": role_session_name,
            "mfa_code": mfa_code,
            "session_policy": session_policy,
            "wait_usable": wait_usable,
        }
        return self._make_lease(self.keeper(fields, MachineClock(), random.SystemRandom()))

    def keeper(self, fields: Mapping[str, object], clock: Clock, rng: random.Random) -> LeaseKeeper:
        """Return what issues and refreshes credentials with ``fields``, for a library that uses them."""
        return LeaseKeeper(self._calls, fields, clock, rng)

    def __repr__(self) -> str:
        """Show the address only."""
        return f"{type(self).__module__}.{type(self).__name__}({self._connection.address!r})"

    @abstractmethod
    def _make_wire(self) -> Wire:
        """Return what sends the calls."""

    @abstractmethod
    def _make_lease(self, keeper: LeaseKeeper) -> L_co:
        """Return the lease of a keeper."""


def note_failure(error: BaseException, failed: Exception) -> None:
    """Add to the error of a block that the revocation after it failed too."""
    for line in (str(failed), *getattr(failed, "__notes__", ())):
        error.add_note(line)
