"""The limits of this process in its system: access by other processes, open files, and memory."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import sys
from pathlib import Path
from typing import Final, NoReturn

from lessor_server.domain.errors.base import LessorError

PR_SET_DUMPABLE: Final = 4  # prctl(2)
KEPT_BACK_DESCRIPTORS = 128
"""Descriptors for the store, the log, libraries, and connections that are being closed."""
MAX_DESCRIPTORS = 65_536
"""The highest limit requested, even if the system allows more: each connection uses memory too."""
GC_THRESHOLDS = (10_000, 20, 20)
"""Higher than Python's (700, 10, 10), with which the collector scans the objects of running calls repeatedly:
accepting 6,400 calls took 1.5 s of the loop instead of 0.5."""
TRIM_EVERY_SECONDS = 20.0
TRIM_ABOVE_BYTES = 32 << 20
_STATM = Path("/proc/self/statm")


def protect_process() -> None:
    """Make new files private, and forbid access to the memory of this process.

    Core dumps and ``/proc/PID/mem`` contain secrets. On Linux a process that can't be dumped can't be traced
    either, and its ``/proc/PID`` belongs to root (prctl(2), ``PR_SET_DUMPABLE``; proc(5)).

    Raises:
        OSError: The system refuses.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_DUMPABLE, *(ctypes.c_ulong(0),) * 4) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"can't protect the memory of this process: {os.strerror(number)}")


class TooFewDescriptors(LessorError):
    """The limit on open files is too low for the settings."""

    reason = "TOO_FEW_DESCRIPTORS"
    fix = "raise the limit (ulimit -n, LimitNOFILE=), or lower limits.connections or aws.in_flight"


def raise_limit() -> int:
    """Raise the soft limit on open files as far as allowed; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def allot_connections(descriptors: int, connections: int | None, in_flight: int) -> int:
    """Return the maximum number of callers' connections: ``connections``, or half of the descriptors.

    Raises:
        TooFewDescriptors: They would leave too few for ``in_flight`` AWS calls and the store.
    """
    allotted = descriptors // 2 if connections is None else connections
    needed = allotted + in_flight + KEPT_BACK_DESCRIPTORS
    if needed > descriptors:
        raise TooFewDescriptors(
            f"{needed} open files are needed ({allotted} connections, {in_flight} AWS calls,"
            f" {KEPT_BACK_DESCRIPTORS} kept back), and the limit is {descriptors}"
        )
    return allotted


def tune_garbage_collection() -> None:
    """Make the collector run less often."""
    gc.set_threshold(*GC_THRESHOLDS)


async def give_back_memory() -> NoReturn:
    """Return freed memory to the system regularly, while the process is 32 MiB larger than at the start.

    The C library keeps freed memory: after a flood of calls the process stays at its peak size. A useless
    trim takes 16 ms of a thread at 260 MiB. Without glibc this does nothing. Source: malloc_trim(3).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    start = _resident_bytes()
    while True:
        await asyncio.sleep(TRIM_EVERY_SECONDS)
        if trim is not None and _resident_bytes() > start + TRIM_ABOVE_BYTES:
            await asyncio.to_thread(trim, 0)


def _resident_bytes() -> int:
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
