"""``lessor lease``: leases of issued credentials."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from lessor.cli import json_errors, output
from lessor.cli.command import LIVE, LONG_SECONDS, calling, confirm, confirm_leases, yes_option
from lessor.cli.completing import complete_lease_id
from lessor.cli.history import history
from lessor.cli.leases import (
    SORTS,
    expiring,
    find_leases,
    in_order,
    prefix_argument,
    prefix_option,
    read_ids,
    required_prefix_argument,
)
from lessor.cli.params import DURATION, fill, given
from lessor.v1 import lease_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call

NOT_REVOKED_YET, UNKNOWN_LEASE, UNREACHABLE = 1, 3, 6
COLUMNS = (
    "lease_id",
    "state",
    "ttl",
    "expire_time",
    "access_key",
    "owner",
    "policy_rule",
    "reason",
    "attempts",
    "last_error",
)

state_option = click.option(
    "--state",
    type=click.Choice(pb.Lease.State.keys()[1:], case_sensitive=False),
    help="Only leases in this state.",
)


def _require_name(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    """Refuse an empty name, as of an unset variable: to the server it means every owner."""
    if name == "":
        raise click.BadParameter("is empty; leave the option out to mean every owner")
    return name


owner_option = click.option(
    "--owner", metavar="NAME", callback=_require_name, help="Only leases of this owner."
)


@click.group("lease")
def lease() -> None:
    """Look leases up, renew them, revoke them."""


@lease.command("lookup")
@click.argument("lease_id", shell_complete=complete_lease_id)
@calling()
def lookup(call: Call, lease_id: str) -> None:
    """Show a lease."""
    call.show(call(call.leases.LookupLease, pb.LookupLeaseRequest(lease_id=lease_id)), "lease")


@lease.command("list")
@prefix_argument
@state_option
@owner_option
@click.option("--all", "ended", is_flag=True, help="Also leases that are GONE.")
@click.option("--expiring", "within", type=DURATION, help="Only ACTIVE leases that expire within this time.")
@click.option(
    "--sort",
    "order",
    type=click.Choice([*SORTS, *(f"-{name}" for name in SORTS)]),
    metavar="[-]FIELD",
    help=f"Sort by a field, with - in reverse: {', '.join(SORTS)}.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print only the lease ids, one a line.")
@calling()
def list_leases(
    call: Call,
    prefix: str,
    *,
    ended: bool,
    within: timedelta | None,
    order: str | None,
    quiet: bool,
    **options: object,
) -> None:
    """List the leases under PREFIX: `MOUNT/` or `MOUNT/creds/ROLE/`; the default is `aws/`.

    Leases that are GONE are listed only with --all or --state gone.
    """
    request = pb.ListLeasesRequest(prefix=prefix, page_size=1000)
    fill(request, given(options))
    if within is not None and not request.HasField("state"):
        request.state = pb.Lease.ACTIVE
    answer = find_leases(call, request, ended=ended)
    shown = expiring(answer.leases, within) if within is not None else list(answer.leases)
    shown = in_order(shown, order) if order else shown
    if quiet:
        for one in shown:
            click.echo(output.plain(one.lease_id))
        return
    call.show_list(pb.ListLeasesResponse(leases=shown), "leases", COLUMNS, _whose(prefix, options))


@lease.command("count")
@prefix_argument
@state_option
@owner_option
@calling()
def count(call: Call, prefix: str, **options: object) -> None:
    """Count the leases under PREFIX by engine, role and state."""
    request = pb.CountLeasesRequest(prefix=prefix)
    fill(request, given(options))
    columns = ("mount", "role", "state", "count")
    call.show_list(call(call.leases.CountLeases, request), "counts", columns, _whose(prefix, options))


def _whose(prefix: str, options: Mapping[str, object]) -> str:
    """Return which leases were asked for, if it was those of one owner, whose name may be mistyped."""
    owner = options.get("owner")
    return f"of {owner} under {prefix}; check the owner's name, and list every mount" if owner else ""


@lease.command("renew")
@click.argument("lease_id", shell_complete=complete_lease_id)
@click.option("--increment", type=DURATION, help="New time to live, counted from now.")
@calling()
def renew(call: Call, lease_id: str, **options: object) -> None:
    """Extend a lease, up to its maximum."""
    request = pb.RenewLeaseRequest(lease_id=lease_id)
    fill(request, given(options))
    call.show(call(call.leases.RenewLease, request))


@lease.command("revoke")
@click.argument("lease_ids", metavar="LEASE_ID…", nargs=-1, required=True, shell_complete=complete_lease_id)
@click.option(
    "--sync", is_flag=True, help="Wait until AWS has acknowledged the deletion, or the first attempt failed."
)
@yes_option
@calling()
def revoke(call: Call, lease_ids: tuple[str, ...], *, sync: bool, yes: bool) -> int:
    """End leases now. LEASE_ID may be repeated, and - means the lines of standard input.

    Exits with 3 if the server does not know a lease, with 1 if a first attempt failed. A lease that can't be
    revoked does not stop the others; if they fail in different ways, the command exits with 1.
    """
    if len(lease_ids) == 1 and lease_ids != ("-",):
        answer = call(call.leases.RevokeLease, pb.RevokeLeaseRequest(lease_id=lease_ids[0], sync=sync))
        call.show(answer)
        return report_revocation(lease_ids[0], answer)
    ids = read_ids(lease_ids)
    if len(ids) > 1:
        confirm(f"Revoke {len(ids)} leases?", yes=yes)
    answers, codes = [], set()
    for number, lease_id in enumerate(ids, 1):
        try:
            answer = call(call.leases.RevokeLease, pb.RevokeLeaseRequest(lease_id=lease_id, sync=sync))
        except click.ClickException as error:
            json_errors.report(error, call.style)
            codes.add(error.exit_code)
            if error.exit_code == UNREACHABLE:
                output.warn(
                    [f"{len(ids) - number} of {len(ids)} leases were not tried; run the command again"]
                )
                break
        else:
            answers.append(answer)
            codes.add(report_revocation(lease_id, answer))
    call.show_many(answers, "leases", ("lease_id", "outcome", "last_error"))
    codes.discard(0)
    return codes.pop() if len(codes) == 1 else min(len(codes), 1)


def report_revocation(lease_id: str, answer: pb.RevokeLeaseResponse) -> int:
    """Print what is wrong with a revocation on standard error, and return its exit code."""
    if answer.outcome == pb.RevokeLeaseResponse.UNKNOWN:
        output.warn([f"the server does not know the lease {lease_id}; check the id"])
        return UNKNOWN_LEASE
    if answer.outcome == pb.RevokeLeaseResponse.FORGOTTEN:
        output.warn([f"AWS can't end a session; it works until {answer.expire_time.ToDatetime():%F %T} UTC"])
    if answer.last_error:
        output.warn([f"not revoked yet: {answer.last_error}; the server retries until it is"])
        return NOT_REVOKED_YET
    return 0


@lease.command("revoke-prefix")
@required_prefix_argument
@click.option("--sync", is_flag=True, help="Wait until each lease is gone, or its first attempt failed.")
@owner_option
@yes_option
@calling(seconds=LONG_SECONDS)
def revoke_prefix(call: Call, prefix: str, owner: str | None, *, sync: bool, yes: bool) -> int:
    """End all leases under PREFIX now: `MOUNT/` or `MOUNT/creds/ROLE/`.

    Once the server has accepted the request, it continues even if this command ends. With --sync the command
    exits with 1 if a first attempt failed and its lease still exists.
    """
    standing = pb.RevokePrefixResponse()
    request = pb.RevokePrefixRequest(prefix=prefix, sync=sync, owner=owner or "")
    if not confirm_leases(call, f"Revoke {{}} under {prefix}?", prefix, LIVE, yes=yes, owner=request.owner):
        call.show_numbers(standing)
        return 0
    with output.progress() as show_progress:
        for standing in call.stream(call.leases.RevokePrefix, request):
            show_progress(f"{standing.done} of {standing.accepted} done, {standing.failed} failed")
    call.show_numbers(standing)
    if owner and not standing.accepted:
        output.warn([f"{owner} has no live lease under {prefix}; check the owner's name, and every mount"])
    if standing.failed:
        output.warn([f"{standing.failed} are not revoked yet; the server retries until they are"])
        return NOT_REVOKED_YET
    return 0


@lease.command("abandon")
@click.argument("lease_id", required=False, shell_complete=complete_lease_id)
@prefix_option
@yes_option
@calling()
def abandon(call: Call, lease_id: str | None, prefix: str | None, *, yes: bool) -> None:
    """Stop trying to revoke. The users stay on AWS; `lessor reconcile` lists them until they are gone."""
    if (lease_id is None) == (prefix is None):
        raise click.UsageError("Give either LEASE_ID or --prefix.")
    if prefix is None:
        confirm(f"Stop trying to revoke {lease_id}? The user stays on AWS.", yes=yes)
    else:
        question = f"Stop trying to revoke {{}} under {prefix}? The users stay on AWS."
        if not confirm_leases(call, question, prefix, {"REVOKING"}, yes=yes):
            call.show_numbers(pb.AbandonLeasesResponse())
            return
    request = pb.AbandonLeasesRequest()
    fill(request, given({"lease_id": lease_id, "prefix": prefix}))
    call.show_numbers(call(call.leases.AbandonLeases, request))


lease.add_command(history)
