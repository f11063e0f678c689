"""The audit records of logins and of the calls of a token on itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lessor_server.domain.access.caller import Peer, Principal
from lessor_server.domain.audit.record import AuditRecord, RecordKind
from lessor_server.domain.errors.access import AuditUnavailable
from lessor_server.domain.errors.base import InternalError, LessorError
from lessor_server.engine.ports import Report
from lessor_server.services.audit import CANCELLED, OK, CallAudit
from lessor_server.services.effects import Effect
from lessor_server.services.status import code_of


class LoginRecords:
    """The records of one call, which share an id; none has a token, but its accessor."""

    def __init__(self, audit: CallAudit, effect: Effect, rpc: str, path: str, peer: Peer) -> None:
        """Begin with a caller that is not known yet."""
        self.request_id = audit.draw_id()
        self.principal: Principal | None = None
        self._audit = audit
        self._effect = effect
        self._rpc = rpc
        self._path = path
        self._peer = peer
        self._began_at = asyncio.get_running_loop().time()
        self._begun = False

    async def begin(self, principal: Principal) -> None:
        """Write the record that comes before an effect.

        Raises:
            AuditUnavailable: The call may not go on without it.
        """
        self.principal = principal
        if self._effect is Effect.CHANGE:
            self._audit.require()
            await self._audit.write(self._record(RecordKind.REQUEST))
        elif self._effect is Effect.REVOKE:
            await self._audit.write_or_keep(self._record(RecordKind.REQUEST))
        self._begun = True

    async def answer(self, accessor: str = "") -> None:
        """Write the record of an answer before it leaves; ``accessor`` names a token that was created.

        Raises:
            AuditUnavailable: The answer must not leave.
        """
        await self._audit.write_answer(self._effect, self._record(RecordKind.RESPONSE, OK, accessor=accessor))

    @asynccontextmanager
    async def record_end(self, report: Report) -> AsyncIterator[None]:
        """Record how the block ends, unless it is answered; report an unexpected exception."""
        try:
            yield
        except LessorError as error:
            await self._refuse(error)
            raise
        except asyncio.CancelledError:
            self._note(self._record(RecordKind.RESPONSE, CANCELLED))
            raise
        except Exception as error:  # noqa: BLE001 - nothing unmapped may leave
            unexpected = InternalError(report(self._rpc, error))
            await self._refuse(unexpected)
            raise unexpected from None

    async def _refuse(self, error: LessorError) -> None:
        record = self._record(RecordKind.RESPONSE, code_of(error.kind).name, reason=error.reason)
        if self._begun and self._effect is not Effect.READ and not isinstance(error, AuditUnavailable):
            await self._audit.write_or_keep(record)
        else:
            self._note(record)

    def _note(self, record: AuditRecord) -> None:
        if self.principal is None:
            self._audit.note_unauthenticated(record)
        else:
            self._audit.note(record, has_effect=self._begun and self._effect is not Effect.READ)

    def _record(
        self, kind: RecordKind, status: str = "", *, reason: str = "", accessor: str = ""
    ) -> AuditRecord:
        principal = self.principal
        if principal is not None and principal.login is not None:
            accessor = accessor or principal.login.accessor
        elapsed = asyncio.get_running_loop().time() - self._began_at
        return AuditRecord(
            kind=kind,
            time_us=self._audit.now_us(),
            request=self.request_id,
            identity=principal.name if principal else "",
            accessor=accessor,
            auth_method=principal.auth_method.value if principal else "",
            labels=principal.labels if principal else {},
            peer=self._peer.connection,
            rpc=self._rpc,
            path=self._path,
            decision="allowed" if principal else "unauthenticated",
            status=status,
            reason=reason,
            duration_ms=round(elapsed * 1000) if kind is RecordKind.RESPONSE else None,
        )
