"""The embedded AWS itself: moto's server on a socket that its starter opened, until standard input ends.

Run as ``python -m lessor_server.commands.embedded_aws_process FD``. Standard input ends with the starter
however that ends, so no embedded AWS outlives its server, not even after ``kill -9``.
"""

from __future__ import annotations

import logging
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from lessor_server.commands.loopback_proxy import LOOPBACK


def main(listener: int) -> None:
    """Serve on the listening socket ``listener``, a file descriptor, until standard input ends."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server(
        LOOPBACK,
        0,  # the socket has its port
        DomainDispatcherApplication(create_backend_app),
        threaded=True,
        request_handler=MotoRequestHandler,
        fd=listener,
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main(int(sys.argv[1]))
