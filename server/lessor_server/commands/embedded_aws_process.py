"""The embedded AWS itself: moto's server on a socket that its starter opened, until standard input ends.

Run as ``python -m lessor_server.commands.embedded_aws_process HOST FD``. Standard input ends with the starter
however that ends, so no embedded AWS outlives its server, not even after ``kill -9``.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from lessor_server.adapters.observing.log import start_logging


def main(host: str, listener: int) -> None:
    """Serve on ``listener``, the file descriptor of a socket listening on ``host``, until input ends."""
    start_logging("warning", os.environ.get("LESSOR_LOG_FORMAT", "auto"))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server(
        host,
        0,  # the socket has its port
        DomainDispatcherApplication(create_backend_app),
        threaded=True,
        request_handler=MotoRequestHandler,
        fd=listener,
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
