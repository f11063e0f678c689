"""What stands ready for a measurement: one backend, and servers, each started when a row first needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from tests.support.server_process import bare_environment

from bench import lessor as lessors
from bench import openbao as peers
from bench.backend import IAM, RABBITMQ
from bench.children import BenchError, Child, Json, child
from bench.h2load import Served, Target, load, load_each
from bench.lessor import BARE, TOKEN, Lessor
from bench.openbao import OpenBao
from bench.server import REAL
from bench.turns import Take, timed


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: rounds, requests a turn at 32 clients, leases, seconds of an even load.

    Plots of a full run are part of the repository; others are not.
    """

    rounds: int
    requests: int
    large: int
    storm: int
    seconds: int
    timers: int
    growth: tuple[int, ...]
    plots: Path


_GROWTH = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
FULL = Size(5, 600, 75_000, 100_000, 4, 1_000_000, _GROWTH, Path(__file__).parent / "plots")
QUICK = Size(2, 80, 600, 1_500, 2, 50_000, (100, 300, 1_000), Path("build") / "plots")


def report_progress(text: str) -> None:
    """Print a line on standard error, so that the figures can be kept alone."""
    print(f"    … {text}", file=sys.stderr, flush=True)


class World:
    """The backend, and the servers by name; all end with it."""

    def __init__(self, folder: Path, backend: Child, url: str) -> None:
        """Keep what servers need in ``folder``."""
        self._folder = folder
        self._backend = backend
        self._stacks: dict[str, ExitStack] = {}
        self._lessors: dict[str, Lessor] = {}
        self._openbao: OpenBao | None = None
        self.url = url

    # --- servers ----------------------------------------------------------------------------------------

    def environment(self, name: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the variables of the server of that name."""
        return lessors.environment(self._folder / name, self.url, more)

    def path(self, name: str) -> Path:
        """Return the place of a file that ends with the measurement."""
        return self._folder / name

    def lessor(self, name: str, parts: str = REAL, more: Mapping[str, str] | None = None) -> Lessor:
        """Return the server of that name, started and prepared where it is new."""
        if name not in self._lessors:
            prepared = (self._folder / name).exists()
            server = self._stack(name).enter_context(
                lessors.lessor(self.environment(name, more), self.path(f"{name}.log"), parts)
            )
            self._lessors[name] = server
            if not prepared:
                lessors.prepare(server, self.url)
        return self._lessors[name]

    def filled(
        self,
        name: str,
        role: str,
        count: int,
        *,
        expires_in: float = 0,
        more: Mapping[str, str] | None = None,
    ) -> tuple[Lessor, int]:
        """Return a server, restarted with ``count`` more leases, and when these expire (µs, 0: in a day)."""
        self.lessor(name, more=more).stop()
        self.end(name)
        report_progress(f"{name}: {count:,} leases are written")
        words = (role, str(count), str(expires_in))
        env = self.environment(name, more)
        expires_us = 0
        with child("bench.fill", *words, env=env, log=self.path(f"{name}-fill.log")) as filler:
            while "seconds" not in (said := filler.answer()):
                report_progress(f"{name}: {said['leases']:,}")
            expires_us = int(str(said["expires_us"]))
            filler.process.wait()
        server = self.lessor(name, more=more)
        if not expires_in:
            server.child.wait_until_idle()  # its start compares all leases with the account's users
        return server, expires_us

    def large(self, count: int) -> Lessor:
        """Return a server that was filled with ``count`` leases."""
        name = "large"
        return self.lessor(name) if self.path(name).exists() else self.filled(name, BARE, count)[0]

    def openbao(self) -> OpenBao:
        """Return the peer, started where it is not yet."""
        if self._openbao is None:
            running = peers.openbao(self._folder, self.url, bare_environment(("BAO_", "VAULT_")))
            self._openbao = self._stack("openbao").enter_context(running)
        return self._openbao

    def fill_openbao(self, count: int) -> OpenBao:
        """Return the peer with at least ``count`` leases."""
        peer = self.openbao()
        while (missing := count - self.living(RABBITMQ)) > 0:
            report_progress(f"OpenBao: {missing:,} leases to go")
            load(peer.credential(), 32, max(min(missing, 10_000), 32)).require_all()
        return peer

    def end(self, name: str) -> None:
        """End a server; its data stays, but the peer's is of no use."""
        self._stacks.pop(name).close()
        self._lessors.pop(name, None)
        if name == "openbao":
            self._openbao = None

    def end_all(self) -> None:
        """End all servers."""
        for name in list(self._stacks):
            self.end(name)

    def _stack(self, name: str) -> ExitStack:
        return self._stacks.setdefault(name, ExitStack())

    # --- the backend ------------------------------------------------------------------------------------

    def order(self, **order: float) -> None:
        """Change the backend: ``latency``, ``limit``, ``reset`` (``Backend.obey``)."""
        self._backend.ask(cast("Json", order))

    def living(self, side: str) -> int:
        """Return how many users live on one side of the backend."""
        return cast("dict[str, dict[str, int]]", self._backend.ask({}))["living"][side]

    def calls(self) -> dict[str, int]:
        """Return the calls by kind since the last reset."""
        return cast("dict[str, dict[str, int]]", self._backend.ask({}))["calls"]

    def highest_second(self) -> int:
        """Return the most calls of IAM that came within one second since the last reset."""
        return cast("int", self._backend.ask({})["peak"])

    def backend_ms(self, take: Take) -> float:
        """Return the CPU of one backend call, in milliseconds, during a turn."""
        self.order(reset=1)
        before = self._backend.cpu_seconds()
        take()
        return (self._backend.cpu_seconds() - before) * 1e3 / sum(self.calls().values())

    # --- loads ------------------------------------------------------------------------------------------

    def issuing(self, server: Lessor, role: str, clients: int, count: int, token: str = TOKEN) -> Take:
        """Return a turn of credentials of Lessor, each of which must live afterwards."""
        return self._turn(server.child, IAM, lambda: load(server.credential(role, token), clients, count))

    def issuing_over_http(self, server: Lessor, role: str, clients: int, count: int) -> Take:
        """Return a turn of credentials of Lessor by Vault's API, each of which must live afterwards."""
        return self._turn(server.child, IAM, lambda: load(server.credential_over_http(role), clients, count))

    def issuing_peer(self, clients: int, count: int) -> Take:
        """Return a turn of credentials of OpenBao, each of which must live afterwards."""
        peer = self.openbao()
        return self._turn(peer.child, RABBITMQ, lambda: load(peer.credential(), clients, count))

    def _turn(self, server: Child, side: str, run: Callable[[], Served]) -> Take:
        return lambda: timed(server, lambda: self.counted(side, run))

    def counted(self, side: str, run: Callable[[], Served]) -> Served:
        """Run a load of credentials; raises ``BenchError`` unless as many users live as were asked for."""
        before = self.living(side)
        served = run().require_all()
        made = self.living(side) - before
        if made != len(served.spans):
            raise BenchError(f"{len(served.spans)} credentials were asked for, and {made} users live")
        return served


def asking(server: Child, target: Target, clients: int, count: int, message_bytes: int = 5) -> Take:
    """Return a turn of requests that make nothing; each must have a message of that size."""
    return lambda: timed(server, lambda: load(target, clients, count).require_all(message_bytes))


def asking_each(server: Child, targets: Sequence[Target], count: int) -> Take:
    """Return a turn of requests about leases, one client for each; a lease is longer than 40 bytes."""
    return lambda: timed(server, lambda: load_each(targets, count).require_all(40))


@contextmanager
def standing() -> Iterator[World]:
    """Start the backend, and end all with the block."""
    with TemporaryDirectory(prefix="lessor-bench-") as name:
        folder = Path(name)
        with child("bench.backend", env=bare_environment(), log=folder / "backend.log") as backend:
            world = World(folder, backend, str(backend.answer()["url"]))
            try:
                yield world
            finally:
                world.end_all()
