"""Reads the access file again: its rules then hold for every call; if it has errors, the old rules stay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from lessor_server.adapters.file_reads import FileReads, ReadTimedOut, digest_of
from lessor_server.adapters.identity.client_certificate import Authorities
from lessor_server.adapters.identity.identifier import Identifier, read_authorities
from lessor_server.domain.access.access_config import AccessConfig
from lessor_server.domain.errors.access import AccessFileInvalid, NoAccessFile
from lessor_server.domain.errors.base import StoreUnavailable
from lessor_server.domain.events import Event, Reloaded, ReloadFailed
from lessor_server.services.system import NO_FILE, AccessSummary
from lessor_server.settings.access_file import load_access_file
from lessor_server.settings.sources import SettingsError

WHAT, AUTHORITIES = "access file", "authorities of identities"
MAX_TEXT: Final = 5_000
"""The maximum length of all errors in an answer: clients accept 8 KiB of metadata."""
OWNERS_PER_PAGE: Final = 100


class Owners(Protocol):
    """Knows the owners of leases."""

    def now(self) -> int:
        """Return the service's time in microseconds."""
        ...

    async def list_owners(self, after: str, limit: int) -> list[tuple[str, int]]:
        """Return owners of live leases that are greater than ``after``, with their numbers of live leases."""
        ...


def load_rules(file: Path | None) -> AccessConfig:
    """Return the rules of the access file, or those that admit nobody but root; raises ``SettingsError``."""
    return AccessConfig() if file is None else load_access_file(file)


class AccessReloader:
    """Replaces the rules by which ``identifier`` knows callers."""

    def __init__(
        self,
        file: Path | None,
        identifier: Identifier,
        judge_streams: Callable[[], Coroutine[object, object, None]],
        owners: Owners,
        notify: Callable[[Event], None],
    ) -> None:
        """Read ``file``; ``judge_streams`` applies new rules to open streams."""
        self._file = file
        self._identifier = identifier
        self._judge_streams = judge_streams
        self._owners = owners
        self._notify = notify
        self._one_at_a_time = asyncio.Lock()
        identifier.judge_streams = judge_streams
        self._reads = FileReads()
        self._problem = ""
        self.loaded_us = owners.now() if file is not None else 0
        """When the rules in force were read; 0 without an access file."""
        self.digest = digest_of(file)
        """Differs where the access files of replicas differ."""

    def warnings(self) -> list[str]:
        """Return the current problems, for GetInfo."""
        broken = f"the {WHAT} can't be used, and the old rules stay in force: {self._problem}"
        return [*([broken] if self._problem else []), *self._identifier.warnings()]

    async def reload(self) -> AccessSummary:
        """Use the rules of the file, whole or not at all, and count the leases that they orphan.

        Raises:
            NoAccessFile: There is none.
            AccessFileInvalid: It has errors; the message lists them.
            StoreUnavailable: The new rules are in force, but the leases can't be counted.
        """
        if self._file is None:
            raise NoAccessFile(NO_FILE)
        config = await self._use(self._file)
        try:
            orphaned = await self._count_orphaned()
        except StoreUnavailable as error:
            error.message = (
                f"the new rules are in force, but orphaned leases can't be counted: {error.message}"
            )
            raise
        return AccessSummary(len(config.identities), len(config.policies), orphaned)

    async def _use(self, file: Path) -> AccessConfig:
        async with self._one_at_a_time:
            config, authorities, self.digest = await self._read(file)
            self._identifier.use(config, authorities)
            self.loaded_us = self._owners.now()
            self._problem = ""
            await self._judge_streams()
            self._notify(Reloaded(WHAT, ()))
        return config

    async def reload_or_report(self) -> None:
        """Use the rules of the file, if there is one, or report its errors."""
        if self._file is None:
            return
        with suppress(AccessFileInvalid):  # it is reported
            await self._use(self._file)

    async def reread_authorities(self) -> None:
        """Use the current content of each identity's ``ca_file``, if it has changed and can be used."""
        before = self._identifier.authorities
        if not before.files:
            return
        async with self._one_at_a_time:
            with suppress(ReadTimedOut):  # it is tried again soon
                after = await self._reads.run(AUTHORITIES, lambda: Authorities(before.files, before))
                if self._identifier.authorities is before and self._identifier.use_authorities(after):
                    await self._judge_streams()
                    self._notify(Reloaded(AUTHORITIES, ()))

    async def _read(self, file: Path) -> tuple[AccessConfig, Authorities, str]:
        def read() -> tuple[AccessConfig, Authorities, str]:
            config = load_rules(file)
            return config, read_authorities(config), digest_of(file)

        try:
            return await self._reads.run(WHAT, read)
        except SettingsError as error:
            self._problem = "; ".join(map(str, error.problems))
            text = "\n".join(map(str, error.problems))
        except ReadTimedOut:
            self._problem = text = f"{file} can't be read within {self._reads.seconds:g} s"
        self._notify(ReloadFailed(WHAT, self._problem))
        if len(text) > MAX_TEXT:
            text = f"{text[:MAX_TEXT]}…\nlessor access check shows all errors"
        raise AccessFileInvalid(text, subject=str(file)) from None

    async def _count_orphaned(self) -> int:
        orphaned, after = 0, ""
        while page := await self._owners.list_owners(after, OWNERS_PER_PAGE):
            await asyncio.sleep(0)  # other calls go on meanwhile
            orphaned += sum(count for owner, count in page if owner and not self._identifier.may_match(owner))
            after = page[-1][0]
        return orphaned
