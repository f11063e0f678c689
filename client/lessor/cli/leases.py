"""Which leases a list shows, in which order, and how a prefix on the command line is read."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final, cast

import click
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from lessor.cli.completing import complete_prefix
from lessor.v1 import lease_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call

SHOWN_STATES: Final = (pb.Lease.INTENT, pb.Lease.ACTIVE, pb.Lease.REVOKING, pb.Lease.ABANDONED)
"""The states that a list shows unless it is asked for others, in the order in which a lease passes them."""
SORTS: Final = (
    *("lease_id", "role", "state", "owner"),
    *("ttl", "expire_time", "issue_time", "attempts"),
)
MAX_LINES: Final = 100_000
"""The maximum number of lease ids on standard input."""
_PARTS_OF_ID: Final = 4


def completed(prefix: str) -> str:
    """Return a prefix with its last slash, which is easily forgotten; a whole lease id has none."""
    is_id = prefix.count("/") >= _PARTS_OF_ID - 1
    return prefix if not prefix or prefix.endswith("/") or is_id else f"{prefix}/"


def _complete_slash(_: click.Context, __: click.Parameter, prefix: str | None) -> str | None:
    return None if prefix is None else completed(prefix)


prefix_argument = click.argument(
    "prefix", default="aws/", callback=_complete_slash, shell_complete=complete_prefix
)
required_prefix_argument = click.argument("prefix", callback=_complete_slash, shell_complete=complete_prefix)
prefix_option = click.option(
    "--prefix",
    callback=_complete_slash,
    shell_complete=complete_prefix,
    help="All leases under it, instead of one.",
)


def find_leases(call: Call, request: pb.ListLeasesRequest, *, ended: bool) -> pb.ListLeasesResponse:
    """Return all leases of a request, by lease id; without ``ended`` none that is GONE.

    The server filters by one state, so that each is asked for in turn: the many leases that are GONE are then
    not sent. A lease that changes its state meanwhile is found at least once, and is listed as last seen.
    """
    if ended or request.HasField("state"):
        return call.all(call.leases.ListLeases, request)
    found: dict[str, pb.Lease] = {}
    for state in SHOWN_STATES:
        request.state = state
        request.page_token = ""
        found |= {one.lease_id: one for one in call.all(call.leases.ListLeases, request).leases}
    return pb.ListLeasesResponse(leases=[found[lease_id] for lease_id in sorted(found)])


def expiring(leases: Iterable[pb.Lease], within: timedelta) -> list[pb.Lease]:
    """Return the ACTIVE leases that expire within a time from now on."""
    return [
        one
        for one in leases
        if one.state == pb.Lease.ACTIVE
        if one.HasField("expire_time") and one.ttl.ToTimedelta() <= within
    ]


def in_order(leases: Iterable[pb.Lease], order: str) -> list[pb.Lease]:
    """Return leases sorted by a field, in reverse after a ``-``; those without a value are last."""
    name = order.removeprefix("-")
    keys = [(_key(one, name), one) for one in leases]
    # The values of one field are all texts, or all numbers.
    with_value = sorted(
        ((key, one) for key, one in keys if key is not None),
        key=lambda pair: cast("int", pair[0]),
        reverse=order.startswith("-"),
    )
    return [*(one for _, one in with_value), *(one for key, one in keys if key is None)]


def _key(lease: pb.Lease, name: str) -> str | int | None:
    """Return what a lease is sorted by; None if it has no value there."""
    field = pb.Lease.DESCRIPTOR.fields_by_name[name]
    value = getattr(lease, name)
    if isinstance(value, Duration | Timestamp):
        return value.ToNanoseconds() if cast("Message", lease).HasField(name) else None
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    return value if isinstance(value, int) else str(value) or None


def read_ids(given: tuple[str, ...]) -> list[str]:
    """Return the lease ids of a command line, each once; ``-`` stands for the lines of standard input.

    Raises:
        UsageError: There is none, or there are too many.
    """
    found: dict[str, None] = {}
    for word in given:
        lines = map(str.strip, sys.stdin) if word == "-" else [word]
        for line in lines:
            if line:
                found[line] = None
            if len(found) > MAX_LINES:
                raise click.UsageError(f"there are more than {MAX_LINES} lease ids; use revoke-prefix")
    if not found and given != ("-",):
        raise click.UsageError("a lease id is empty; give at least one, or - for standard input")
    return list(found)
