"""Reports the state of the process to systemd, if it started the process and asks for that (``Type=notify``).

Source: systemd, sd_notify(3): a datagram to the unix socket that ``NOTIFY_SOCKET`` names.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress

VARIABLE = "NOTIFY_SOCKET"
READY, STOPPING = "READY=1", "STOPPING=1"
_SECONDS = 1.0


class ServiceManager:
    """Sends states to the socket in the environment; without one nothing is sent."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read the path; ``@`` begins the name of an abstract socket."""
        path = environ.get(VARIABLE, "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path

    def report(self, state: str) -> None:
        """Send a state; systemd's own time limits count if it does not arrive."""
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.settimeout(_SECONDS)
            connection.sendto(state.encode(), self._address)
