"""A worker of ``lessor server --workers``: its settings, and its link to the supervisor.

The supervisor passes one end of a socket pair as standard input. The worker writes a byte to it when it
serves. When the other end is closed the supervisor has ended, and the worker drains.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass, replace
from typing import Final

from lessor_server.settings.model import Settings
from lessor_server.settings.parsers import Address

READY: Final = b"1"


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Which worker this is, from 1, and the ports of its listeners in their order; 0 for a unix socket.

    That of HTTP is the last, if there is one.
    ``supervisor`` is a name that no other supervisor on the machine has.
    """

    number: int
    ports: tuple[int, ...]
    supervisor: str

    @classmethod
    def parse(cls, text: str) -> WorkerPlace:
        """Read ``NUMBER:PORT,PORT:SUPERVISOR``, which only the supervisor writes."""
        number, ports, supervisor = text.split(":")
        return cls(int(number), tuple(int(port) for port in ports.split(",")), supervisor)

    def __str__(self) -> str:
        """Return it as ``parse`` reads it."""
        return f"{self.number}:{','.join(map(str, self.ports))}:{self.supervisor}"

    @property
    def metrics_socket(self) -> str:
        """Return the name of the abstract unix socket of its metrics."""
        return f"lessor-worker/{self.supervisor}/{self.number}"

    def apply(self, settings: Settings) -> Settings:
        """Return the settings of this worker: it shares ports, and has an audit file of its own.

        Its metrics, if they are on, are on a socket of its own: the supervisor shows those of all workers.
        """
        listen = tuple(
            replace(one, address=replace(one.address, port=port))
            for one, port in zip(settings.listen, self.ports, strict=False)
        )
        changes: dict[str, object] = {"listen": listen, "worker": self.number}
        http = settings.http.listen
        if http is not None:
            shared = replace(http, address=replace(http.address, port=self.ports[-1]))
            changes["http"] = settings.http.model_copy(update={"listen": shared})
        file = settings.audit.file
        if file is not None:
            own = file.with_name(f"{file.name}.{self.number}")
            changes["audit"] = settings.audit.model_copy(update={"file": own})
        if settings.metrics.listen is not None:
            own_socket = Address(path=self.metrics_socket)
            changes["metrics"] = settings.metrics.model_copy(update={"listen": own_socket})
        return settings.model_copy(update=changes)


def report_ready() -> None:
    """Report to the supervisor that this worker serves; drain when the supervisor ends."""
    try:
        os.write(sys.stdin.fileno(), READY)
    except OSError:
        os.kill(os.getpid(), signal.SIGTERM)
        return
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _on_input)


def _on_input() -> None:
    """Drain at the end of input; nothing else comes."""
    try:
        ended = not os.read(sys.stdin.fileno(), 1)
    except OSError:
        ended = True
    if ended:
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        os.kill(os.getpid(), signal.SIGTERM)
