"""``lessor expiry``: pauses and resumes the expiry of leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lessor.cli.command import calling
from lessor.v1 import system_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call


@click.group("expiry")
def expiry() -> None:
    """Pause and resume the expiry of leases."""


@expiry.command("hold")
@click.option("--reason", default="", help="Reason for the pause; `lessor info` shows it.")
@calling()
def hold(call: Call, reason: str) -> None:
    """Pause expiry until `resume`: no lease expires. Explicit revocations continue."""
    call.show(call(call.system.HoldExpiry, pb.HoldExpiryRequest(reason=reason)))


@expiry.command("resume")
@click.option(
    "--lower-clock", is_flag=True, help="Also set the service's time to the machine's, if AWS confirms it."
)
@calling()
def resume(call: Call, *, lower_clock: bool) -> None:
    """Resume expiry, whatever paused it. Leases that became due during the pause are revoked now."""
    call.show(call(call.system.ResumeExpiry, pb.ResumeExpiryRequest(lower_clock=lower_clock)))
