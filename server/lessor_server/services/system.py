"""SystemService: what is running here."""

from __future__ import annotations

from dataclasses import dataclass

from lessor.v1 import system_pb2 as pb
from lessor_server.services.guard import Caller


@dataclass(frozen=True, slots=True)
class About:
    """What a server says of itself."""

    version: str
    store_kind: str
    schema_version: int
    instance_id: str
    dev_mode: bool
    warnings: tuple[str, ...]


class SystemService:
    """Serves whoever wants to know what answers here."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["SystemService"]

    def __init__(self, about: About) -> None:
        """Tell ``about``."""
        self._about = about

    async def GetInfo(self, _: pb.GetInfoRequest, __: Caller) -> pb.GetInfoResponse:
        """Say what is running here."""
        about = self._about
        return pb.GetInfoResponse(
            version=about.version,
            store_kind=about.store_kind,
            schema_version=about.schema_version,
            instance_id=about.instance_id,
            dev_mode=about.dev_mode,
            warnings=about.warnings,
        )
