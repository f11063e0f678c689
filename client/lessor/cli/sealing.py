"""``lessor sealing``: changes of the sealing keys, which encrypt what the server stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lessor.cli.command import LONG_SECONDS, calling
from lessor.cli.joined import JoinedGroup
from lessor.v1 import system_pb2 as pb

if TYPE_CHECKING:
    from lessor.cli.call import Call


class SealingGroup(JoinedGroup):
    """The server adds ``rewrap``, which needs no running server."""

    path = "sealing "


@click.group("sealing", cls=SealingGroup)
def sealing() -> None:
    """Change the keys that encrypt what the server stores."""


@sealing.command("rotate")
@calling(seconds=LONG_SECONDS)
def rotate(call: Call) -> None:
    """Seal everything under a new data key. Ends when that is done; the server keeps serving meanwhile."""
    call.show(call(call.system.RotateSealingKey, pb.RotateSealingKeyRequest()))
