"""The embedded AWS itself: moto's server on a socket that its starter opened, until standard input ends.

Run as ``python -m lessor_server.commands.embedded_aws_process HOST FD``. Standard input ends with the starter
however that ends, so no embedded AWS outlives its server, not even after ``kill -9``.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from xml.sax.saxutils import escape

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from lessor_server.adapters.observing.log import LogLevel, start_logging


def main(host: str, listener: int) -> None:
    """Serve on ``listener``, the file descriptor of a socket listening on ``host``, until input ends."""
    start_logging(LogLevel("warning"), os.environ.get("LESSOR_LOG_FORMAT", "auto"))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server(
        host,
        0,  # the socket has its port
        answering(DomainDispatcherApplication(create_backend_app)),
        threaded=True,
        request_handler=MotoRequestHandler,
        fd=listener,
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.buffer.read()


def answering(app: WSGIApplication) -> WSGIApplication:
    """Answer what moto fails at with an error of AWS's form; its traceback would go to the terminal."""

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
    """Answer with an error as the query protocol has it (IAM and STS API references, "Common Errors")."""
    error = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    start(status, [("Content-Type", "text/xml")])
    return [f"<ErrorResponse>{error}</ErrorResponse>".encode()]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
