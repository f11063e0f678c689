"""Checks, in virtual time, what is read again while the server runs, and what happens to invalid files."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lessor_server.adapters.tls import Certificates, CertificateUnusable, Content
from lessor_server.domain.events import Reloaded, ReloadFailed
from lessor_server.reload import CERTIFICATE_POLL_SECONDS, Reloader, need_restart, nothing_to_reread
from lessor_server.settings.model import Log, Settings
from lessor_server.settings.parsers import Address
from lessor_server.settings.sources import Problem, SettingsError
from tests.support.certificates import Authority, KeyPair
from tests.support.recording import Recording
from tests.support.virtual_loop import virtual

POLL_SECONDS, LIMIT = 0.01, 30.0


@dataclass
class Bench:
    """A reloader that runs, and what it is given."""

    files: KeyPair
    ca: Path
    certificates: Certificates
    reloader: Reloader
    asked: asyncio.Event
    events: Recording
    problems: list[Problem] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)

    def reread(self) -> list[str]:
        """Read the settings: what a test says is wrong with them is raised."""
        if self.problems:
            raise SettingsError(tuple(self.problems))
        return self.restarts


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    """Run a reloader over certificates of this test."""
    authority = Authority(folder)
    files = authority.sign("server")
    certificates = Certificates(files.cert, files.key, authority.ca)
    events, asked = Recording(), asyncio.Event()
    made = Bench(files, authority.ca, certificates, Reloader(None, list, asked, events), asked, events)
    made.reloader = Reloader(certificates, made.reread, asked, events)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.reloader.run(POLL_SECONDS))
        yield made
        running.cancel()


def replace_pair(b: Bench, pair: KeyPair) -> None:
    """Put another pair into the place of the one there is."""
    b.files.cert.write_bytes(pair.cert.read_bytes())
    b.files.key.write_bytes(pair.key.read_bytes())


def test_certificates_are_read_every_10_seconds() -> None:
    assert CERTIFICATE_POLL_SECONDS == 10


async def test_a_replaced_pair_is_read_without_a_signal(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        replace_pair(b, Authority(tmp_path, "new").sign("server"))
        assert await b.events.until(Reloaded, LIMIT) == Reloaded("certificates", ())
        assert b.reloader.warnings() == []


async def test_a_broken_pair_is_reported_once_until_it_is_fixed(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        before = b.files.key.read_bytes()
        b.files.key.write_text("no key", encoding="ascii")
        failed = await b.events.until(ReloadFailed, LIMIT)
        assert failed == ReloadFailed("certificates", "the key file holds no unencrypted private key in PEM")
        assert b.reloader.warnings() == [f"new certificates can't be used: {failed.error}"]
        b.asked.set()
        await b.events.until(Reloaded, LIMIT, where=lambda event: event.what == "settings")
        b.files.key.write_bytes(before)
        await b.events.until(Reloaded, LIMIT, where=lambda event: event.what == "certificates")
        assert b.reloader.warnings() == []
        assert b.events.of(ReloadFailed) == [failed]


async def test_settings_that_are_broken_keep_the_old_ones_until_they_are_fixed(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.problems.append(Problem("lessor.toml", "log.level", '"loud" is not a valid choice', "write info"))
        b.asked.set()
        failed = await b.events.until(ReloadFailed, LIMIT)
        assert "lessor.toml: log.level" in failed.error
        assert b.reloader.warnings() == [f"new settings can't be used: {failed.error}"]
        b.problems.clear()
        b.asked.set()
        await b.events.until(Reloaded, LIMIT)
        assert b.reloader.warnings() == []


async def test_settings_that_need_a_restart_are_named(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.restarts.append("listen")
        b.asked.set()
        assert (await b.events.until(Reloaded, LIMIT)).needs_restart == ("listen",)


class Hung(Certificates):
    """Certificates whose files hang, once they were read, until ``released``."""

    released: threading.Event
    reads = 0

    def hang(self) -> None:
        """Let the next read hang."""
        self.released = threading.Event()
        self._read = self._hang  # type: ignore[method-assign]

    def _hang(self) -> Content:
        self.reads += 1
        self.released.wait()
        return self._seen


@virtual
async def test_certificates_that_cannot_be_read_in_time_are_reported_once_until_they_can(
    tmp_path: Path,
) -> None:
    """No second read starts while one hangs."""
    pair = Authority(tmp_path).sign("server")
    certificates, events = Hung(pair.cert, pair.key, None), Recording()
    reloader = Reloader(certificates, nothing_to_reread, asyncio.Event(), events)
    certificates.hang()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(reloader.run())
        failed = await events.until(ReloadFailed, LIMIT)
        await asyncio.sleep(100)
        assert certificates.reads == 1
        assert events.of(ReloadFailed) == [failed]
        assert "can't be read within 5 s; check the file system" in failed.error
        assert reloader.warnings() == [f"new certificates can't be used: {failed.error}"]
        certificates.released.set()
        await events.until(Reloaded, 10**9)
        assert reloader.warnings() == []
        running.cancel()


@virtual
async def test_settings_that_cannot_be_read_in_time_are_reported_once() -> None:
    released, asked, events = threading.Event(), asyncio.Event(), Recording()

    def hang() -> list[str]:
        released.wait()
        return []

    reloader = Reloader(None, hang, asked, events)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(reloader.run())
        for _ in range(2):
            asked.set()
            await asyncio.sleep(20)
        (failed,) = events.of(ReloadFailed)
        assert failed.what == "settings"
        assert "can't be read within 5 s" in failed.error
        running.cancel()
    released.set()


def test_every_change_but_the_log_level_needs_a_restart() -> None:
    now = Settings()
    assert need_restart(now, now.model_copy(update={"log": Log(level="debug")})) == []
    assert need_restart(now, now.model_copy(update={"warnings": ("a file can be read by every user",)})) == []
    then = now.model_copy(
        update={"listen": Address("127.0.0.1", 1), "reflection": False, "log": Log(format="json")}
    )
    assert need_restart(now, then) == ["listen", "reflection", "log.format"]


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("cert", b"", "the certificate file holds no certificate in PEM"),
        (
            "cert",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "the certificate file holds no",
        ),
        ("key", b"", "the key file holds no unencrypted private key"),
        ("ca", b"none", "the client CA file holds no certificate in PEM"),
        ("cert", b"x" * (1 << 20) + b"x", "is larger than 1048576 bytes"),
    ],
)
async def test_a_file_that_cannot_be_used_changes_nothing(
    tmp_path: Path, file: str, content: bytes, problem: str
) -> None:
    async with bench(tmp_path) as b:
        path = {"cert": b.files.cert, "key": b.files.key, "ca": b.ca}[file]
        before = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(CertificateUnusable, match=problem):
            await b.certificates.reread()
        path.write_bytes(before)
        assert await b.certificates.reread() is False


async def test_a_missing_file_and_another_pair_s_key_cannot_be_used(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        other = Authority(tmp_path, "other").sign("server")
        b.files.key.write_bytes(other.key.read_bytes())
        with pytest.raises(CertificateUnusable, match="the key is not the certificate's"):
            await b.certificates.reread()
        b.files.cert.unlink()
        with pytest.raises(CertificateUnusable, match="can't be read: No such file"):
            await b.certificates.reread()
