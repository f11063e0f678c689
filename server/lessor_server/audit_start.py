"""Starts the audit log of a server, and gives it the events of background work."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from lessor_server.adapters.audit.key import KEY_SIZE, AuditKey
from lessor_server.adapters.audit.log import AuditLog
from lessor_server.adapters.audit.state import AuditState
from lessor_server.adapters.audit.targets import FileTarget, SocketTarget, StdoutTarget, Target
from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.private_file import NotPrivate
from lessor_server.adapters.sql.keyring import HASH_KEY_CONTEXT, HASH_KEY_VERSION
from lessor_server.domain.audit.event_record import event_record
from lessor_server.domain.audit.record import SinkStatus
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.events import AuditSinkBack, AuditSinkFailed, Event
from lessor_server.engine.engine import Engine
from lessor_server.engine.meter import current_trace_id
from lessor_server.engine.ports import Observer, Report
from lessor_server.engine.sealing_ports import Sealer
from lessor_server.engine.supervisor import Supervisor
from lessor_server.services.audit import CallAudit
from lessor_server.services.health import Health
from lessor_server.settings.model import AuditSettings, Settings

NO_AUDIT = "there is no audit: set audit.file, audit.stdout or audit.socket"


class AuditStateBroken(LessorError):
    """The file with the positions of the audit sinks can't be used."""

    reason = "AUDIT_STATE_UNUSABLE"
    fix = "check the audit files, then make it private to the server's user again: chmod 600, and chown"


class SharedSecrets(Protocol):
    """What servers of one database share for their audit."""

    async def share_hash_key(self, sealed: bytes) -> bytes:
        """Store a sealed key, unless there is one; return the stored one."""
        ...

    async def note_audit_key(self, public: str) -> None:
        """Store the public part of a key that signs checkpoints."""
        ...


class Auditing:
    """The audit of a server, which may be off."""

    def __init__(self, notify: Observer, rng: random.Random) -> None:
        """Begin without a log; ``notify`` gets every event too."""
        clock = SystemClock()
        self._log: AuditLog | None = None
        self._key: AuditKey | None = None
        self._rng = rng
        self._notify = notify
        self._wall_us = clock.wall_us
        start, numbers = rng.getrandbits(64), itertools.count(1)
        # Unique over starts; drawing each id from the system would cost more than the record.
        self.calls = CallAudit(None, clock.wall_us, lambda: f"{start:016x}{next(numbers):08x}")

    @asynccontextmanager
    async def run(self, settings: Settings, report: Report) -> AsyncIterator[None]:
        """Write audit records while the block runs, if there is a sink.

        The data directory must be locked: two processes would break the chain.

        Raises:
            AuditKeyBroken, AuditStateBroken, OSError: The files of the data directory can't be used.
        """
        if not settings.audit.is_on:
            yield
            return
        folder = _state_folder(settings)
        self._key = key = AuditKey.draw() if folder is None else AuditKey.load_or_make(folder)
        try:
            state = AuditState(folder)
        except NotPrivate as error:
            raise AuditStateBroken(error.problem) from error
        targets, sync = _targets(settings.audit), settings.audit.sync
        self._log = log = AuditLog(targets, state, key, SystemClock(), self._notify, sync=sync)
        self.calls.use(log)
        await log.start()
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(Supervisor(report).keep_running(log.run))
            try:
                yield
            finally:
                watch.cancel()
                await log.close()

    async def share_keys(self, store: SharedSecrets | None, sealer: Sealer) -> None:
        """Hash with the key that all servers of a database share, and store the public part of this one's."""
        if store is None or self._log is None or self._key is None:
            return
        sealed = sealer.seal(self._rng.randbytes(KEY_SIZE), HASH_KEY_CONTEXT, HASH_KEY_VERSION)
        stored = await store.share_hash_key(sealed)
        self._log.hash_value = self._key.hashing_with(
            sealer.open(stored, HASH_KEY_CONTEXT, HASH_KEY_VERSION)
        ).hash_value
        await store.note_audit_key(self._key.public)

    def notify(self, event: Event) -> None:
        """Handle an event, and record it if it is one of background work."""
        self._notify(event)
        if self._log is not None:
            record = event_record(event, self._wall_us(), self._log.hash_value)
            if record is not None:
                if trace_id := current_trace_id.get():
                    record = replace(record, trace_id=trace_id)
                self._log.note(record, has_effect=True)

    def withdraw_by(self, engine: Engine) -> None:
        """Revoke by ``engine`` the leases whose credentials are not handed out."""
        self.calls.withdraw = lambda lease_id: engine.work.start(engine.leases.withdraw(lease_id))

    def reopen(self) -> None:
        """Open the sinks again."""
        if self._log is not None:
            self._log.reopen()

    def warnings(self) -> list[str]:
        """Return the current problems, for GetInfo."""
        return self._log.warnings() if self._log is not None else []

    def statuses(self) -> list[SinkStatus]:
        """Return the status of each sink, for GetInfo."""
        return self._log.statuses() if self._log is not None else []


def show_in_health(event: Event, health: Health) -> None:
    """Report in the health service that no audit sink works, or that one works again."""
    if isinstance(event, AuditSinkFailed) and event.is_last:
        health.audit(works=False)
    elif isinstance(event, AuditSinkBack):
        health.audit(works=True)


def _state_folder(settings: Settings) -> Path | None:
    """Return where the signing key and the positions of the sinks are; None: in memory.

    Without a data directory they are beside the audit file; other sinks begin a new chain at each start.
    """
    if not settings.store.is_shared:
        return settings.data_dir
    if settings.audit.file is None:
        return None
    folder = settings.audit.file.absolute().with_name(f"{settings.audit.file.name}.state")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _targets(settings: AuditSettings) -> list[Target]:
    targets: list[Target] = []
    if settings.file is not None:
        targets.append(FileTarget(settings.file.absolute()))
    if settings.stdout:
        targets.append(StdoutTarget())
    if settings.socket is not None:
        targets.append(SocketTarget(settings.socket))
    return targets
