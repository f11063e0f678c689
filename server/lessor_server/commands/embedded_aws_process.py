"""The embedded AWS itself: moto's server on a socket that its starter opened, until standard input ends.

Run as ``python -m lessor_server.commands.embedded_aws_process HOST FD``. Standard input ends with the starter
however that ends, so no embedded AWS outlives its server, not even after ``kill -9``.
"""

from __future__ import annotations

import logging
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


def main(host: str, listener: int) -> None:
    """Serve on ``listener``, the file descriptor of a socket listening on ``host``, until input ends."""
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
