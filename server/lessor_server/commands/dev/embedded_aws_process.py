"""The embedded AWS: moto's server on a socket that its starter opened, until standard input ends.

Run as ``python -m lessor_server.commands.dev.embedded_aws_process HOST FD HOST:PORT``. When it serves, it
prints the key of its root user, one line of JSON. Standard input ends when the starter ends, even by
``kill -9``, so no embedded AWS outlives its server.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sts.responses import TokenResponse
from werkzeug.serving import BaseWSGIServer, make_server

from lessor_server.adapters.observing.log import LogLevel, start_logging

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ROOT_USER: Final = "lessor-root"
PARTITION: Final = "aws"
REGION: Final = "us-east-1"
_ADMIN: Final = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}
_CLOSED: Final = ("moto-api", "favicon.ico", "latest/meta-data", "latest/api")
"""The path prefixes of moto's own endpoints, which need no key."""
_SIGNED: Final = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/,]+/[^/,]+/[^/,]+/[^/,]+/aws4_request,")
"""The beginning of a signed request's header (IAM User Guide, "Create a signed AWS API request")."""
_WEB_IDENTITY: Final = "AssumeRoleWithWebIdentity"
"""The only action that needs no signature: its token identifies the caller (STS API Reference)."""
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_FORM_BYTES: Final = 1 << 17
"""More than a form with a token of 20,000 characters and a policy of 2,048."""
_CROSS_SITE: Final = frozenset({"cross-site", "same-site"})


class LoopbackOnly:
    """Accepts requests of programs on this machine; refuses web pages, and requests to moto's control API.

    A web page in a browser here can send requests to loopback too. The Origin or Sec-Fetch-Site header shows
    it, or, if the page's own name resolves to 127.0.0.1, the Host header.
    """

    def __init__(self, app: WSGIApplication, own: str) -> None:
        """Pass requests to ``app``; the valid hosts are ``own`` (host:port) and its localhost form."""
        self._app = app
        self._hosts = frozenset({own, f"localhost:{own.rpartition(':')[2]}"})

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        if problem := self._problem(environ):
            start_response("403 Forbidden", [("Content-Type", "text/plain"), ("Connection", "close")])
            return [f"{problem}\n".encode()]
        if not _SIGNED.match(environ.get("HTTP_AUTHORIZATION", "")) and not _carries_token(environ):
            text = "Request is missing Authentication Token"
            return _error(start_response, "403 Forbidden", "MissingAuthenticationToken", text)
        return self._app(environ, start_response)

    def _problem(self, environ: WSGIEnvironment) -> str:
        """Return why a request is refused, or nothing; headers of one name are joined by commas."""
        if environ.get("HTTP_HOST", "").lower() not in self._hosts:
            return "the Host header is not the embedded AWS's"
        if "HTTP_ORIGIN" in environ or environ.get("HTTP_SEC_FETCH_SITE") in _CROSS_SITE:
            return "web pages must not call the embedded AWS"
        if not environ["RAW_URI"].startswith("/"):
            return "send a path to the embedded AWS"
        # The path as moto reads it: decoded once, with //x as /x.
        if environ["PATH_INFO"].lstrip("/").lower().startswith(_CLOSED):
            return "the control API of the embedded AWS is closed"
        return ""


def _carries_token(environ: WSGIEnvironment) -> bool:
    """Return whether an unsigned request is, in every reading of moto's, the action that needs no key."""
    elsewhere = environ["PATH_INFO"] != "/" or environ.get("QUERY_STRING") or "HTTP_X_AMZ_TARGET" in environ
    is_form = environ.get("CONTENT_TYPE", "").partition(";")[0].strip() == _FORM
    length = environ.get("CONTENT_LENGTH", "")
    if environ["REQUEST_METHOD"] != "POST" or elsewhere or not is_form or "HTTP_AUTHORIZATION" in environ:
        return False
    if not length.isdecimal() or int(length) > _MAX_FORM_BYTES:
        return False
    body = environ["wsgi.input"].read(int(length))
    environ["wsgi.input"] = io.BytesIO(body)
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return fields.get("Action") == [_WEB_IDENTITY] and len(fields.get("WebIdentityToken", [])) == 1


def serve_web_identities() -> None:
    """Exempt the action that needs no signature from moto's check, which covers all actions."""
    check = TokenResponse._authenticate_and_authorize_normal_action  # noqa: SLF001

    def check_others(self: TokenResponse, resource: str = "*") -> None:
        if self._get_action() != _WEB_IDENTITY:
            check(self, resource)

    TokenResponse._authenticate_and_authorize_normal_action = check_others  # type: ignore[assignment, method-assign]  # noqa: SLF001


def create_server(host: str, listener: int, own: str) -> BaseWSGIServer:
    """Return moto's server on ``listener``, a file descriptor of a socket that listens on ``host``."""
    app = LoopbackOnly(answering(DomainDispatcherApplication(create_backend_app)), own)
    # The socket has its port already.
    return make_server(host, 0, app, threaded=True, request_handler=MotoRequestHandler, fd=listener)


def create_root() -> dict[str, str]:
    """Create a user that may do everything, directly, as every request is checked; return its key."""
    iam = iam_backends[DEFAULT_ACCOUNT_ID][PARTITION]
    iam.create_user(REGION, ROOT_USER)
    iam.put_user_policy(ROOT_USER, "everything", json.dumps(_ADMIN))
    key = iam.create_access_key(ROOT_USER)
    return {"access_key": key.access_key_id, "secret_key": key.secret_access_key}


def main(host: str, listener: int, own: str) -> None:
    """Serve until standard input ends."""
    start_logging(LogLevel("warning"), os.environ.get("LESSOR_LOG_FORMAT", "auto"))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    serve_web_identities()
    server = create_server(host, listener, own)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(json.dumps(create_root()) + "\n")
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # moto's own output
    sys.stdin.buffer.read()


def answering(app: WSGIApplication) -> WSGIApplication:
    """Answer with an error in AWS's form if moto raises; its traceback would go to the terminal."""

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        try:
            return app(environ, start)
        except NotImplementedError as missing:
            return _error(start, "400 Bad Request", "NotImplemented", str(missing))
        except Exception as error:  # noqa: BLE001 - moto's own errors end a request, never the server
            sys.stderr.write(f"lessor dev: the embedded AWS failed: {type(error).__name__}: {error}\n")
            return _error(start, "500 Internal Server Error", "InternalFailure", type(error).__name__)

    return answer


def _error(start: StartResponse, status: str, code: str, message: str) -> list[bytes]:
    """Return an error response of the query protocol (IAM and STS API references, "Common Errors")."""
    error = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    start(status, [("Content-Type", "text/xml")])
    return [f"<ErrorResponse>{error}</ErrorResponse>".encode()]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
