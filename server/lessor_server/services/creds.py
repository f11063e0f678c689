"""CredsService: hands out credentials."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from uuid import UUID

from lessor.v1 import creds_pb2 as pb
from lessor_server.domain.lease import Request
from lessor_server.domain.names import shown
from lessor_server.engine.credentials import Wish
from lessor_server.engine.issuer import Issuer
from lessor_server.services import convert
from lessor_server.services.guard import Caller

_LATER = ("role_arn", "role_session_name", "mfa_code", "session_policy")
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
        wait = convert.span(request, "wait_usable")
        if wait is not None and wait < timedelta(0):
            raise convert.invalid("wait_usable", "is negative", "give how long to wait at most")
        wish = Wish(
            mount=mount,
            role=role,
            owner=caller.principal.name,
            ttl=convert.span(request, "ttl") or None,
            request=_request(request, mount),
            wait_usable=wait.total_seconds() if wait else 0.0,
        )
        made = await self._issuer.generate(wish, caller.seconds)
        return pb.GenerateCredentialsResponse(
            lease_id=made.lease.id,
            lease_duration=convert.whole(made.lease.ttl),
            lease_renewable=True,
            expire_time=convert.timestamp(made.lease.expires_us),
            access_key=made.lease.access_key_id,
            secret_key=made.secret.reveal(),
            arn=made.arn,
            usable=made.usable,
            warnings=made.warnings,
        )


def _request(request: pb.GenerateCredentialsRequest, mount: str) -> Request | None:
    """Return the request's id and a digest of what it wishes for, if it has an id.

    Raises ``Invalid`` for an id that is no UUID (RFC 9562).
    """
    if not request.request_id:
        return None
    try:
        request_id = str(UUID(request.request_id))
    except ValueError:
        raise convert.invalid(
            "request_id", f"{shown(request.request_id)} is no UUID", "send a UUID"
        ) from None
    wished = pb.GenerateCredentialsRequest()
    wished.CopyFrom(request)
    wished.mount = mount
    if not convert.span(request, "ttl"):
        wished.ClearField("ttl")
    wished.ClearField("request_id")
    wished.ClearField("wait_usable")
    wished.ClearField("reason")
    return Request(request_id, hashlib.sha256(wished.SerializeToString(deterministic=True)).hexdigest())
