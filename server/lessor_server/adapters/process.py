"""Keeps what this process holds from other users, and from other processes of its own user."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from typing import Final

PR_SET_DUMPABLE: Final = 4  # prctl(2)


def protect_process() -> None:
    """Give new files to their owner alone, and nobody the memory of this process.

    A core dump would hold secrets, and so does ``/proc/PID/mem``. On Linux a process that can't be dumped
    can't be traced either, and its ``/proc/PID`` belongs to root (prctl(2), ``PR_SET_DUMPABLE``; proc(5)).

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
