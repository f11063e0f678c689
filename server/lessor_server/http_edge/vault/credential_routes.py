"""Credentials: of a role, and of a static role."""

from __future__ import annotations

from typing import Final

from lessor.v1 import creds_pb2 as pb
from lessor_server.http_edge.exchange import as_text
from lessor_server.http_edge.vault.call import VaultCall
from lessor_server.http_edge.vault.parameters import Parameters
from lessor_server.http_edge.vault.reply import Reply
from lessor_server.http_edge.vault.routes import VaultOperation, VaultRoute, Verb
from lessor_server.http_edge.vault.shapes import credentials_shape, static_credentials_shape

GENERATE, GET_STATIC = "CredsService.GenerateCredentials", "CredsService.GetStaticCredentials"
REQUEST_ID_HEADER: Final = "X-Lessor-Request-Id"


async def generate(call: VaultCall) -> Reply:
    """Issue credentials of a role."""

    def build(given: Parameters) -> pb.GenerateCredentialsRequest:
        return pb.GenerateCredentialsRequest(
            mount=call.names["mount"],
            role=call.names["role"],
            ttl=given.span("ttl"),
            role_arn=given.text("role_arn"),
            role_session_name=given.text("role_session_name"),
            mfa_code=given.text("mfa_code"),
            session_policy=given.document("session_policy"),
            request_id=given.text("request_id") or as_text(call.request.headers.get(REQUEST_ID_HEADER, "")),
            wait_usable=given.span("wait_usable"),
            reason=given.text("reason"),
        )

    made = await call.call(GENERATE, build, pb.GenerateCredentialsResponse)
    return Reply(
        credentials_shape(made),
        lease_id=made.lease_id,
        lease_seconds=made.lease_duration.seconds,
        renewable=made.lease_renewable,
        warnings=[*made.warnings, *call.warnings],
        issued=made.lease_id,
    )


async def read_static_credentials(call: VaultCall) -> Reply:
    """Return the key of a static role."""
    request = pb.GetStaticCredentialsRequest(mount=call.names["mount"], role=call.names["role"])
    found = await call.ask(GET_STATIC, request, pb.GetStaticCredentialsResponse)
    return Reply(static_credentials_shape(found, call.facts.wall_us()))


_GENERATE: Final = VaultOperation(generate, (GENERATE,), says_missing=True)
_HELP: Final = (
    "Issues credentials of a role under a new lease: ttl, role_arn, role_session_name, mfa_code,"
    " session_policy, request_id, wait_usable, reason."
)
CREDENTIAL_ROUTES: Final = (
    VaultRoute("{mount}/creds/{role}", {Verb.READ: _GENERATE, Verb.WRITE: _GENERATE}, _HELP),
    VaultRoute("{mount}/sts/{role}", {Verb.READ: _GENERATE, Verb.WRITE: _GENERATE}, _HELP),
    VaultRoute(
        "{mount}/static-creds/{role}",
        {Verb.READ: VaultOperation(read_static_credentials, (GET_STATIC,))},
        "The current key of a static role.",
    ),
)
