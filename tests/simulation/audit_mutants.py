"""Planted bugs of the audit; see ``mutants.py``."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from lessor_server.domain.audit.record import RecordKind
from lessor_server.domain.errors.access import AuditUnavailable
from lessor_server.services.audit import OK, CallRecords
from tests.simulation.mutants import Patch, mutant_in

SCENARIO = "issue"


@mutant_in(SCENARIO)
def effect_before_its_record(patch: Patch) -> None:
    """A call goes on to its effect, and its request is recorded with the answer."""
    begin, answer = CallRecords._write_request, CallRecords.answer
    waiting: dict[Any, Any] = {}

    async def put_off(self: Any, request: Any) -> None:
        waiting[self] = request

    async def late(self: Any, message: Any) -> None:
        await begin(self, waiting.pop(self))
        await answer(self, message)

    patch.set(CallRecords, "_write_request", put_off)
    patch.set(CallRecords, "answer", late)


@mutant_in(SCENARIO)
def answer_without_its_record(patch: Patch) -> None:
    """A credential is handed out although its record could not be written."""
    write = CallRecords._write_answer

    async def shrug(self: Any, message: Any) -> None:
        with suppress(AuditUnavailable):
            await write(self, message)

    patch.set(CallRecords, "_write_answer", shrug)


@mutant_in(SCENARIO)
def unrecorded_credential_not_revoked(patch: Patch) -> None:
    """The lease of a credential whose record could not be written lives on."""

    async def write_answer(self: Any, message: Any) -> None:
        await self._audit.write(self._record(RecordKind.RESPONSE, OK, answer=message))

    patch.set(CallRecords, "_write_answer", write_answer)
