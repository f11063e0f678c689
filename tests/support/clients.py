"""Calls a server over a real channel: typed stubs that send the token, and errors with their details.

Every error that passes through ``refused`` must meet the rules of the protocol: an ErrorInfo of domain
``lessor`` with an UPPER_SNAKE reason, and the detail that its status code demands.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2, system_pb2
from lessor.v1.config_pb2_grpc import ConfigServiceStub
from lessor.v1.creds_pb2_grpc import CredsServiceStub
from lessor.v1.lease_pb2_grpc import LeaseServiceStub
from lessor.v1.role_pb2_grpc import RoleServiceStub
from lessor.v1.system_pb2_grpc import SystemServiceStub
from tests.support.standin_control import Json, StandIn

ROOT_KEY = "AKIAROOTROOTROOTROOT"
ROOT_SECRET = "root/secret/of/the/tests/aaaaaaaaaaaaaaa"
POLICY: Mapping[str, object] = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}],
}
MANAGED = "arn:aws:iam::aws:policy/ReadOnlyAccess"
NOBODY_THERE = "http://127.0.0.1:1"
"""An endpoint that the tests' servers may call, where nothing listens."""
SECONDS = 30.0

Metadata = tuple[tuple[str, str], ...]

T = TypeVar("T")
M = TypeVar("M", bound=Message)

_KINDS: dict[str, type[Message]] = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        details.ErrorInfo,
        details.BadRequest,
        details.ResourceInfo,
        details.PreconditionFailure,
        details.QuotaFailure,
        details.RetryInfo,
        details.Help,
    )
}
_NEEDED: dict[grpc.StatusCode, tuple[type[Message], ...]] = {
    grpc.StatusCode.INVALID_ARGUMENT: (details.BadRequest,),
    grpc.StatusCode.NOT_FOUND: (details.ResourceInfo,),
    grpc.StatusCode.ALREADY_EXISTS: (details.ResourceInfo,),
    grpc.StatusCode.FAILED_PRECONDITION: (details.PreconditionFailure,),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (details.QuotaFailure, details.RetryInfo),
    grpc.StatusCode.UNAVAILABLE: (details.RetryInfo,),
    grpc.StatusCode.ABORTED: (details.RetryInfo,),
}


class _Call(Protocol):
    """A unary method of bytes."""

    def __call__(self, data: bytes, *, metadata: Metadata, timeout: float) -> Awaitable[bytes]: ...


class _Stream(Protocol):
    """A streaming method of bytes."""

    def __call__(self, data: bytes, *, timeout: float) -> AsyncIterable[bytes]: ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as a caller sees it; ``violations`` maps each field's path to its description."""

    code: grpc.StatusCode
    message: str
    details: tuple[Message, ...]

    def detail(self, kind: type[M]) -> M:
        """Return the one detail of this kind; AssertionError if there is none or more than one."""
        found = [detail for detail in self.details if isinstance(detail, kind)]
        assert len(found) == 1, f"{len(found)} {kind.DESCRIPTOR.name} in {self}"
        return found[0]

    @property
    def reason(self) -> str:
        """Return the reason in ErrorInfo."""
        return str(self.detail(details.ErrorInfo).reason)

    @property
    def metadata(self) -> dict[str, str]:
        """Return the metadata in ErrorInfo."""
        return dict(self.detail(details.ErrorInfo).metadata)

    @property
    def violations(self) -> dict[str, str]:
        """Return the problems of the request by the paths of their fields."""
        found = self.detail(details.BadRequest).field_violations
        return {violation.field: violation.description for violation in found}

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> Refusal:
        """Read an error, and assert the rules of the protocol for every error."""
        trailing = dict(error.trailing_metadata())
        assert "grpc-status-details-bin" in trailing, f"no details: {error.code()} {error.details()}"
        status = Status.FromString(cast("bytes", trailing["grpc-status-details-bin"]))
        found = tuple(_KINDS[packed.TypeName()].FromString(packed.value) for packed in status.details)
        refusal = cls(error.code(), error.details() or "", found)
        assert (status.code, status.message) == (refusal.code.value[0], refusal.message)
        info = refusal.detail(details.ErrorInfo)
        assert info.domain == "lessor"
        assert re.fullmatch(r"[A-Z][A-Z0-9_]+[A-Z0-9]", info.reason), info.reason
        for kind in _NEEDED.get(refusal.code, ()):
            refusal.detail(kind)
        return refusal


async def refused(call: Awaitable[object]) -> Refusal:
    """Wait for a call that must fail and return its error; AssertionError if it succeeds."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return Refusal.of(error)
    raise AssertionError(f"answered: {type(answer).__name__}")


class _Signed:
    """Adds the token to the metadata of a call."""

    def __init__(self, token: str) -> None:
        self._entry = ("authorization", f"Bearer {token}")

    def sign(self, call: Any) -> Any:
        return call._replace(metadata=grpc.aio.Metadata(*(call.metadata or ()), self._entry))


class _SignedCalls(_Signed, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, call: Any, request: Any) -> Any:
        return await continuation(self.sign(call), request)


class _SignedStreams(_Signed, grpc.aio.UnaryStreamClientInterceptor):
    """A separate class, because grpc.aio accepts an interceptor for one kind of call only."""

    async def intercept_unary_stream(self, continuation: Any, call: Any, request: Any) -> Any:
        return await continuation(self.sign(call), request)


class Lessor:
    """A server from the caller's side: one stub for each service, and the steps of most tests."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Call through ``channel``."""
        self.channel = channel
        self.config = ConfigServiceStub(channel)
        self.roles = RoleServiceStub(channel)
        self.creds = CredsServiceStub(channel)
        self.leases = LeaseServiceStub(channel)
        self.system = SystemServiceStub(channel)

    async def raw(self, method: str, data: bytes = b"", metadata: Metadata = ()) -> bytes:
        """Send the bytes of a request to ``/service/method`` and return those of its response."""
        call = cast("_Call", self.channel.unary_unary(f"/{method}"))
        return await call(data, metadata=metadata, timeout=SECONDS)

    async def raw_stream(self, method: str, data: bytes = b"") -> bytes:
        """Send the bytes of a request to a stream and return those of its first response."""
        stream = cast("_Stream", self.channel.unary_stream(f"/{method}"))
        return await anext(aiter(stream(data, timeout=SECONDS)))

    async def health(self, service: str = "") -> int:
        """Return the health of a service, or of the server."""
        request = health_pb2.HealthCheckRequest(service=service)
        answer = await self.raw("grpc.health.v1.Health/Check", request.SerializeToString())
        return health_pb2.HealthCheckResponse.FromString(answer).status

    async def info(self) -> system_pb2.GetInfoResponse:
        """Return the server's info."""
        return await self.system.GetInfo(system_pb2.GetInfoRequest())

    async def enable(self, mount: str, aws_url: str, **limits: Any) -> None:
        """Enable a mount and give it a root at the stand-in."""
        await self.config.EnableMount(config_pb2.EnableMountRequest(mount=mount, **limits))
        await self.config.SetRoot(config_pb2.SetRootRequest(mount=mount, config=root_at(aws_url)))

    async def put_role(self, mount: str, name: str = "app", **fields: Any) -> role_pb2.PutRoleResponse:
        """Write a role of type IAM_USER with a small policy, unless the fields say otherwise."""
        given = {"credential_type": role_pb2.Role.IAM_USER, "policy_document": struct(POLICY), **fields}
        role = role_pb2.Role(name=name, **given)
        return await self.roles.PutRole(role_pb2.PutRoleRequest(mount=mount, role=role))

    async def generate(
        self, mount: str, role: str = "app", ttl: int = 600, seconds: float = SECONDS
    ) -> creds_pb2.GenerateCredentialsResponse:
        """Issue credentials; ``ttl`` in seconds, ``seconds`` is the deadline."""
        request = creds_pb2.GenerateCredentialsRequest(mount=mount, role=role, ttl=Duration(seconds=ttl))
        return await self.creds.GenerateCredentials(request, timeout=seconds)

    async def lookup(self, lease_id: str) -> lease_pb2.Lease:
        """Return a lease."""
        return (await self.leases.LookupLease(lease_pb2.LookupLeaseRequest(lease_id=lease_id))).lease

    async def renew(self, lease_id: str, increment: int = 0) -> lease_pb2.RenewLeaseResponse:
        """Renew a lease by ``increment`` seconds, 0 for its own ttl."""
        request = lease_pb2.RenewLeaseRequest(lease_id=lease_id)
        if increment:
            request.increment.CopyFrom(Duration(seconds=increment))
        return await self.leases.RenewLease(request)

    async def revoke(self, lease_id: str, *, sync: bool = True) -> lease_pb2.RevokeLeaseResponse:
        """Revoke a lease."""
        request = lease_pb2.RevokeLeaseRequest(lease_id=lease_id, sync=sync)
        return await self.leases.RevokeLease(request, timeout=SECONDS)


@asynccontextmanager
async def connect(
    address: str, token: str, credentials: grpc.ChannelCredentials | None = None
) -> AsyncIterator[Lessor]:
    """Open a channel for the duration of the block; with an empty token none is sent."""
    interceptors: list[grpc.aio.ClientInterceptor] = (
        [_SignedCalls(token), _SignedStreams(token)] if token else []
    )
    channel = (
        grpc.aio.insecure_channel(address, interceptors=interceptors)
        if credentials is None
        else grpc.aio.secure_channel(address, credentials, interceptors=interceptors)
    )
    async with channel:
        yield Lessor(channel)


def root_at(aws_url: str, **fields: Any) -> config_pb2.RootConfig:
    """Return the root of the tests at a stand-in."""
    given = {"access_key": ROOT_KEY, "secret_key": ROOT_SECRET, "region": "us-east-1", **fields}
    return config_pb2.RootConfig(iam_endpoint=aws_url, sts_endpoint=aws_url, **given)


def struct(document: Mapping[str, object]) -> Struct:
    """Return a JSON object as a Struct."""
    made = Struct()
    made.update(dict(document))  # type: ignore[arg-type]
    return made


async def until(look: Callable[[], Awaitable[T]], holds: Callable[[T], bool], seconds: float = SECONDS) -> T:
    """Poll until ``holds`` is true of the value, and return it; AssertionError if that takes too long.

    Wait only for states that last: a state of a moment may be over before the next poll.
    """
    loop = asyncio.get_running_loop()
    late = loop.time() + seconds
    while not holds(seen := await look()):
        assert loop.time() < late, f"still after {seconds:g} s: {seen!r}"
        await asyncio.sleep(0.05)
    return seen


async def works_again(lessor: Lessor, mount: str, role: str = "app") -> None:
    """Wait until AWS is called for this account again: after an outage it is probed first."""

    async def opened() -> bool:
        try:
            await lessor.revoke((await lessor.generate(mount, role)).lease_id)
        except grpc.aio.AioRpcError:
            return False
        return True

    await until(opened, bool, 2 * SECONDS)


async def users_of(aws: StandIn, mount: str) -> list[Json]:
    """Return the users on AWS that belong to the leases of a mount."""
    found = (await aws.users("/lessor/")).values()
    return [user for user in found if lease_of(user).startswith(f"{mount}/")]


def lease_of(user: Json) -> str:
    """Return the lease id in a user's tags."""
    return cast("dict[str, str]", user["tags"]).get("lessor:lease", "")


async def nothing_left(aws: StandIn, mount: str, seconds: float = SECONDS) -> None:
    """Wait until no user of a mount is on AWS; AssertionError if that takes too long."""
    await until(lambda: users_of(aws, mount), lambda users: not users, seconds)


@asynccontextmanager
async def meanwhile(call: Callable[[asyncio.Event], Coroutine[object, object, None]]) -> AsyncIterator[None]:
    """Run ``call`` beside the block, which gets the event that the block is over; its error is raised."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(call(over))
        try:
            yield
        finally:
            over.set()
