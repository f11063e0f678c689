"""Prevents a call whose path is not UTF-8 from stopping the server.

The server of ``grpc.aio`` (1.85) decodes the path of each call in its one accept loop, with no ``except``.
One call with a byte such as 0xFF in its path ends that loop: the port is closed and all calls are cancelled.
The caller needs no token, and the library has no option or hook for this.

Source: grpcio, ``_cython/_cygrpc/aio/server.pyx.pxi``, ``AioServer._server_main_loop``.
"""

from __future__ import annotations

import asyncio
import codecs
from typing import Final

_ACCEPT_LOOP: Final = "_server_main_loop"
"""The name of the coroutine in which the library decodes paths."""


def accept_undecodable_paths() -> None:
    """Make the accept loop, and nothing else in this process, decode invalid UTF-8 to U+FFFD.

    No method's name has that character, so such a call gets the answer for an unknown method. CPython finds
    the handler of strict decoding by its name; all other decoding still uses the handler replaced here.
    """
    codecs.register_error("strict", _replace_in_accept_loop)


def _replace_in_accept_loop(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeDecodeError) and _in_accept_loop():
        return "\N{REPLACEMENT CHARACTER}", error.end
    return codecs.strict_errors(error)


def _in_accept_loop() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # this thread runs no loop
        return False
    return task is not None and getattr(task.get_coro(), "__name__", "") == _ACCEPT_LOOP
