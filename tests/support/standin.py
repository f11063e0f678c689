"""The stand-in for AWS as a server: IAM and STS by the query protocol, and the control API, on one port.

``python -m tests.support.standin --port 0`` prints one line ``ready http://127.0.0.1:PORT`` when it serves.
It checks no signature and listens on the loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import uvloop

from tests.support.iam_faults import Ending
from tests.support.iam_rules import Answer
from tests.support.iam_wire import read_request, write_answer
from tests.support.kms_model import TARGET
from tests.support.standin_api import PREFIX, answer_control
from tests.support.standin_http import Connection, HttpRequest
from tests.support.standin_world import Options, World

_HTML = b"<html><body>Please log in to the network</body></html>"


class StandInServer:
    """Turns HTTP requests into calls on a ``World`` or control requests about it."""

    def __init__(self, world: World) -> None:
        """Begin with no connection."""
        self._world = world
        self._opened: set[Connection] = set()

    def connect(self) -> Connection:
        """Make the protocol of one new connection."""
        return Connection(self._serve, self._opened)

    def _serve(self, connection: Connection, request: HttpRequest) -> None:
        if request.target.startswith(PREFIX):
            connection.is_control = True
            status, body = answer_control(self._world, request.method, request.target, request.body)
            connection.answer(status, "application/json", body)
            if self._world.down:
                self._cut_callers()
            return
        if not connection.is_callers:
            connection.is_callers = True
            self._world.log.connections += 1
        if TARGET in request.head.lower():
            self._serve_kms(connection, request)
            return
        call = read_request(request.head, request.body)

        def tell(ending: Ending, answer: Answer) -> None:
            self._tell(connection, call.action, ending, answer)

        self._world.take(call, tell)

    def _serve_kms(self, connection: Connection, request: HttpRequest) -> None:
        answer = None if self._world.down else self._world.kms.answer(request.head, request.body)
        if answer is not None:
            extra = self._world.extra_headers(self._world.new_request_id())
            connection.answer(answer[0], "application/x-amz-json-1.1", answer[1], extra=extra)
        elif self._world.down:
            connection.cut()

    def _tell(self, connection: Connection, action: str, ending: Ending, answer: Answer) -> None:
        match ending:
            case Ending.ANSWER:
                request_id = self._world.new_request_id()
                body = write_answer(action, answer, request_id)
                extra = self._world.extra_headers(request_id)
                connection.answer(answer.status, "text/xml", body, extra=extra)
            case Ending.HTML:
                connection.answer(answer.status, "text/html", _HTML)
            case Ending.REDIRECT:
                connection.answer(answer.status, "text/html", b"", extra=f"Location: {answer.message}\r\n")
            case Ending.CUT:
                connection.cut()
            case Ending.RESET:
                connection.cut(reset=True)
            case Ending.SILENCE:
                pass

    def _cut_callers(self) -> None:
        for connection in [one for one in self._opened if not one.is_control]:
            connection.cut()


async def serve(port: int, options: Options, *, until_eof: bool) -> None:
    """Serve on the loopback until cancelled, or until standard input ends where ``until_eof``."""
    loop = asyncio.get_running_loop()
    server = StandInServer(World(options, loop))
    listener = await loop.create_server(server.connect, "127.0.0.1", port, backlog=1024)
    stopped = asyncio.Event()
    if until_eof:
        loop.add_reader(sys.stdin.fileno(), stopped.set)
    sys.stdout.write(f"ready http://127.0.0.1:{listener.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await stopped.wait()


def main() -> None:
    """Run the server from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.standin", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds added to each answer")
    parser.add_argument("--account", default="123456789012", help="the account's 12 digits")
    parser.add_argument("--visible-after", type=float, default=0.0, help="seconds until a new user is found")
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input ends")
    given = parser.parse_args()
    options = Options(given.account, given.latency, given.visible_after)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(given.port, options, until_eof=given.until_eof))


if __name__ == "__main__":
    main()
