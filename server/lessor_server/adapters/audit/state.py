"""``DATA/audit-state``: the last number and hash of each sink, kept apart from what the sinks hold.

It is written in place before each group of records, with the record before the group and its last one, so
that after a kill of the process nothing else can be in a file; and after the last one of a clean stop. After
a crash of the machine it may be ahead of an audit file that was not made durable, or behind: then only the
position that was made durable is certain. A machine's start is known by its boot id.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from lessor_server.adapters import private_file
from lessor_server.domain.audit.chain import ChainEnd
from lessor_server.domain.audit.resume import Known

STATE_FILE: Final = "audit-state"
_SIZE: Final = 2048
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class TornRun(NamedTuple):
    """The bytes after the last record of an earlier file, which no ``recovered`` record explains yet."""

    size: int
    sha256: str


class Position(NamedTuple):
    """How far a sink has come: the last record written, and the last one that was made durable.

    ``reach`` is the last record of the write that has begun since, None if there is none.
    ``is_stopped``: the server was stopped in order, so this is exact, also after a start of the machine.
    ``is_crashed``: the machine has started since, and the server had not stopped.
    ``mark`` distinguishes its file from others. ``start`` is the last record before this file, and ``torn``
    what has to be explained of earlier files.
    """

    written: ChainEnd = ChainEnd()
    durable: ChainEnd = ChainEnd()
    mark: str = ""
    start: ChainEnd | None = None
    torn: tuple[TornRun, ...] = ()
    reach: ChainEnd | None = None
    is_stopped: bool = False
    is_crashed: bool = False

    @property
    def known(self) -> Known:
        """Return what it says of the file's end."""
        if self.is_crashed:
            return Known(self.durable, self.reach or self.written, lost=self.written)
        return Known(self.written, self.reach or self.written)


class AuditState:
    """The positions of all sinks; each is written by its own thread."""

    def __init__(self, data_dir: Path | None, boot_id: Callable[[], str] | None = None) -> None:
        """Read the file in ``data_dir``, or begin without positions; a broken file counts as none.

        Without a ``data_dir`` positions are kept in memory: no later process goes on with these sinks.

        Raises:
            NotPrivate: Others may read or write it. OSError: It can't be read.
        """
        self._path = data_dir / STATE_FILE if data_dir is not None else None
        self._boot = (boot_id or _read_boot_id)()
        self._lock = threading.Lock()
        self._descriptor = -1
        self._positions: dict[str, Position] = {}
        self._start_problem = self._write_problem = ""
        if self._path is not None and self._path.exists():
            self._parse(private_file.read_private(self._path))

    def get(self, sink: str) -> Position | None:
        """Return the position of a sink."""
        return self._positions.get(sink)

    @property
    def problem(self) -> str:
        """Return why the file could not be read at the start, or can't be written now; empty if it can."""
        return self._write_problem or self._start_problem

    def put(self, sink: str, position: Position) -> None:
        """Write the position of a sink; if that fails, ``problem`` says so, and the next call tries again.

        The sink itself works: its records are written.
        """
        with self._lock:
            if self._positions.get(sink) == position:
                return
            positions = {**self._positions, sink: position}
            try:
                self._write(positions)
            except OSError as error:
                self._write_problem = (
                    f"{self._path} can't be written: {error.strerror}; after a kill, the last records of"
                    " an audit file may count as added by someone else"
                )
                return
            self._positions, self._write_problem = positions, ""

    def sync(self) -> None:
        """Make the positions durable; a failure is ignored as in ``put``."""
        with self._lock, suppress(OSError):
            if self._descriptor >= 0:
                os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _write(self, positions: Mapping[str, Position]) -> None:
        if self._path is None:
            return
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._path, flags, 0o600)
        sinks = ",".join([f'"{name}":{_text_of(one)}' for name, one in positions.items()])
        text = f'{{"boot":"{self._boot}","sinks":{{{sinks}}}}}'
        # One write of a constant size: a kill leaves the old content or the new one.
        content = f"{text:<{_SIZE - 1}}\n".encode()
        if os.pwrite(self._descriptor, content, 0) != len(content):
            raise OSError(errno.EIO, "it was written only in part")

    def _parse(self, content: bytes) -> None:
        try:
            stored = json.loads(content)
            same_boot = bool(self._boot) and stored["boot"] == self._boot
            for name, one in stored["sinks"].items():
                position = _parsed(one)
                is_crashed = position.is_crashed or not (same_boot or position.is_stopped)
                self._positions[name] = position._replace(is_crashed=is_crashed)
        except (ValueError, KeyError, TypeError, AttributeError):
            self._positions = {}
            self._start_problem = (
                f"{self._path} can't be read: a tail that is cut off an audit file is not noticed"
            )


def _text_of(position: Position) -> str:
    """Return a position as JSON, in a fifth of the time of ``json``: no text in it needs an escape."""
    text = f'"written":"{position.written}","durable":"{position.durable}"'
    if position.mark:
        text += f',"mark":"{position.mark}","start":"{position.start or ChainEnd()}"'
    if position.reach is not None:
        text += f',"reach":"{position.reach}"'
    if position.is_stopped:
        text += ',"stopped":true'
    if position.is_crashed:
        text += ',"crashed":true'
    if position.torn:
        text += f',"torn":{json.dumps(position.torn)}'
    return f"{{{text}}}"


def _parsed(stored: dict[str, Any]) -> Position:
    start, reach = stored.get("start"), stored.get("reach")
    return Position(
        ChainEnd.parse(stored["written"]),
        ChainEnd.parse(stored["durable"]),
        str(stored.get("mark", "")),
        ChainEnd.parse(start) if start else None,
        tuple(TornRun(int(size), str(digest)) for size, digest in stored.get("torn", ())),
        ChainEnd.parse(reach) if reach else None,
        stored.get("stopped") is True,
        stored.get("crashed") is True,
    )


def _read_boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
