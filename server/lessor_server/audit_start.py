"""Starts the audit log of a server, and gives it the events of background work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lessor_server.adapters.audit.key import AuditKey
from lessor_server.adapters.audit.log import AuditLog
from lessor_server.adapters.audit.state import AuditState
from lessor_server.adapters.audit.targets import FileTarget, SocketTarget, StdoutTarget, Target
from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.private_file import NotPrivate
from lessor_server.domain.audit.event_record import event_record
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.events import AuditSinkBack, AuditSinkFailed, Event
from lessor_server.engine.ports import Audit, Observer, Report
from lessor_server.engine.supervisor import Supervisor
from lessor_server.services.health import Health
from lessor_server.settings.model import AuditSettings, Settings

NO_AUDIT = "there is no audit: set audit.file, audit.stdout or audit.socket"


class AuditStateBroken(LessorError):
    """The file with the positions of the audit sinks can't be used."""

    reason = "AUDIT_STATE_UNUSABLE"
    fix = "make it private to the server's user again, after you have checked the audit files"


@asynccontextmanager
async def run_audit(settings: Settings, notify: Observer, report: Report) -> AsyncIterator[AuditLog | None]:
    """Write audit records while the block runs; yield None if there is no sink.

    The data directory must be locked: two processes would break the chain.

    Raises:
        AuditKeyBroken, AuditStateBroken, OSError: The files of the data directory can't be used.
    """
    if not settings.audit.is_on:
        yield None
        return
    key = AuditKey.load_or_make(settings.data_dir)
    try:
        state = AuditState(settings.data_dir)
    except NotPrivate as error:
        raise AuditStateBroken(str(error)) from error
    log = AuditLog(_targets(settings.audit), state, key, SystemClock(), notify, sync=settings.audit.sync)
    await log.start()
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(Supervisor(report).keep_running(log.run))
        try:
            yield log
        finally:
            watch.cancel()
            await log.close()


def recording(notify: Observer, audit: Audit | None) -> Observer:
    """Return an observer that also records the events of background work."""
    if audit is None:
        return notify
    wall_us = SystemClock().wall_us

    def observe(event: Event) -> None:
        notify(event)
        if (record := event_record(event, wall_us(), audit.hash_value)) is not None:
            audit.note(record)

    return observe


def show_in_health(event: Event, health: Health) -> None:
    """Report in the health service that no audit sink works, or that one works again."""
    if isinstance(event, AuditSinkFailed) and event.is_last:
        health.audit(works=False)
    elif isinstance(event, AuditSinkBack):
        health.audit(works=True)


def _targets(settings: AuditSettings) -> list[Target]:
    targets: list[Target] = []
    if settings.file is not None:
        targets.append(FileTarget(settings.file))
    if settings.stdout:
        targets.append(StdoutTarget())
    if settings.socket is not None:
        targets.append(SocketTarget(settings.socket))
    return targets
