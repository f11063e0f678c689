"""Short questions to the server, for shell completion: all of them together end after some seconds."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self, TypeVar

import grpc
from google.protobuf.message import Message

from lessor.channel import BadConnection, Connection
from lessor.v1 import config_pb2, lease_pb2, role_pb2
from lessor.v1.config_pb2_grpc import ConfigServiceStub
from lessor.v1.lease_pb2_grpc import LeaseServiceStub
from lessor.v1.role_pb2_grpc import RoleServiceStub

PAGE = 1000
Request = TypeVar("Request", bound=Message)
Answer = TypeVar("Answer", bound=Message)


class NoAnswer(Exception):
    """The server refuses, is away, or does not answer in time."""


class Asking:
    """A channel that is used for some seconds, and prints nothing."""

    def __init__(self, variables: Mapping[str, str], seconds: float) -> None:
        """Reach the server that ``variables`` describe, as ``Connection.from_environ`` reads them."""
        self._connection = Connection.from_environ(variables)
        self._until = time.monotonic() + seconds  # noqa: TID251 - no event loop runs here

    def __enter__(self) -> Self:
        """Open the channel; raises ``NoAnswer``."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._channel = self._connection.open(retries=False)
        except BadConnection as error:
            raise NoAnswer from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        self._channel.close()

    def _call(self, method: grpc.UnaryUnaryMultiCallable[Request, Answer], request: Request) -> Answer:
        seconds = self._until - time.monotonic()  # noqa: TID251 - as above
        try:
            return method(request, timeout=max(seconds, 0.0), metadata=self._connection.metadata())
        except (grpc.RpcError, BadConnection) as error:
            raise NoAnswer from error

    def mounts(self) -> Iterator[str]:
        """Yield the names of engines."""
        service = ConfigServiceStub(self._channel)
        answer = self._call(service.ListMounts, config_pb2.ListMountsRequest(page_size=PAGE))
        yield from (one.mount for one in answer.mounts)

    def roles(self, mount: str) -> Iterator[str]:
        """Yield the names of an engine's roles."""
        service = RoleServiceStub(self._channel)
        request = role_pb2.ListRolesRequest(mount=mount, page_size=100)
        while True:
            answer = self._call(service.ListRoles, request)
            yield from (one.name for one in answer.roles)
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    def usable_roles(self, mount: str) -> Iterator[str]:
        """Yield the names of the roles that the caller may use."""
        service = RoleServiceStub(self._channel)
        request = role_pb2.ListUsableRolesRequest(mount=mount, page_size=PAGE)
        while True:
            answer = self._call(service.ListUsableRoles, request)
            yield from (one.name for one in answer.roles)
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    def static_roles(self, mount: str) -> Iterator[str]:
        """Yield the names of an engine's static roles, at most one page of them."""
        service = RoleServiceStub(self._channel)
        request = role_pb2.ListStaticRolesRequest(mount=mount, page_size=PAGE)
        yield from (one.name for one in self._call(service.ListStaticRoles, request).static_roles)

    def lease_ids(self, prefix: str, pages: int) -> Iterator[str]:
        """Yield the ids of ACTIVE leases under a prefix, of at most this many pages."""
        service = LeaseServiceStub(self._channel)
        request = lease_pb2.ListLeasesRequest(prefix=prefix, page_size=PAGE, state=lease_pb2.Lease.ACTIVE)
        for _ in range(pages):
            answer = self._call(service.ListLeases, request)
            yield from (one.lease_id for one in answer.leases)
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token
