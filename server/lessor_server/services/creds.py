"""CredsService: hands out credentials."""

from __future__ import annotations

from lessor.v1 import creds_pb2 as pb
from lessor_server.engine.issuer import Issuer, Wish
from lessor_server.services import convert
from lessor_server.services.guard import Caller

_LATER = ("role_arn", "role_session_name", "mfa_code", "session_policy", "request_id", "wait_usable")
LONGEST_REASON = 1000


class CredsService:
    """Serves callers who need credentials."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["CredsService"]

    def __init__(self, issuer: Issuer) -> None:
        """Ask ``issuer``."""
        self._issuer = issuer

    async def GenerateCredentials(
        self, request: pb.GenerateCredentialsRequest, caller: Caller
    ) -> pb.GenerateCredentialsResponse:
        """Make a fresh credential under a lease."""
        mount, role = convert.mount_of(request.mount), convert.role_of(request.role, "role")
        convert.later(_LATER, request)
        if len(request.reason) > LONGEST_REASON:
            raise convert.invalid("reason", "is too long", f"give at most {LONGEST_REASON} characters")
        wish = Wish(mount, role, caller.principal.name, convert.span(request, "ttl") or None)
        made = await self._issuer.generate(wish, caller.seconds)
        return pb.GenerateCredentialsResponse(
            lease_id=made.lease.id,
            lease_duration=convert.whole(made.lease.ttl),
            lease_renewable=True,
            expire_time=convert.timestamp(made.lease.expires_us),
            access_key=made.lease.access_key_id,
            secret_key=made.secret.reveal(),
            arn=made.arn,
            warnings=made.warnings,
        )
