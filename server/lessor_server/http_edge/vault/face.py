"""Vault's API: the way of a request from its path to the operation that serves it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote
from uuid import UUID

from aiohttp.web import BaseRequest, Response, StreamResponse
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from lessor_server.domain.access.caller import Peer
from lessor_server.domain.errors.base import InternalError, LessorError
from lessor_server.http_edge.answers import deliver, error_response, json_response
from lessor_server.http_edge.calls import UNKNOWN, CallRefused, Calls
from lessor_server.http_edge.connections import Report
from lessor_server.http_edge.exchange import HttpExchange, as_text
from lessor_server.http_edge.vault import reply
from lessor_server.http_edge.vault.auth_routes import AUTH_ROUTES
from lessor_server.http_edge.vault.call import ServerFacts, VaultCall
from lessor_server.http_edge.vault.config_routes import CONFIG_ROUTES
from lessor_server.http_edge.vault.credential_routes import CREDENTIAL_ROUTES
from lessor_server.http_edge.vault.lease_routes import LEASE_ROUTES
from lessor_server.http_edge.vault.mount_routes import MOUNT_ROUTES
from lessor_server.http_edge.vault.reply import Issued
from lessor_server.http_edge.vault.role_routes import ROLE_ROUTES
from lessor_server.http_edge.vault.routes import RouteTable, VaultOperation, VaultRoute, Verb
from lessor_server.http_edge.vault.system_routes import SYSTEM_ROUTES

PREFIX: Final = "/v1/"
TABLE: Final = RouteTable(
    (
        *SYSTEM_ROUTES,
        *AUTH_ROUTES,
        *MOUNT_ROUTES,
        *LEASE_ROUTES,
        *CONFIG_ROUTES,
        *ROLE_ROUTES,
        *CREDENTIAL_ROUTES,
    )
)
_VERBS: Final = {
    "GET": Verb.READ,
    "HEAD": Verb.READ,
    "LIST": Verb.LIST,
    "POST": Verb.WRITE,
    "PUT": Verb.WRITE,
    "DELETE": Verb.DELETE,
}
_TRUE: Final = frozenset({"true", "1"})
_ROOT_NAMESPACES: Final = frozenset({"", "root"})
_NO_WRAPPING: Final = "answers can't be wrapped here; leave out X-Vault-Wrap-TTL (-wrap-ttl)"
_NO_NAMESPACES: Final = "there are no namespaces here; leave out X-Vault-Namespace (-namespace)"


class VaultFace:
    """Serves Vault's API below ``/v1/``."""

    def __init__(
        self,
        calls: Calls,
        facts: ServerFacts,
        report: Report,
        withdraw: Callable[[Issued, Peer], None],
        draw_bits: Callable[[int], int],
    ) -> None:
        """Serve by the methods in ``calls``.

        Unexpected exceptions go to ``report``. ``withdraw`` begins to revoke what its caller did not get.
        ``draw_bits`` draws the ids of answers.
        """
        self._calls = calls
        self._facts = facts
        self._report = report
        self._withdraw = withdraw
        self._draw_bits = draw_bits

    def owns(self, path: str) -> bool:
        """Return whether a path is below ``/v1/``."""
        return f"{path.lstrip('/')}/".startswith(PREFIX[1:])

    async def answer(self, request: BaseRequest) -> StreamResponse:
        """Return the answer to a request."""
        path = split_path(request)
        found = TABLE.find(path)
        if found is None:
            await self._delay_stranger(request)
            return _unknown("/".join(path))
        route, names = found
        if request.query.get("help", "").lower() in _TRUE and request.method == "GET":
            await self._delay_stranger(request)
            return json_response(HTTPStatus.OK, {"help": route.help})
        if not route.operations:
            await self._delay_stranger(request)
            return _unknown("/".join(path))
        verb = verb_of(request)
        operation = None if verb is None else route.operations.get(verb)
        if operation is None or (request.method == "HEAD" and not operation.is_public):
            await self._delay_stranger(request)
            return _wrong_verb(route)
        if (refused := refuse_headers(request)) is not None:
            await self._delay_stranger(request)
            return refused
        call = VaultCall(self._calls, self._facts, request, operation, names, TABLE)
        return await self._serve(call, operation)

    async def _serve(self, call: VaultCall, operation: VaultOperation) -> StreamResponse:
        """Return the answer of an operation, or the error that ends it."""
        missing = not operation.says_missing
        try:
            answer = await operation.serve(call)
        except CallRefused as refused:
            return reply.refuse_call(refused.error, sees_root=refused.sees_root, hides_missing=missing)
        except LessorError as error:
            return reply.refuse_call(error, sees_root=False, hides_missing=missing)
        except Exception as error:  # noqa: BLE001 - it ends this request, and nothing else
            unexpected = InternalError(self._report("vault api", error))
            return reply.refuse_call(unexpected, sees_root=False, hides_missing=missing)
        response = reply.respond(answer, self._request_id(call))
        if (issued := answer.issued) is not None:
            await deliver(call.request, response, lambda: self._withdraw(issued, call.peer))
        return response

    def _request_id(self, call: VaultCall) -> str:
        """Return a UUID: that of the audit records in its last digits, or a random one."""
        if call.request_id:
            return str(UUID(int=int(call.request_id, 16)))
        return str(UUID(int=self._draw_bits(128), version=4))

    async def _delay_stranger(self, request: BaseRequest) -> None:
        """Wait for the turn of a connection whose request needs no token."""

        async def ask() -> Message:
            return health_pb2.HealthCheckRequest()

        with suppress(CallRefused):
            await self._calls.serve(UNKNOWN, HttpExchange(request, ask))


def verb_of(request: BaseRequest) -> Verb | None:
    """Return what a request does; None if its method is not served."""
    verb = _VERBS.get(request.method)
    if verb is Verb.READ and request.query.get("list", "").lower() in _TRUE:
        return Verb.LIST
    return None if "scan" in request.query else verb


def split_path(request: BaseRequest) -> list[str]:
    """Return the parts of a path behind ``/v1/``; ``//`` counts as ``/``, and a last ``/`` is dropped."""
    parts = [part for part in request.rel_url.raw_path.split("/") if part]
    return [as_text(unquote(part)) for part in parts[1:]]


def refuse_headers(request: BaseRequest) -> Response | None:
    """Return the answer to a request for what is not served: namespaces, and wrapped answers."""
    namespaces = request.headers.getall("X-Vault-Namespace", ())
    if any(name.strip("/").lower() not in _ROOT_NAMESPACES for name in namespaces):
        return error_response(HTTPStatus.NOT_FOUND, "namespace not found", _NO_NAMESPACES)
    if any(ttl not in ("", "0", "0s") for ttl in request.headers.getall("X-Vault-Wrap-TTL", ())):
        return error_response(HTTPStatus.BAD_REQUEST, _NO_WRAPPING)
    return None


def _unknown(path: str) -> Response:
    return reply.respond(reply.no_handler(path), "")


def _wrong_verb(route: VaultRoute) -> Response:
    allowed = ", ".join(verb.value for verb in route.operations)
    response = error_response(
        HTTPStatus.METHOD_NOT_ALLOWED, f"unsupported operation; this path has {allowed}"
    )
    response.headers["Allow"] = allowed
    return response
