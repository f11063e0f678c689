"""Reads files with a deadline, because a read may hang, for example on a network mount.

A hanging read does not delay the end of the process. With ``asyncio.to_thread`` it would: the loop and the
interpreter join the threads of the default executor when they end.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

READ_SECONDS: Final = 5.0
"""The timeout of a read; certificates are polled every 10 s."""
DIGEST_LENGTH: Final = 12
MAX_BYTES: Final = 1 << 20
"""The maximum size of a file of certificates or keys."""


class ReadTimedOut(Exception):
    """A read has not ended in time; it may still be running."""


class FileReads:
    """Runs reads on daemon threads, at most one for each name: while one hangs, no other is started.

    A read that was started earlier is never an answer: the files may have changed since.
    """

    def __init__(self, seconds: float = READ_SECONDS) -> None:
        """Wait ``seconds`` for each read."""
        self.seconds = seconds
        self._running: dict[str, asyncio.Future[Any]] = {}

    async def run(self, name: str, read: Callable[[], T]) -> T:
        """Return the result of ``read``, which starts when an earlier read of that ``name`` has ended.

        Raises:
            ReadTimedOut: It has not ended in time. Exceptions of ``read`` are raised too.
        """
        try:
            async with asyncio.timeout(self.seconds):
                while (earlier := self._running.get(name)) is not None:
                    await asyncio.wait({earlier})
                future = self._start(name, read)
                await asyncio.wait({future})
        except TimeoutError:
            raise ReadTimedOut(f"the read has not ended within {self.seconds:g} s") from None
        return future.result()

    def _start(self, name: str, read: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: Exception | None) -> None:
            self._running.pop(name, None)
            if error is None:
                future.set_result(cast("T", result))
            else:
                future.set_exception(error)
                future.exception()  # its caller may have timed out

        def work() -> None:
            result, error = None, None
            try:
                result = read()
            except Exception as raised:  # noqa: BLE001 - it is for the caller
                error = raised
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result, error)

        self._running[name] = future
        threading.Thread(target=work, name=f"read {name}", daemon=True).start()
        return future


def read_bounded(path: Path) -> bytes:
    """Return the content of a regular file of at most 1 MiB; raises ``OSError`` or ``ValueError``."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for its writer
        raise ValueError(f"{path} is not a regular file")
    with path.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES} bytes")
    return content


def short_digest(content: bytes) -> str:
    """Return what tells different contents apart; empty for no content."""
    return hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH] if content else ""


def digest_of(path: Path | None) -> str:
    """Return what tells the content of a file from others; empty if there is no file that can be read."""
    with suppress(OSError, ValueError):
        return short_digest(read_bounded(path)) if path is not None else ""
    return ""
