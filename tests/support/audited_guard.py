"""A guard with an audit log, over services that only write to a journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import Message

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2, system_pb2
from lessor_server.domain.access.caller import ROOT, Credential, Peer, Principal
from lessor_server.domain.errors.base import LessorError
from lessor_server.engine.aws.request_ids import note_request_id
from lessor_server.services import permissions
from lessor_server.services.audit import CallAudit
from lessor_server.services.call import Caller, Method
from lessor_server.services.guard import CallRefusal, Guard
from tests.support.access import FixedAccess
from tests.support.call_notes import CallNotes
from tests.support.fake_audit import FakeAudit

FILES = (config_pb2, role_pb2, creds_pb2, lease_pb2, system_pb2)
SERVICES = ("ConfigService", "RoleService", "CredsService", "LeaseService", "SystemService")
LEASE = "aws/creds/app/000000000000000000000000"
GENERATE = creds_pb2.GenerateCredentialsRequest(role="app", reason="deploy\n42")


class Exchange:
    """One call without a transport."""

    def __init__(self, token: str, data: bytes) -> None:
        self.credential = Credential(Peer("ipv4:10.0.0.1:5"), (f"Bearer {token}",))
        self.seconds: float | None = None
        self.written: list[Message] = []
        self.before_write: Callable[[Message], None] = lambda _: None
        self.request_id = ""
        self._messages = [data]

    async def read(self) -> bytes | None:
        return self._messages.pop(0)

    def set_request_id(self, request_id: str) -> None:
        self.request_id = request_id

    async def begin(self) -> None: ...

    async def write(self, message: Message) -> None:
        self.before_write(message)
        self.written.append(message)


class Service:
    """Every method of every service: it writes to the journal, and answers or fails as a test wants."""

    def __init__(self, journal: list[str]) -> None:
        self.journal = journal
        self.error: Exception | None = None
        self.answers: dict[str, Message] = {}
        self.streamed: list[Message] = []
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.callers: list[Caller] = []

    async def act(self, caller: Caller) -> None:
        self.journal.append("effect")
        self.callers.append(caller)
        note_request_id("aws-1")
        await self.may_end.wait()
        if self.error is not None:
            raise self.error

    def __getattr__(self, name: str) -> Any:
        method = next(one for service in DESCRIPTORS for one in service.methods if one.name == name)

        async def answer(_: Message, caller: Caller) -> Message:
            await self.act(caller)
            return self.answers.get(name) or CLASSES[method.output_type.name]()

        async def stream(_: Message, caller: Caller) -> AsyncIterator[Message | None]:
            await self.act(caller)
            if f"{method.containing_service.name}.{name}" in permissions.UNBOUNDED_STREAMS:
                yield None
            for message in self.streamed:
                yield message

        return stream if method.server_streaming else answer


DESCRIPTORS = [
    file.DESCRIPTOR.services_by_name[name]
    for file, name in zip((config_pb2, role_pb2, creds_pb2, lease_pb2, system_pb2), SERVICES, strict=True)
]
CLASSES: dict[str, type[Message]] = {
    name: getattr(file, name) for file in FILES for name in file.DESCRIPTOR.message_types_by_name
}


class Bench:
    """A guard with an audit log and a service."""

    def __init__(self, *known: Principal) -> None:
        self.audit = FakeAudit()
        self.withdrawn: list[str] = []
        numbers = iter(range(1, 10**6))
        calls = CallAudit(self.audit, lambda: 7, lambda: f"id-{next(numbers)}", self.withdrawn.append)
        access = FixedAccess({one.name: one for one in (ROOT, *known)})
        self.guard = Guard(access, CallNotes(), lambda: 0.0, audit=calls)
        self.service = Service(self.audit.journal)
        self.methods: dict[str, Method] = {}
        for descriptor in DESCRIPTORS:
            for name, method in self.guard.methods(descriptor, self.service):
                self.methods[f"{descriptor.name}.{name}"] = method

    async def call(self, method: str, request: Message, token: str = "root") -> Outcome:
        """Serve a call; return what came of it."""
        exchange = Exchange(token, request.SerializeToString())
        exchange.before_write = lambda _: self.audit.journal.append("sent")
        answer = await self.guard.serve(self.methods[method], exchange)
        return Outcome(answer, exchange)

    async def generate(self, token: str = "root", request: Message = GENERATE) -> Outcome:
        """Ask for a credential."""
        return await self.call("CredsService.GenerateCredentials", request, token)


class Outcome:
    """The end of a call."""

    def __init__(self, answer: Message | CallRefusal | None, exchange: Exchange) -> None:
        self.answer = answer
        self.exchange = exchange

    @property
    def error(self) -> LessorError:
        assert isinstance(self.answer, CallRefusal)
        return self.answer.error


def credential(number: int = 0) -> creds_pb2.GenerateCredentialsResponse:
    """Return an answer with a secret."""
    return creds_pb2.GenerateCredentialsResponse(
        lease_id=LEASE[:-1] + str(number), access_key="AKIA1", secret_key="s3cret", security_token="t0ken"
    )


def example(method: str) -> Message:
    """Return a request with valid names."""
    descriptor = next(
        one for service in DESCRIPTORS for one in service.methods if method == f"{service.name}.{one.name}"
    )
    request: Any = CLASSES[descriptor.input_type.name]()
    fields = descriptor.input_type.fields_by_name
    for name, value in (("lease_id", LEASE), ("prefix", "aws/"), ("name", "app")):
        if name in fields:
            setattr(request, name, value)
    if method == "LeaseService.AbandonLeases":
        request.ClearField("prefix")
    for name in ("role", "static_role"):
        if name in fields and fields[name].message_type is not None:
            getattr(request, name).name = "app"
        elif name in fields:
            setattr(request, name, "app")
    if "apply" in fields:
        request.apply = True
    return request  # type: ignore[no-any-return]
