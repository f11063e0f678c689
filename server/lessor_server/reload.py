"""Reloads the log level, the certificates and the access file; opens the audit file again.

SIGHUP triggers it (``systemctl reload``). Certificates are also checked every 10 s, as their renewal may not
send a signal. If new ones can't be used, the old ones stay in use; the log and GetInfo's warnings say why.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

from lessor_server.access_reload import AccessReloader
from lessor_server.adapters.file_reads import FileReads, ReadTimedOut
from lessor_server.adapters.tls import Certificates, CertificateUnusable
from lessor_server.domain.events import Event, Reloaded, ReloadFailed
from lessor_server.settings.model import Settings
from lessor_server.settings.sources import SettingsError

CERTIFICATE_POLL_SECONDS: Final = 10.0
SETTINGS, CERTIFICATES = "settings", "certificates"

Reread = Callable[[], Sequence[str]]
"""Reads and applies the settings; returns the names of those that need a restart."""


def nothing_to_reread() -> Sequence[str]:
    """Do nothing: the ``Reread`` without a settings file."""
    return ()


class Reloader:
    """Reloads settings and the access file on request, and certificates whenever they change."""

    def __init__(
        self,
        certificates: Certificates | None,
        reread: Reread,
        asked: asyncio.Event,
        notify: Callable[[Event], None],
        access: AccessReloader | None = None,
        reopen_audit: Callable[[], object] = nothing_to_reread,
    ) -> None:
        """Reload when ``asked`` is set, and notify ``notify`` of the result.

        ``reopen_audit`` then opens the audit file again.
        """
        self._reopen_audit = reopen_audit
        self._access = access
        self._certificates = certificates
        self._reread = reread
        self._notify = notify
        self._asked = asked
        self._reads = FileReads()
        self._problems: dict[str, str] = {}

    def warnings(self) -> list[str]:
        """Return the current problems, for GetInfo."""
        return [f"new {what} can't be used: {problem}" for what, problem in sorted(self._problems.items())]

    async def run(self, poll_seconds: float = CERTIFICATE_POLL_SECONDS) -> NoReturn:
        """Reload when asked, and check the certificates every ``poll_seconds``, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(poll_seconds):
                    await self._asked.wait()
            except TimeoutError:
                await self._reread_certificates()
                if self._access is not None:
                    await self._access.reread_authorities()
                continue
            self._asked.clear()
            self._reopen_audit()
            await self._reread_settings()
            await self._reread_certificates()
            if self._access is not None:
                await self._access.reload_or_report()

    async def _reread_settings(self) -> None:
        try:
            waiting = await self._reads.run(SETTINGS, self._reread)
        except SettingsError as error:
            self._failed(SETTINGS, "; ".join(map(str, error.problems)), again=True)
        except ReadTimedOut:
            within = f"they can't be read within {self._reads.seconds:g} s"
            fix = "check the file systems of the files of settings, then send SIGHUP again"
            self._failed(SETTINGS, f"{within}; {fix}", again=False)
        else:
            self._problems.pop(SETTINGS, None)
            self._notify(Reloaded(SETTINGS, tuple(waiting)))

    async def _reread_certificates(self) -> None:
        if self._certificates is None:
            return
        try:
            changed = await self._certificates.reread()
        except CertificateUnusable as error:
            self._failed(CERTIFICATES, str(error), again=False)
            return
        if self._problems.pop(CERTIFICATES, None) or changed:
            self._notify(Reloaded(CERTIFICATES, ()))

    def _failed(self, what: str, problem: str, *, again: bool) -> None:
        """Record a problem; report it unless it is unchanged."""
        if again or self._problems.get(what) != problem:
            self._notify(ReloadFailed(what, problem))
        self._problems[what] = problem


def need_restart(now: Settings, then: Settings) -> list[str]:
    """Return the names of the settings that differ and are read only at the start."""
    reloaded, hidden = {"log"}, {"root_token", "root_token_file", "warnings"}
    names = [name for name in Settings.model_fields if name not in reloaded | hidden]
    changed = [name for name in names if getattr(now, name) != getattr(then, name)]
    return [*changed, *(["log.format"] if now.log.format != then.log.format else [])]


@contextmanager
def on_hang_up(react: Callable[[], None]) -> Iterator[None]:
    """Call ``react`` on the loop for each SIGHUP within the block; ignore the signal after it.

    With the loop's own handler, the signal would end the process after the loop is closed.
    """
    loop = asyncio.get_running_loop()
    signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(react))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
