"""Checks what a server needs of its machine: directory, disk, certificates, addresses, audit sinks."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from lessor.findings import Finding, Grade, count_left
from lessor_server.adapters.audit.key import KEY_FILE, AuditKey
from lessor_server.adapters.audit.state import STATE_FILE, AuditState
from lessor_server.adapters.audit.targets import SocketTarget
from lessor_server.adapters.private_file import NotPrivate
from lessor_server.adapters.sqlite.lock import LOCK_FILE
from lessor_server.audit_start import NO_AUDIT
from lessor_server.domain.errors.base import LessorError
from lessor_server.settings.model import AuditSettings, Settings, Tls
from lessor_server.tracing_start import can_trace, wants_traces

MIN_FREE_BYTES: Final = 64 << 20
"""With less the database and its log can't grow, and a backup fails."""
LOW_FREE_BYTES: Final = 1 << 30
LOW_FREE_FILES: Final = 1_000
LOW_CERTIFICATE_DAYS: Final = 14
_DIRECTORY_FIX: Final = "let the server's user write to it, or set another one with LESSOR_DATA_DIR"


def check_directory(folder: Path) -> Finding:
    """Check that the data directory can be used, or can be created."""
    if folder.exists():
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return Finding.bad("directory", f"{folder} can't be written to", _DIRECTORY_FIX)
        return Finding.good("directory", f"{folder} belongs to the server's user")
    above = _nearest(folder)
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        problem = f"{folder} does not exist and can't be created in {above}"
        return Finding.bad("directory", problem, "create it for the server's user, mode 0700")
    return Finding.good("directory", f"{folder} does not exist; the first start creates it")


def read_lock_holder(folder: Path) -> str:
    """Return the process id of the server that has the data directory; empty if there is none.

    Nothing is written: a lock file of another user would stop the server's next start.
    """
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
    finally:
        os.close(descriptor)
    return ""


def check_lock(folder: Path, holder: str) -> Finding:
    """Check that a server can lock the data directory, unless one has done so."""
    path = folder / LOCK_FILE
    if holder:
        return Finding.good("lock", f"the server with pid {holder} runs on this directory")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        return Finding.bad("lock", f"{path} is not a regular file", "remove it")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return Finding.bad("lock", f"{path} can't be written to", f"run chown {os.geteuid()} {path}")
    return Finding.good("lock", "no other server has this directory")


def check_disk(folder: Path) -> Finding:
    """Check that there is room for the database, or for the file of the audit."""
    place = _nearest(folder)
    files = os.statvfs(place)
    # Some file systems have no number of files.
    return judge_room(folder, shutil.disk_usage(place).free, files.f_favail if files.f_files else None)


def check_traces(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check that traces can be exported, if the variables ask for them."""
    if not wants_traces(environ):
        return
    if not can_trace():
        problem = "the variables ask for traces, and lessor[otel] is not installed"
        yield Finding.doubtful("traces", problem, "pip install 'lessor[otel]'")
        return
    from lessor_server.adapters.tracing.provider import load_exporters  # noqa: PLC0415 - the extra may be absent

    try:
        load_exporters(environ)
    except LessorError as error:
        yield Finding.bad("traces", error.message, error.fix)
    else:
        yield Finding.good("traces", "the variables of traces are valid")


def judge_room(folder: Path, free_bytes: int, free_files: int | None) -> Finding:
    """Return whether that is enough for a data directory; ``free_files`` is None where it is unlimited."""
    text = f"{free_bytes >> 20} MiB are free for {folder}"
    wanted = f"{LOW_FREE_BYTES >> 30} GiB"
    if free_bytes < MIN_FREE_BYTES:
        return Finding.bad("disk", text, f"free {MIN_FREE_BYTES >> 20} MiB at least, better {wanted}")
    if free_files is not None and free_files < LOW_FREE_FILES:
        problem = f"the file system of {folder} has room for {free_files} more files"
        return Finding.doubtful("disk", problem, "delete files that nobody needs")
    if free_bytes < LOW_FREE_BYTES:
        return Finding.doubtful("disk", text, f"make room for {wanted}")
    return Finding.good("disk", text)


def check_certificates(tls: Tls | None, now: datetime) -> Iterator[Finding]:
    """Check how long the certificates of the settings are valid."""
    if tls is None:
        return
    files = {"tls.cert_file": tls.cert_file, "tls.client_ca_file": tls.client_ca_file}
    for setting, path in files.items():
        if path is not None:
            # The settings are valid, so it holds certificates.
            found = x509.load_pem_x509_certificates(path.read_bytes())
            yield _judge_certificate(setting, found[0] if setting == "tls.cert_file" else _last(found), now)


def _last(certificates: list[x509.Certificate]) -> x509.Certificate:
    """Return the authority that is valid longest: the others may be of an earlier time."""
    return max(certificates, key=lambda one: one.not_valid_after_utc)


def _judge_certificate(setting: str, certificate: x509.Certificate, now: datetime) -> Finding:
    ends, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if now < begins:
        fix = "check this machine's clock, or wait"
        return Finding.bad("certificate", f"{setting} is valid from {begins:%Y-%m-%d %H:%M} UTC on", fix)
    if now >= ends:
        return Finding.bad("certificate", f"{setting} expired on {ends:%Y-%m-%d}", "renew it")
    text = f"{setting} is valid for {count_left((ends - now).total_seconds())}"
    if ends - now < timedelta(days=LOW_CERTIFICATE_DAYS):
        return Finding.doubtful("certificate", text, "renew it")
    return Finding.good("certificate", text)


def check_addresses(settings: Settings) -> Iterator[Finding]:
    """Check that the server could listen; not for a server that runs already."""
    metrics = settings.metrics.listen
    listeners = [(one.address, "LESSOR_LISTEN") for one in settings.listen]
    listeners += [(settings.http.listen.address, "LESSOR_HTTP_LISTEN")] if settings.http.listen else []
    listeners += [(metrics, "LESSOR_METRICS_LISTEN")] if metrics is not None else []
    for address, variable in listeners:
        if address.path:
            if not os.access(Path(address.path).absolute().parent, os.W_OK | os.X_OK):
                problem = f"a socket can't be created at {address}"
                yield Finding.bad("listen", problem, "let the server's user write to its directory")
            continue
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        with closing(socket.socket(family)) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((address.host.strip("[]"), address.port))
            except OSError as error:
                fix = f"set an address of this machine with {variable}"
                if error.errno == errno.EADDRINUSE:
                    fix = f"stop the process that listens there, or set another address with {variable}"
                yield Finding.bad("listen", f"{address} can't be used: {error.strerror}", fix)
                continue
        yield Finding.good("listen", f"{address} is free")


def check_audit(settings: Settings) -> Iterator[Finding]:
    """Check that each sink of audit records can be written to."""
    audit = settings.audit
    if not audit.is_on:
        yield Finding.doubtful("audit", *NO_AUDIT.split(": "))
        return
    yield from _check_sinks(audit)
    if (settings.data_dir / STATE_FILE).exists() and not (settings.data_dir / KEY_FILE).exists():
        text = f"{settings.data_dir / KEY_FILE} is missing, but {STATE_FILE} is there"
        yield Finding.bad("audit", text, "restore it from a backup")
        return
    try:
        AuditKey.load(settings.data_dir)
        AuditState(settings.data_dir)
    except FileNotFoundError:
        return  # the first start creates them
    except LessorError as error:
        yield Finding.bad("audit", error.message, error.fix)
    except NotPrivate as error:
        yield Finding.bad("audit", error.problem, error.fix)
    except OSError as error:
        yield Finding.bad("audit", f"{error.filename} can't be read: {error.strerror}", _DIRECTORY_FIX)


def _check_sinks(audit: AuditSettings) -> Iterator[Finding]:
    if audit.stdout:
        yield Finding.good("audit", "records go to standard output")
    if audit.file is not None:
        place = audit.file if audit.file.exists() else audit.file.absolute().parent
        if os.access(place, os.W_OK):
            yield Finding.good("audit", f"{audit.file} can be written to")
            room = check_disk(audit.file)
            if room.grade is not Grade.OK:
                yield room
        else:
            problem = f"{audit.file} can't be written to"
            yield Finding.bad("audit", problem, f"let the server's user write to {place}")
    if audit.socket is not None:
        target = SocketTarget(audit.socket)
        try:
            target.open()
        except OSError as error:
            away = error.errno in {errno.ENOENT, errno.ECONNREFUSED}
            fix = "start the collector" if away else "let the server's user connect to it"
            yield Finding.bad("audit", f"{audit.socket} can't be connected to: {error.strerror}", fix)
        else:
            yield Finding.good("audit", f"a collector listens on {audit.socket}")
        finally:
            target.close()


def read_wall_clock() -> datetime:
    """Return the machine's time."""
    return datetime.now(UTC)  # noqa: TID251 - what is checked is this machine


def _nearest(path: Path) -> Path:
    """Return the path, or the first directory above it that exists."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
