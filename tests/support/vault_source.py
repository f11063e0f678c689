"""A server of the reads of Vault's API that ``lessor import vault`` makes, as Vault documents them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TOKEN = "hvs.a-token-of-the-source"


@dataclass(slots=True)
class VaultModel:
    """What it answers: ``data`` by path; a path that is ``denied`` is 403, others are 404.

    The server's library does not know the method LIST, as some proxies, and answers 400.
    """

    data: dict[str, dict[str, Any]]
    denied: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request as Vault does."""
        path = request.match_info["path"]
        self.asked.append(f"{request.method} {path}")
        if request.headers.get("X-Vault-Token") != TOKEN or path in self.denied:
            return web.json_response({"errors": ["permission denied"]}, status=403)
        if request.query.get("list") == "true":
            found = [name.removeprefix(f"{path}/") for name in self.data if name.startswith(f"{path}/")]
            return web.json_response(
                {"data": {"keys": found}} if found else {"errors": []}, status=200 if found else 404
            )
        if path not in self.data:
            return web.json_response({"errors": []}, status=404)
        return web.json_response({"request_id": "r", "lease_id": "", "data": self.data[path]})


@asynccontextmanager
async def vault_source(model: VaultModel) -> AsyncIterator[VaultModel]:
    """Serve a model at its ``url``."""
    application = web.Application()
    application.router.add_route("*", "/v1/{path:.*}", model.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        model.url = f"http://{host}:{port}"
        yield model
    finally:
        await runner.cleanup()


def role_data(credential_type: str, **fields: Any) -> dict[str, Any]:
    """Return what Vault answers about a role: every field, most of them empty."""
    empty: dict[str, Any] = {
        "role_arns": [],
        "policy_arns": [],
        "policy_document": "",
        "iam_groups": [],
        "iam_tags": {},
        "session_tags": {},
        "external_id": "",
        "user_path": "",
        "permissions_boundary_arn": "",
        "default_sts_ttl": 0,
        "max_sts_ttl": 0,
        "mfa_serial_number": "",
    }
    return {"credential_type": credential_type, **empty, **fields}
