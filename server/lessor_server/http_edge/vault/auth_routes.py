"""Logins, and the calls of a token on itself: ``auth``."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration

from lessor_server.domain.errors.access import TokenNotRenewable
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.vault.call import VaultCall
from lessor_server.http_edge.vault.reply import DONE, Reply, bad_request, no_handler
from lessor_server.http_edge.vault.routes import VaultOperation, VaultRoute, Verb
from lessor_server.http_edge.vault.shapes import iso_us
from lessor_server.services.logins import NewToken, TokenStatus

_IDLE: Final = ("display_name", "entity_alias", "meta", "no_default_policy", "no_parent", "period", "type")
_SERVICE: Final = "service"


async def log_in(call: VaultCall) -> Reply:
    """Exchange a credential for a login token."""
    try:
        new = await call.log_in(call.names["issuer"])
    except CallRefused as refused:
        if refused.is_missing:
            path = f"auth/{call.names['issuer']}/login"
            return no_handler(path, f"{refused.error.message}; {refused.error.fix}")
        raise
    return _new_token(new)


async def look_up(call: VaultCall) -> Reply:
    """Return what the caller may know of its token; agents and ``login`` store the ``id``."""
    async with call.admit() as principal:
        status = await call.logins.look_up(principal, call.peer)
    return Reply(lookup_shape(status, call.token))


async def extend_token(call: VaultCall) -> Reply:
    """Extend the caller's login token."""
    async with call.admit() as principal:
        given = await call.read_admitted()
        increment = _timedelta(given.span("increment"))
        given.ignore(("token",))
        try:
            status = await call.logins.renew_self(principal, call.peer, increment)
        except TokenNotRenewable as error:
            return bad_request("lease is not renewable", f"{error.message}; {error.fix}")
    return Reply(auth=auth_shape(status, call.token), warnings=call.warnings)


async def revoke_token(call: VaultCall) -> Reply:
    """End the caller's login token, and those that it has created."""
    async with call.admit() as principal:
        await call.logins.revoke_self(principal, call.peer)
    return DONE


async def create(call: VaultCall) -> Reply:
    """Create a login token with the caller's rights, which ends with the caller's."""
    async with call.admit() as principal:
        given = await call.read_admitted()
        given.ignore(_IDLE)
        policies = set(given.texts("policies")) - {"default"}
        if policies and policies != set(principal.policies):
            raise given.invalid("policies", "are not all of yours", "leave them out: it gets your own")
        for name in ("id", "num_uses"):
            if given.text(name) not in ("", "0"):
                raise given.invalid(name, "can't be chosen", "leave it out")
        new = await call.logins.create_child(
            principal,
            call.peer,
            ttl=_timedelta(given.span("ttl")),
            max_ttl=_timedelta(given.span("explicit_max_ttl")),
            renewable=given.boolean("renewable", default=True),
        )
    return _new_token(new, call.warnings)


def _new_token(new: NewToken, warnings: list[str] | None = None) -> Reply:
    auth = auth_shape(new.status, new.token.reveal())
    return Reply(auth=auth, warnings=warnings or (), issued=new)


def auth_shape(status: TokenStatus, token: str) -> dict[str, object]:
    """Return a token as logins and renewals have it."""
    policies = list(status.principal.policies)
    return {
        "client_token": token,
        "accessor": status.accessor,
        "policies": policies,
        "token_policies": policies,
        "metadata": dict(status.principal.labels) or None,
        "lease_duration": _granted(status),
        "renewable": status.renewable,
        "entity_id": "",
        "token_type": _SERVICE,
        "orphan": status.is_orphan,
        "mfa_requirement": None,
        "num_uses": 0,
    }


def _granted(status: TokenStatus) -> int:
    """Return the life that was granted: clients take one that is a second shorter as cut."""
    if status.expires_us is None:
        return 0
    return (status.expires_us - (status.renewed_us or status.created_us)) // 1_000_000


def lookup_shape(status: TokenStatus, token: str) -> dict[str, object]:
    """Return a token as ``lookup-self`` has it; ``token`` is the caller's own."""
    principal, ends = status.principal, status.expires_us
    return {
        "id": token,
        "accessor": status.accessor,
        "type": _SERVICE,
        "ttl": status.ttl,
        "creation_ttl": status.creation_ttl,
        "creation_time": status.created_us // 1_000_000,
        "issue_time": iso_us(status.created_us),
        "expire_time": None if ends is None else iso_us(ends),
        "explicit_max_ttl": status.max_ttl,
        "renewable": status.renewable,
        "policies": list(principal.policies),
        "display_name": principal.name,
        "path": "auth/token/create",
        "orphan": status.is_orphan,
        "num_uses": 0,
        "entity_id": "",
        "meta": dict(principal.labels) or None,
    }


def _timedelta(span: Duration | None) -> timedelta | None:
    return None if span is None else span.ToTimedelta()


_LOGIN: Final = VaultOperation(log_in, is_public=True, says_missing=True)
_LOGIN_HELP: Final = (
    "Exchanges a credential for a login token: jwt and role at an issuer of the access file, role_id and"
    " secret_id at approle."
)
AUTH_ROUTES: Final = (
    VaultRoute(
        "auth/token/lookup-self",
        {Verb.READ: VaultOperation(look_up), Verb.WRITE: VaultOperation(look_up)},
        "The caller's token.",
    ),
    VaultRoute(
        "auth/token/renew-self",
        {Verb.WRITE: VaultOperation(extend_token)},
        "Extends the caller's login token: increment.",
    ),
    VaultRoute("auth/token/revoke-self", {Verb.WRITE: VaultOperation(revoke_token)}, "Ends your token."),
    VaultRoute(
        "auth/token/create",
        {Verb.WRITE: VaultOperation(create)},
        "Creates a login token with the caller's rights: ttl, explicit_max_ttl, renewable.",
    ),
    VaultRoute("auth/{issuer}/login", {Verb.WRITE: _LOGIN}, _LOGIN_HELP),
    VaultRoute("auth/{issuer}/login/{user}", {Verb.WRITE: _LOGIN}, _LOGIN_HELP),
)
