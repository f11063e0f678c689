"""The audit records of calls: before an effect, before each answer, and of each refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from google.protobuf.message import Message

from lessor_server.domain.access.acl import Capability
from lessor_server.domain.access.caller import Principal
from lessor_server.domain.audit.record import AuditRecord, RecordKind, document_digest
from lessor_server.domain.errors.access import AuditUnavailable
from lessor_server.domain.errors.base import ErrorKind, Invalid, LessorError
from lessor_server.domain.policy import policy
from lessor_server.engine.aws.request_ids import collect_request_ids
from lessor_server.engine.meter import current_trace_id
from lessor_server.services import messages, permissions
from lessor_server.services.call import Method, ServedCall
from lessor_server.services.effects import Effect, effect_of
from lessor_server.services.status import code_of

UNAUTHENTICATED_RECORDS: Final = 10
"""Records per second of callers that are not known; the rest of a second is one record with a count."""
KEEP_SECONDS: Final = 0.5
"""How long a call waits for a record without which it goes on too."""
OK, CANCELLED = "OK", "CANCELLED"
_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})


class Audit(Protocol):
    """Writes audit records to all sinks."""

    @property
    def works(self) -> bool:
        """Return whether at least one sink can be written to."""
        ...

    async def write(self, record: AuditRecord) -> None:
        """Write a record and wait until one sink has it.

        Raises:
            AuditUnavailable: No sink works. The record waits in memory for one that does.
        """
        ...

    def note(self, record: AuditRecord, *, has_effect: bool) -> None:
        """Write a record soon; never wait and never raise.

        While no sink works, records without an effect, of reads and refusals, never displace the others.
        """
        ...

    def hash_value(self, value: str) -> str:
        """Return what stands for a value in a record: its HMAC-SHA256 under the installation's key."""
        ...


def _do_nothing(_: str) -> None: ...


class CallAudit:
    """Makes the records of all calls."""

    def __init__(
        self,
        audit: Audit | None = None,
        now_us: Callable[[], int] = lambda: 0,
        draw_id: Callable[[], str] = str,
        withdraw: Callable[[str], None] = _do_nothing,
    ) -> None:
        """Write to ``audit``; without one nothing is written. ``draw_id`` draws the id of a call.

        ``withdraw`` begins to revoke the lease of a credential that is not handed out.
        """
        self._audit = audit
        self.now_us = now_us
        self.draw_id = draw_id
        self.withdraw = withdraw
        self._unauthenticated: int | None = None
        """The number of unauthenticated callers in this second; None if there were none."""

    def use(self, audit: Audit) -> None:
        """Write to ``audit`` from now on."""
        self._audit = audit

    def begin(self, method: Method, peer: str) -> CallRecords:
        """Begin the records of a call."""
        return CallRecords(self, method, peer, self.draw_id())

    def require(self) -> None:
        """Raise ``AuditUnavailable`` if records have to be written, and no sink works."""
        if self._audit is not None and not self._audit.works:
            raise AuditUnavailable

    @property
    def is_on(self) -> bool:
        """Return whether records are written."""
        return self._audit is not None

    def hash_value(self, value: str) -> str:
        """Return what stands for a value in a record."""
        return self._audit.hash_value(value) if self._audit is not None and value else ""

    async def write(self, record: AuditRecord) -> None:
        """Write a record and wait for it; raise ``AuditUnavailable`` if no sink works."""
        if self._audit is not None:
            await self._audit.write(record)

    async def write_or_keep(self, record: AuditRecord) -> None:
        """Write a record and wait for it a moment; while no sink works it waits in memory."""
        if self._audit is None:
            return
        if self._audit.works:
            with suppress(AuditUnavailable, TimeoutError):
                async with asyncio.timeout(KEEP_SECONDS):
                    await self._audit.write(record)
        else:
            self._audit.note(record, has_effect=True)

    async def write_answer(self, effect: Effect | None, record: AuditRecord) -> None:
        """Write the record of an answer before it leaves: a read does not wait, a revocation not long.

        Raises:
            AuditUnavailable: The answer must not leave.
        """
        if effect is Effect.READ:
            self.note(record, has_effect=False)
        elif effect is Effect.REVOKE:
            await self.write_or_keep(record)
        else:
            await self.write(record)

    def note(self, record: AuditRecord, *, has_effect: bool) -> None:
        """Write a record soon."""
        if self._audit is not None:
            self._audit.note(record, has_effect=has_effect)

    def note_unauthenticated(self, record: AuditRecord) -> None:
        """Write at most ten such records a second, and a count of the others: no flood fills a disk."""
        if self._audit is None:
            return
        if self._unauthenticated is None:
            self._unauthenticated = 0
            asyncio.get_running_loop().call_later(1.0, self._end_second)
        self._unauthenticated += 1
        if self._unauthenticated <= UNAUTHENTICATED_RECORDS:
            self._audit.note(record, has_effect=False)

    def _end_second(self) -> None:
        count, self._unauthenticated = (self._unauthenticated or 0) - UNAUTHENTICATED_RECORDS, None
        if count > 0:
            self.note(
                AuditRecord(
                    kind=RecordKind.RESPONSE,
                    time_us=self.now_us(),
                    decision="unauthenticated",
                    status=code_of(ErrorKind.UNAUTHENTICATED).name,
                    count=count,
                ),
                has_effect=False,
            )


class CallRecords:
    """The records of one call, which share an id."""

    def __init__(self, audit: CallAudit, method: Method, peer: str, request_id: str) -> None:
        """Begin with a caller that is not known yet."""
        self.request_id = request_id
        self.principal: Principal | None = None
        self.call: ServedCall | None = None
        self._audit = audit
        self._method = method
        self._peer = peer
        self._aws_request_ids = collect_request_ids() if audit.is_on else []
        self._trace_id = current_trace_id.get()
        self._began_at = asyncio.get_running_loop().time()
        self._effect: Effect | None = None
        """None until the call is allowed."""
        self._names: _Names | None = None
        """What the request names, once the call is allowed."""
        self._digest = ""
        self._begun = self._ended = False

    @property
    def _may_have_acted(self) -> bool:
        """Return whether the call was let go on to its effect."""
        return self._has_two and self._begun

    @property
    def _has_two(self) -> bool:
        return self._effect in (Effect.CHANGE, Effect.REVOKE)

    async def begin(self, call: ServedCall) -> None:
        """Write the record that comes before an effect.

        Raises:
            AuditUnavailable: The call may not go on without it.
        """
        assert call.request is not None
        self._effect = effect_of(call.method.name, call.request)
        if self._audit.is_on:
            self._names = _names(call.request)
            await self._write_request(call.request)
        self._begun = True

    async def _write_request(self, request: Message) -> None:
        self._digest = _digest_of_policy(request)
        if self._effect in (Effect.CHANGE, Effect.READ_ROOT):
            self._audit.require()
        if self._effect is Effect.CHANGE:
            await self._audit.write(self._record(RecordKind.REQUEST))
        elif self._effect is Effect.REVOKE:
            await self._audit.write_or_keep(self._record(RecordKind.REQUEST))
        elif self._method.lasting:
            self._audit.note(self._record(RecordKind.REQUEST), has_effect=False)

    async def answer(self, message: Message) -> None:
        """Write the record of an answer before it leaves; if that fails, revoke the lease of its credential.

        Raises:
            AuditUnavailable: The answer must not leave.
        """
        if self._audit.is_on:
            await self._write_answer(message)
        self._ended = True

    async def credential(self, message: Message) -> None:
        """Write the record of a stream's message that holds a credential; see ``answer``."""
        if self._audit.is_on and _text(message, "secret_key"):
            await self._write_answer(message)

    async def end(self) -> None:
        """Write the record of a stream that has ended by itself."""
        if self._may_end():
            await self._audit.write_or_keep(self._record(RecordKind.RESPONSE, OK))

    async def refuse(self, error: LessorError) -> None:
        """Write the record of an error, if the call has not ended."""
        if not self._may_end():
            return
        record = self._record(RecordKind.RESPONSE, code_of(error.kind).name, error=error)
        if self._has_two and not isinstance(error, AuditUnavailable):
            await self._audit.write_or_keep(record)
        else:
            self._note(record)

    def cancel(self) -> None:
        """Write the record of a call whose caller has left."""
        if self._may_end():
            self._note(self._record(RecordKind.RESPONSE, CANCELLED))

    def _may_end(self) -> bool:
        """Return whether the record of the end is missing; it is about to be written."""
        is_recorded = self._audit.is_on and self._method.needs is not None and not self._is_one_lasting
        ended, self._ended = self._ended, True
        return is_recorded and not ended

    def _note(self, record: AuditRecord) -> None:
        if self.principal is None:
            self._audit.note_unauthenticated(record)
        else:
            self._audit.note(record, has_effect=self._may_have_acted)

    @property
    def _is_one_lasting(self) -> bool:
        """Return whether its only record is written: that of an unbounded stream that only reads."""
        return self._effect is Effect.READ and self._method.lasting

    async def _write_answer(self, message: Message) -> None:
        record = self._record(RecordKind.RESPONSE, OK, answer=message)
        try:
            await self._audit.write_answer(self._effect, record)
        except BaseException:  # also a cancellation: the credential is not handed out
            if _text(message, "secret_key") and (lease_id := _text(message, "lease_id")):
                self._audit.withdraw(lease_id)
            raise

    def _record(
        self,
        kind: RecordKind,
        status: str = "",
        *,
        answer: Message | None = None,
        error: LessorError | None = None,
    ) -> AuditRecord:
        call, principal = self.call, self.principal
        request = call.request if call is not None else None
        mount, role, lease_id, caller_reason = self._names or _names(request)
        lease_id = _text(answer, "lease_id") or lease_id
        path, capability = self._find_need(request, error)
        is_response = kind is RecordKind.RESPONSE
        ids = self._aws_request_ids if is_response else ()
        if error is not None and error.aws and error.aws.request_id and error.aws.request_id not in ids:
            ids = [*ids, error.aws.request_id]
        return AuditRecord(
            kind=kind,
            time_us=self._audit.now_us(),
            request=self.request_id,
            identity=principal.name if principal else "",
            accessor=principal.login.accessor if principal and principal.login else "",
            auth_method=principal.auth_method.value if principal else "",
            labels=principal.labels if principal else _NO_LABELS,
            peer=self._peer,
            rpc=self._method.name,
            path=path,
            capability=capability,
            decision=self._decision(error),
            rule=self._find_rule(error, path, capability),
            status=status,
            reason=error.reason if error else "",
            caller_reason=caller_reason,
            mount=mount,
            role=role or lease_id.partition("/creds/")[2].partition("/")[0],
            lease_id=lease_id,
            access_key_hmac=self._audit.hash_value(_key_id(request, answer)),
            policy_sha256=self._digest,
            aws_request_ids=tuple(ids),
            duration_ms=self._milliseconds() if is_response else None,
            trace_id=self._trace_id,
        )

    def _find_need(self, request: Message | None, error: LessorError | None) -> tuple[str, str]:
        """Return the path and the capabilities that a call needs: the missing ones, or the first."""
        if request is None or self.call is None:
            return "", ""
        try:
            needs = self.call.find_needs()
        except Invalid:
            return "", ""
        missing = error.subject if error is not None and error.kind is ErrorKind.DENIED else ""
        for path, need in needs:
            if not missing or path == missing:
                return path, need.names
        return (needs[0][0], needs[0][1].names) if needs else ("", "")

    def _find_rule(self, error: LessorError | None, path: str, capability: str) -> str:
        """Return the pattern of the rule that admits the call, or of the one that denies it."""
        if self.call is None or self.principal is None:
            return ""
        if error is None or error.kind is not ErrorKind.DENIED or not capability:
            return self.call.caller.grant.pattern
        grant = self.principal.find_grant(path, Capability(capability.partition(",")[0]))
        return grant.pattern if grant is not None else ""

    def _decision(self, error: LessorError | None) -> str:
        """Return how the caller was judged; empty if the call ended before that."""
        if self.principal is None:
            return "unauthenticated"
        if error is not None and error.kind is ErrorKind.DENIED:
            return "denied"
        return "allowed" if self._effect is not None else ""

    def _milliseconds(self) -> int:
        return round((asyncio.get_running_loop().time() - self._began_at) * 1000)


class _Names(NamedTuple):
    """What a request names; an empty text if it does not, or there is no request yet."""

    mount: str
    role: str
    lease_id: str
    reason: str


_NO_NAMES: Final = _Names("", "", "", "")
_ROLES: Final = ("role", "static_role", "name")
"""The fields of requests that name a role."""


def _names(request: Message | None) -> _Names:
    if request is None:
        return _NO_NAMES
    known = messages.fields_of(request.DESCRIPTOR)
    role = ""
    for place in _ROLES:
        if not role and place in known:
            value = getattr(request, place)
            role = value if isinstance(value, str) else _text(value, "name")
    return _Names(permissions.mount_in(request), role, _text(request, "lease_id"), _text(request, "reason"))


def _key_id(request: Message | None, answer: Message | None) -> str:
    """Return the id of the access key that a call hands out, rotates or sets."""
    if answer is not None:
        return _text(answer, "access_key") or _text(_field(answer, "static_role"), "access_key")
    return _text(_field(request, "config"), "access_key")


def _field(message: Message | None, name: str) -> Any:  # noqa: ANN401 - a field of any type
    """Return a field; None if the message has none of that name."""
    return getattr(message, name, None)


def _text(message: Message | None, name: str) -> str:
    value = _field(message, name)
    return value if isinstance(value, str) else ""


def _digest_of_policy(request: Message) -> str:
    """Return the SHA-256 of the policy document in a request, in its canonical form; empty without one."""
    for holder, field in ((request, "session_policy"), (_field(request, "role"), "policy_document")):
        if (
            isinstance(holder, Message)
            and field in messages.fields_of(holder.DESCRIPTOR)
            and holder.HasField(field)
        ):
            try:
                document = messages.parse_document(getattr(holder, field), field)
            except Invalid:
                return ""
            return document_digest(policy.canonical(document))
    return ""
