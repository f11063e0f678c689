"""Makes keys and JWTs, also malformed ones, and a small issuer with discovery and a key set for tests."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from lessor_server.domain.access.access_config import JwtIssuer

NOW = 1_800_000_000.0
"""The time of tests, in seconds since the epoch."""
URL = "https://issuer.example"
KINDS = {
    "RSA": ("RS256", lambda: rsa.generate_private_key(65_537, 2048)),
    "RSA-1024": ("RS256", lambda: rsa.generate_private_key(65_537, 1024)),
    "P-256": ("ES256", lambda: ec.generate_private_key(ec.SECP256R1())),
    "P-384": ("ES384", lambda: ec.generate_private_key(ec.SECP384R1())),
    "P-521": ("ES512", lambda: ec.generate_private_key(ec.SECP521R1())),
    "Ed25519": ("EdDSA", ed25519.Ed25519PrivateKey.generate),
    "Ed448": ("EdDSA", ed448.Ed448PrivateKey.generate),
}


def encoded(content: bytes | str | Mapping[str, Any]) -> str:
    """Return bytes, a text or the JSON of an object in base64url without padding."""
    if isinstance(content, Mapping):
        content = json.dumps(content)
    raw = content.encode() if isinstance(content, str) else content
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@lru_cache
def _private_key(kind: str, number: int) -> Any:
    """Generate one key for each kind and number, because RSA keys take long."""
    return KINDS[kind][1]()


class SigningKey:
    """A key of an issuer; keys of the same kind and number are the same key."""

    def __init__(self, kid: str | None = "one", kind: str = "RSA", number: int = 0) -> None:
        self.kid = kid
        self.algorithm = KINDS[kind][0]
        self.private = _private_key(kind, number)

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """Return the public key as a JWK; ``changes`` replace members, and None removes them."""
        verifier = get_default_algorithms()[self.algorithm]
        made: dict[str, Any] = json.loads(verifier.to_jwk(self.private.public_key()))
        made.pop("key_ops", None)
        made = {**made, "kid": self.kid, "use": "sig", **changes}
        return {name: value for name, value in made.items() if value is not None}

    def private_jwk(self) -> dict[str, Any]:
        """Return the JWK with its private members, which no issuer should publish."""
        verifier = get_default_algorithms()[self.algorithm]
        return {**json.loads(verifier.to_jwk(self.private)), "kid": self.kid, "key_ops": ["verify"]}

    def sign(
        self,
        claims: bytes | str | Mapping[str, Any],
        header: bytes | str | Mapping[str, Any] | None = None,
        *,
        algorithm: str = "",
    ) -> str:
        """Return a JWT; a text or bytes are signed as they are."""
        used = algorithm or self.algorithm
        if header is None:
            header = {"alg": used, "typ": "JWT"} | ({} if self.kid is None else {"kid": self.kid})
        signed = f"{encoded(header)}.{encoded(claims)}"
        signature = get_default_algorithms()[used].sign(signed.encode(), self.private)
        return f"{signed}.{encoded(signature)}"


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a valid JWT; ``changes`` replace claims, and None removes them."""
    made = {
        "iss": URL,
        "aud": "lessor",
        "sub": "repo:acme/app",
        "iat": NOW - 10,
        "exp": NOW + 600,
        **changes,
    }
    return {name: value for name, value in made.items() if value is not None}


def issuer(**changes: Any) -> JwtIssuer:
    """Return an issuer of the access file."""
    return JwtIssuer(
        **{"name": "ci", "url": URL, "audiences": ("lessor",), "jwks_url": f"{URL}/jwks", **changes}
    )


def key_set(*keys: SigningKey | Mapping[str, Any]) -> bytes:
    """Return a JWKS document."""
    members = [key.jwk() if isinstance(key, SigningKey) else key for key in keys]
    return json.dumps({"keys": members}).encode()


class FakeReader:
    """Returns the key set that ``answer`` holds, or raises it; ``held`` delays all answers."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer = answer
        self.reads: list[str] = []
        self.held: asyncio.Event | None = None
        self.closed = False

    async def read_keys(self, issuer: JwtIssuer) -> bytes:
        self.reads.append(issuer.name)
        if self.held is not None:
            await self.held.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def close(self) -> None:
        self.closed = True


class IssuerServer:
    """An issuer on the loopback, with discovery at its ``url`` and keys at ``jwks_url``.

    Attributes can be changed while it runs: ``keys`` are the members of its set, ``body`` replaces the whole
    set, a ``status`` other than 200 is a failure, ``location`` redirects, ``held`` delays each answer until
    it is set, and ``discovery`` has members that replace those of the discovery document.
    """

    def __init__(self, *keys: SigningKey | Mapping[str, Any], path: str = "") -> None:
        self.keys: list[SigningKey | Mapping[str, Any]] = list(keys)
        self.body: bytes | None = None
        self.status = 200
        self.location = ""
        self.held: asyncio.Event | None = None
        self.headers: dict[str, str] = {}
        self.discovery: dict[str, Any] = {}
        self.requests: list[str] = []
        self.url = ""
        self._path = path
        self._runner: web.AppRunner | None = None

    @property
    def jwks_url(self) -> str:
        """Return where its key set is."""
        return f"{self.url.removesuffix('/')}/jwks"

    async def __aenter__(self) -> Self:
        base = self._path.removesuffix("/")
        app = web.Application()
        app.router.add_get(f"{base}/.well-known/openid-configuration", self._discover)
        app.router.add_get(f"{base}/jwks", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}{self._path}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.held is not None:
            self.held.set()
        assert self._runner is not None
        await self._runner.cleanup()

    async def _discover(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        return web.json_response({"issuer": self.url, "jwks_uri": self.jwks_url, **self.discovery})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        if self.held is not None:
            await self.held.wait()
        if self.location:
            raise web.HTTPFound(self.location)
        body = key_set(*self.keys) if self.body is None else self.body
        return web.Response(body=body, status=self.status, headers=self.headers)
