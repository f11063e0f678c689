"""``lessor expiry``: whether leases end when their time is up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lessor.cli.command import calling
from lessor.v1 import system_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call


@click.group("expiry")
def expiry() -> None:
    """Hold expiries back, and let them go again."""


@expiry.command("hold")
@click.option("--reason", default="", help="Why, for those who look at `lessor info`.")
@calling()
def hold(call: Call, reason: str) -> None:
    """Let no lease end because its time is up, until `resume`. Revocations that are asked for go on."""
    call.show(call(call.system.HoldExpiry, pb.HoldExpiryRequest(reason=reason)))


@expiry.command("resume")
@click.option("--lower-clock", is_flag=True, help="Also take the machine's time, if AWS bears it out.")
@calling()
def resume(call: Call, *, lower_clock: bool) -> None:
    """Let leases end again, whatever held them. Those whose time is up meanwhile are revoked now."""
    call.show(call(call.system.ResumeExpiry, pb.ResumeExpiryRequest(lower_clock=lower_clock)))
