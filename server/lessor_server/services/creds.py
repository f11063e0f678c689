"""CredsService: issues credentials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from uuid import UUID

from lessor.v1 import creds_pb2 as pb
from lessor_server.domain.errors.base import shown
from lessor_server.domain.lease import Request
from lessor_server.domain.policy import policy, session
from lessor_server.domain.policy.session import SessionOptions
from lessor_server.domain.secret import Secret
from lessor_server.engine.issuing.issuer import Issuer
from lessor_server.engine.issuing.request import Credentials, IssueRequest
from lessor_server.engine.rotation.static_roles import StaticRoles
from lessor_server.engine.streams.credential_stream import CredentialStream
from lessor_server.services import messages
from lessor_server.services.call import Caller
from lessor_server.services.messages import Problems
from lessor_server.services.static_role import StaticCredentialMethods

MAX_REQUEST_ID = 64
"""The maximum length of a request id: a UUID has 36 characters, more as a URN or in braces."""
DEFAULT_OVERLAP = timedelta(seconds=60)


class CredsService(StaticCredentialMethods):
    """Serves callers that need credentials."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["CredsService"]

    def __init__(self, issuer: Issuer, watch: CredentialStream, static: StaticRoles) -> None:
        """Issue by ``issuer``, streams by ``watch``; ``static`` has the keys of static roles."""
        super().__init__(static)
        self._issuer = issuer
        self._watch = watch

    async def GenerateCredentials(
        self, request: pb.GenerateCredentialsRequest, caller: Caller
    ) -> pb.GenerateCredentialsResponse:
        """Issue a new credential with a lease."""
        # Life of a request, 3.
        return _answer(await self._issuer.generate(_issue_request(request, caller), caller.seconds))

    async def WatchCredentials(
        self, request: pb.WatchCredentialsRequest, caller: Caller
    ) -> AsyncIterator[pb.WatchCredentialsResponse | None]:
        """Issue credentials, and new ones before each expiry, until the caller ends the stream.

        The first item is None: the request is valid.
        """
        with Problems() as problems:
            overlap = problems.parse(messages.parse_duration, request, "overlap") or DEFAULT_OVERLAP
            first = _first(request)
            problems.parse(_issue_request, first, caller)
        yield None

        def ask() -> IssueRequest:
            caller.require_audit()
            return _issue_request(first, caller)

        async with aclosing(self._watch.follow(ask, overlap)) as issued:
            async for made in issued:
                # Both messages have the same field numbers, so one can be parsed as the other.
                answer = pb.WatchCredentialsResponse.FromString(_answer(made).SerializeToString())
                del made
                yield answer
                answer.Clear()  # it is sent; the sender must not hold a secret until the next one


def _first(request: pb.WatchCredentialsRequest) -> pb.GenerateCredentialsRequest:
    """Return the request for the first credentials of a stream: both have the same field numbers."""
    first = pb.WatchCredentialsRequest()
    first.CopyFrom(request)
    first.ClearField("overlap")
    return pb.GenerateCredentialsRequest.FromString(first.SerializeToString())


def _issue_request(request: pb.GenerateCredentialsRequest, caller: Caller) -> IssueRequest:
    """Return the parsed request, or raise ``Invalid`` with all problems of its shape."""
    with Problems() as problems:
        mount = problems.parse(messages.mount_of, request.mount)
        role = problems.parse(messages.role_of, request.role, "role")
        ttl = problems.parse(messages.parse_duration, request, "ttl")
        reason = problems.parse(messages.reason, request.reason)
        wait = problems.parse(messages.parse_duration, request, "wait_usable")
        if wait is not None and wait < timedelta(0):
            problems.add("wait_usable", "is negative", "give 0 or more")
        request_id = problems.parse(_request_id, request.request_id)
        options = problems.parse(_session_options, request)
        _check_fields(request, caller, problems)
    return IssueRequest(
        mount=mount,
        role=role,
        owner=caller.principal.name,
        ttl=ttl or None,
        request=Request(request_id, _digest(request, mount, caller)) if request_id else None,
        wait_usable=None if wait is None else wait.total_seconds(),
        options=options,
        labels=caller.principal.labels,
        reason=reason,
        grant=caller.grant,
    )


def _check_fields(request: pb.GenerateCredentialsRequest, caller: Caller, problems: Problems) -> None:
    """Report the fields that the caller's rule requires or forbids."""
    limits = caller.grant.limits
    if not limits.require and not limits.forbid:
        return
    sent, rule = {field.name for field, _ in request.ListFields()}, f"by the rule {caller.grant.pattern}"
    for field in sorted(limits.require - sent):
        problems.add(field, f"is required {rule}", "send it")
    for field in sorted(limits.forbid & sent):
        problems.add(field, f"is forbidden {rule}", "leave it out")


def _session_options(request: pb.GenerateCredentialsRequest) -> SessionOptions:
    """Return the session options of a request, or raise ``Invalid``."""
    document = None
    if request.HasField("session_policy"):
        document = messages.parse_document(request.session_policy, "session_policy")
    elif not (request.role_arn or request.role_session_name or request.mfa_code):
        return session.NO_OPTIONS  # as of nearly all requests
    return SessionOptions(
        role_arn=request.role_arn,
        session_name=request.role_session_name,
        mfa_code=Secret(request.mfa_code),
        policy="" if document is None else policy.canonical(document),
    )


def _answer(made: Credentials) -> pb.GenerateCredentialsResponse:
    """Return credentials as a message."""
    answer = pb.GenerateCredentialsResponse(
        lease_id=made.lease.id,
        lease_renewable=not made.lease.is_session,
        access_key=made.lease.access_key_id,
        secret_key=made.secret.reveal(),
        security_token=made.token.reveal(),
        arn=made.arn,
        usable=made.usable,
        warnings=made.warnings,
        packed_policy_percent=made.packed_percent,
    )
    messages.set_whole_seconds(answer.lease_duration, made.lease.ttl)
    messages.set_timestamp(answer.expire_time, made.lease.expires_us)
    return answer


def _request_id(text: str) -> str:
    """Return a request's id in its canonical form, or empty if it has none.

    Raises ``Invalid`` for an id that is not a UUID (RFC 9562).
    """
    try:
        if len(text) > MAX_REQUEST_ID:
            raise ValueError
        return str(UUID(text)) if text else ""
    except ValueError:
        raise messages.invalid("request_id", f"{shown(text)} is not a UUID", "send a UUID") from None


def _digest(request: pb.GenerateCredentialsRequest, mount: str, caller: Caller) -> str:
    """Return a digest of the content of a request with an id, and of its caller's labels.

    The labels are in policies: a caller of the same name with others must not get this lease.
    """
    wished = pb.GenerateCredentialsRequest()
    wished.CopyFrom(request)
    wished.mount = mount
    if not (request.ttl.seconds or request.ttl.nanos):
        wished.ClearField("ttl")
    wished.ClearField("request_id")
    wished.ClearField("wait_usable")
    wished.ClearField("reason")
    wished.ClearField("mfa_code")  # a code is valid once: a repeated request has another one
    content = wished.SerializeToString(deterministic=True)
    if labels := sorted(caller.principal.labels.items()):
        content += b"\0" + json.dumps(labels).encode()
    return hashlib.sha256(content).hexdigest()
