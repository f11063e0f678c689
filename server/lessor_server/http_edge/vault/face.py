"""Vault's API: the way of a request from its path to the operation that serves it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import unquote
from uuid import UUID

from aiohttp.web import BaseRequest, Response, StreamResponse

from lessor_server.http_edge.calls import Calls
from lessor_server.http_edge.vault import reply
from lessor_server.http_edge.vault.call import Refused, VaultCall
from lessor_server.http_edge.vault.credential_routes import CREDENTIAL_ROUTES
from lessor_server.http_edge.vault.routes import Route, Table, Verb
from lessor_server.http_edge.vault.system_routes import SYSTEM_ROUTES

PREFIX: Final = "/v1/"
TABLE: Final = Table((*SYSTEM_ROUTES, *CREDENTIAL_ROUTES))
_VERBS: Final = {
    "GET": Verb.READ,
    "HEAD": Verb.READ,
    "LIST": Verb.LIST,
    "POST": Verb.WRITE,
    "PUT": Verb.WRITE,
    "DELETE": Verb.DELETE,
}
NO_ID: Final = str(UUID(int=0))


class VaultFace:
    """Serves Vault's API below ``/v1/``."""

    def __init__(self, calls: Calls) -> None:
        """Serve by the methods in ``calls``."""
        self._calls = calls

    def owns(self, path: str) -> bool:
        """Return whether a path is below ``/v1/``."""
        return path.startswith(PREFIX) or path == PREFIX[:-1]

    async def answer(self, request: BaseRequest) -> StreamResponse:
        """Return the answer to a request."""
        path = path_of(request)
        found = TABLE.find(path)
        if found is None:
            return _unknown("/".join(path))
        route, names = found
        verb = _VERBS.get(request.method)
        if verb is Verb.READ and request.query.get("list", "").lower() in ("true", "1"):
            verb = Verb.LIST
        if verb is None or (operation := route.operations.get(verb)) is None:
            return _wrong_verb(route)
        call = VaultCall(self._calls, request, operation, names)
        try:
            answer = await operation.serve(call)
        except Refused as refused:
            return reply.refuse_call(
                refused.refusal.error,
                sees_root=refused.refusal.sees_root,
                hides_missing=not operation.says_missing,
            )
        return reply.write(answer, call.request_id or NO_ID)


def path_of(request: BaseRequest) -> list[str]:
    """Return the parts of a path behind ``/v1/``; ``//`` counts as ``/``, and a last ``/`` is dropped."""
    raw = request.rel_url.raw_path[len(PREFIX) :]
    return [unquote(part) for part in raw.split("/") if part]


def _unknown(path: str) -> Response:
    return reply.refuse(HTTPStatus.NOT_FOUND, f'no handler for route "{path[:256]}". route entry not found.')


def _wrong_verb(route: Route) -> Response:
    allowed = ", ".join(verb.value for verb in route.operations)
    response = reply.refuse(HTTPStatus.METHOD_NOT_ALLOWED, f"unsupported operation; this path has {allowed}")
    response.headers["Allow"] = allowed
    return response
