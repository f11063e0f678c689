"""``lessor lease``: what becomes of credentials after they were handed out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lessor.cli import output
from lessor.cli.command import calling
from lessor.cli.params import DURATION, fill, given
from lessor.v1 import lease_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call

NOT_REVOKED_YET, UNKNOWN_LEASE = 1, 3
COLUMNS = ("lease_id", "state", "ttl", "expire_time", "access_key", "owner", "attempts", "last_error")

prefix_argument = click.argument("prefix", default="aws/")
state_option = click.option(
    "--state",
    type=click.Choice(pb.Lease.State.keys()[1:], case_sensitive=False),
    help="Only leases in this state.",
)


@click.group("lease")
def lease() -> None:
    """Look leases up, renew them, revoke them."""


@lease.command("lookup")
@click.argument("lease_id")
@calling()
def lookup(call: Call, lease_id: str) -> None:
    """Show a lease."""
    answer = call(call.leases.LookupLease, pb.LookupLeaseRequest(lease_id=lease_id))
    call.show(answer, answer.lease)


@lease.command("list")
@prefix_argument
@state_option
@calling()
def list_leases(call: Call, prefix: str, **options: object) -> None:
    """List the leases under PREFIX: `MOUNT/`, `MOUNT/creds/ROLE/`; `aws/` where none is given."""
    request = pb.ListLeasesRequest(prefix=prefix, page_size=1000)
    fill(request, given(options))
    answer = call.all(call.leases.ListLeases, request)
    call.show_list(answer, answer.leases, COLUMNS)


@lease.command("count")
@prefix_argument
@state_option
@calling()
def count(call: Call, prefix: str, **options: object) -> None:
    """Count the leases under PREFIX by engine, role and state."""
    request = pb.CountLeasesRequest(prefix=prefix)
    fill(request, given(options))
    answer = call(call.leases.CountLeases, request)
    call.show_list(answer, answer.counts, ("mount", "role", "state", "count"))


@lease.command("renew")
@click.argument("lease_id")
@click.option("--increment", type=DURATION, help="New time to live from now on.")
@calling()
def renew(call: Call, lease_id: str, **options: object) -> None:
    """Let a lease live longer, up to its maximum."""
    request = pb.RenewLeaseRequest(lease_id=lease_id)
    fill(request, given(options))
    call.show(call(call.leases.RenewLease, request))


@lease.command("revoke")
@click.argument("lease_id")
@click.option("--sync", is_flag=True, help="Wait until AWS has acknowledged it, or the first attempt failed.")
@calling()
def revoke(call: Call, lease_id: str, *, sync: bool) -> int:
    """End a lease now. Exits with 3 where nobody knows it, with 1 where the first attempt failed."""
    answer = call(call.leases.RevokeLease, pb.RevokeLeaseRequest(lease_id=lease_id, sync=sync))
    call.show(answer)
    if answer.outcome == pb.RevokeLeaseResponse.UNKNOWN:
        output.warn([f"nobody knows the lease {lease_id}; it may be mistyped"])
        return UNKNOWN_LEASE
    if answer.outcome == pb.RevokeLeaseResponse.FORGOTTEN:
        output.warn([f"AWS can't end a session; it works until {answer.expire_time.ToDatetime():%F %T} UTC"])
    if answer.last_error:
        output.warn([f"not revoked yet: {answer.last_error}; the server tries again until it is"])
        return NOT_REVOKED_YET
    return 0
