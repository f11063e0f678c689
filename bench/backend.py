"""What both servers call: IAM and STS, and RabbitMQ's management API, in one process at one price.

``python -m bench.backend`` prints ``{"url": …}``, then obeys one order a line on its standard input and
answers each with its state (``Backend.obey``). It checks no signature. A deletion succeeds also where no such
user lives: a store that was filled has leases of users that were never created here.

Sources: IAM and STS API references (query protocol); RabbitMQ, "Management HTTP API", ``/api/users`` and
``/api/permissions``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter, deque
from email.utils import formatdate
from itertools import count

import uvloop
from tests.support.standin_http import Connection, HttpRequest

from bench.children import Json

IAM, RABBITMQ = "iam", "rabbitmq"
"""The two sides, whose living users are counted apart."""
_ACCOUNT = "123456789012"
_XML, _JSON = "text/xml", "application/json"
_THROTTLED = (
    b"<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded</Message>"
    b"</Error><RequestId>0</RequestId></ErrorResponse>"
)
_METADATA = "<ResponseMetadata><RequestId>0</RequestId></ResponseMetadata>"
_LISTS = {
    "ListAccessKeys": "AccessKeyMetadata",
    "ListUserPolicies": "PolicyNames",
    "ListAttachedUserPolicies": "AttachedPolicies",
    "ListGroupsForUser": "Groups",
    "ListMFADevices": "MFADevices",
    "ListSSHPublicKeys": "SSHPublicKeys",
    "ListSigningCertificates": "Certificates",
    "ListServiceSpecificCredentials": "ServiceSpecificCredentials",
    "ListUsers": "Users",
}


class Backend:
    """Counts calls by kind, and keeps the names of the users that live."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer at once and all."""
        self._loop = loop
        self._keys = count(1)
        self._opened: set[Connection] = set()
        self._living: dict[str, set[str]] = {IAM: set(), RABBITMQ: set()}
        self._calls: Counter[str] = Counter()
        self._second: deque[float] = deque()
        self._peak = 0
        self._latency = 0.0
        self._limit = 0.0
        self._date = (0, "")

    def connect(self) -> Connection:
        """Make the protocol of one new connection."""
        return Connection(self._serve, self._opened)

    def obey(self, order: Json) -> Json:
        """Change what the order names, and return the state.

        ``latency`` in seconds a call; ``limit`` in calls of IAM within any second, 0 for none; ``reset``
        counts calls, and the highest second, from now on.
        """
        self._latency = float(str(order.get("latency", self._latency)))
        self._limit = float(str(order.get("limit", self._limit)))
        if order.get("reset"):
            self._calls.clear()
            self._second.clear()
            self._peak = 0
        living = {side: len(names) for side, names in self._living.items()}
        return {"calls": dict(self._calls), "living": living, "peak": self._peak}

    def _serve(self, connection: Connection, request: HttpRequest) -> None:
        answer = self._rabbitmq(request) if request.target.startswith("/api/") else self._iam(request.body)
        if self._latency:
            self._loop.call_later(self._latency, self._answer, connection, *answer)
        else:
            self._answer(connection, *answer)

    def _answer(self, connection: Connection, status: int, content_type: str, body: bytes) -> None:
        """Answer with the time, by which a server judges its own clock."""
        second = int(time.time())
        if second != self._date[0]:
            self._date = second, f"Date: {formatdate(second, usegmt=True)}\r\n"
        connection.answer(status, content_type, body, extra=self._date[1])

    # --- RabbitMQ ---------------------------------------------------------------------------------------

    def _rabbitmq(self, request: HttpRequest) -> tuple[int, str, bytes]:
        _, _, kind, name = request.target.split("/", 3)
        self._calls[f"{request.method} {kind}"] += 1
        if kind == "users" and request.method == "PUT":
            self._living[RABBITMQ].add(name)
        elif kind == "users" and request.method == "DELETE":
            self._living[RABBITMQ].discard(name)
        return (204 if request.method == "DELETE" else 201), _JSON, b""

    # --- IAM and STS ------------------------------------------------------------------------------------

    def _iam(self, body: bytes) -> tuple[int, str, bytes]:
        action = _param(body, b"Action")
        self._calls[action] += 1
        if self._is_throttled():
            self._calls["throttled"] += 1
            return 400, _XML, _THROTTLED
        user = _param(body, b"UserName")
        if action == "CreateUser":
            self._living[IAM].add(user)
        elif action == "DeleteUser":
            self._living[IAM].discard(user)
        result = f"<{action}Result>{self._result(action, user)}</{action}Result>"
        return 200, _XML, f"<{action}Response>{result}{_METADATA}</{action}Response>".encode()

    def _is_throttled(self) -> bool:
        """Count this call in the second that ends now; tell whether that is above the limit."""
        now, second = self._loop.time(), self._second
        while second and second[0] <= now - 1:
            second.popleft()
        if self._limit and len(second) >= self._limit:
            self._peak = max(self._peak, len(second) + 1)
            return True
        second.append(now)
        self._peak = max(self._peak, len(second))
        return False

    def _result(self, action: str, user: str) -> str:
        arn = f"arn:aws:iam::{_ACCOUNT}:user/{user}"
        match action:
            case "CreateUser" | "GetUser":
                made = f"<Arn>{arn}</Arn><CreateDate>2026-01-01T00:00:00Z</CreateDate>"
                named = f"<Path>/</Path><UserName>{user}</UserName><UserId>AIDAEXAMPLEEXAMPLE01</UserId>"
                return f"<User>{named}{made}</User>"
            case "CreateAccessKey":
                key = f"<AccessKeyId>AKIAEXAMPLE{next(self._keys):09}</AccessKeyId><Status>Active</Status>"
                secret = "<SecretAccessKey>an-example-and-no-key</SecretAccessKey>"
                return f"<AccessKey><UserName>{user}</UserName>{key}{secret}</AccessKey>"
            case "GetCallerIdentity":
                return (
                    f"<Arn>{arn}root</Arn><UserId>AIDAEXAMPLEEXAMPLE01</UserId><Account>{_ACCOUNT}</Account>"
                )
            case _ if action in _LISTS:
                return f"<{_LISTS[action]}/><IsTruncated>false</IsTruncated>"
            case _:
                return ""


def _param(body: bytes, name: bytes) -> str:
    """Return a parameter of a form; the names of actions and users need no decoding."""
    start = 0
    while not body.startswith(name + b"=", start):
        start = body.find(b"&", start) + 1
        if not start:
            return ""
    start += len(name) + 1
    end = body.find(b"&", start)
    return body[start : end if end >= 0 else None].decode()


async def main() -> None:
    """Serve on a free port of the loopback until standard input ends."""
    loop = asyncio.get_running_loop()
    backend = Backend(loop)
    listener = await loop.create_server(backend.connect, "127.0.0.1", 0, backlog=1024)
    print(json.dumps({"url": f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"}), flush=True)
    ended = asyncio.Event()

    def read() -> None:
        if line := sys.stdin.readline():
            print(json.dumps(backend.obey(json.loads(line))), flush=True)
        else:
            ended.set()

    loop.add_reader(sys.stdin.fileno(), read)
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(main())
