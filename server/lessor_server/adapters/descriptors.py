"""File descriptors: how many connections the process can carry beside its files and its calls to AWS."""

from __future__ import annotations

import resource

from lessor_server.domain.errors.base import LessorError

KEPT_BACK = 128
"""For the store, the log, libraries, and connections that are being closed."""

MAX_DESCRIPTORS = 65_536
"""No more are asked for, though the system may allow millions: each connection costs memory too."""


class TooFewDescriptors(LessorError):
    """The process may not open as many files as its settings need."""

    reason = "TOO_FEW_DESCRIPTORS"
    fix = "raise the limit (ulimit -n, LimitNOFILE=), or lower limits.connections or aws.in_flight"


def raise_limit() -> int:
    """Raise the soft limit on open files as far as it may go; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def allot_connections(descriptors: int, connections: int | None, in_flight: int) -> int:
    """Return how many callers' connections there may be: ``connections``, or half of the descriptors.

    Raises:
        TooFewDescriptors: They would leave too few for ``in_flight`` AWS calls and the store.
    """
    allotted = descriptors // 2 if connections is None else connections
    needed = allotted + in_flight + KEPT_BACK
    if needed > descriptors:
        raise TooFewDescriptors(
            f"{needed} open files are needed ({allotted} connections, {in_flight} AWS calls,"
            f" {KEPT_BACK} kept back), and the limit is {descriptors}"
        )
    return allotted
