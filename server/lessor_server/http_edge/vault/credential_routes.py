"""Credentials: ``{mount}/creds/{role}``."""

from __future__ import annotations

from typing import Final

from lessor.v1 import creds_pb2
from lessor_server.http_edge.vault.call import VaultCall
from lessor_server.http_edge.vault.parameters import Parameters
from lessor_server.http_edge.vault.reply import Reply
from lessor_server.http_edge.vault.routes import Operation, Route, Verb

GENERATE: Final = "CredsService.GenerateCredentials"


async def generate(call: VaultCall) -> Reply:
    """Issue a credential."""

    def build(given: Parameters) -> creds_pb2.GenerateCredentialsRequest:
        request = creds_pb2.GenerateCredentialsRequest(mount=call.names["mount"], role=call.names["role"])
        if (ttl := given.seconds("ttl")) is not None:
            request.ttl.FromMilliseconds(int(ttl * 1000))
        return request

    made = await call.call(GENERATE, build, creds_pb2.GenerateCredentialsResponse)
    data: dict[str, object] = {
        "access_key": made.access_key,
        "secret_key": made.secret_key,
        "security_token": made.security_token or None,
        "session_token": made.security_token or None,
    }
    return Reply(
        data,
        lease_id=made.lease_id,
        lease_seconds=made.lease_duration.seconds,
        renewable=made.lease_renewable,
        warnings=made.warnings,
        issued=made.lease_id,
    )


_GENERATE = Operation(generate, (GENERATE,), says_missing=True)
CREDENTIAL_ROUTES: Final = (
    Route("{mount}/creds/{role}", {Verb.READ: _GENERATE, Verb.WRITE: _GENERATE}, "Issues a credential."),
)
