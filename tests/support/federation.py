"""A federation endpoint on this machine: it returns a sign-in token for the credentials of a session."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

TOKEN = "VCQgs5qZZt3Q/6fn8+Tr5="


class Federation(HTTPServer):
    """A federation endpoint on this machine whose answers a test chooses."""

    def __init__(self) -> None:
        """Listen on a port that the system chooses."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self.status = 200
        self.body = json.dumps({"SigninToken": TOKEN})
        self.location = ""

    @property
    def url(self) -> str:
        """Return its URL."""
        return f"http://127.0.0.1:{self.server_port}/federation"


class Handler(BaseHTTPRequestHandler):
    """Records each request, and answers it."""

    server: Federation

    def do_POST(self) -> None:
        """Answer a form."""
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append((self.path, parse_qs(form)))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()
        self.wfile.write(self.server.body.encode())

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextmanager
def serving() -> Iterator[Federation]:
    """Serve for the duration of the block."""
    server = Federation()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
