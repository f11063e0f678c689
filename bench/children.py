"""Child processes of a measurement: how they start and end, how they are asked, and the CPU they take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

_TREE = Path(__file__).resolve().parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 30.0

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Child:
    """A running process that may be asked in lines of JSON on its standard streams."""

    process: subprocess.Popen[str]

    def cpu_seconds(self) -> float:
        """Return the user and system time of all its threads so far (proc(5), ``/proc/PID/stat``)."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8")
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def ask(self, order: Json) -> Json:
        """Send one order and return the answer; RuntimeError where the process has gone away."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{' '.join(cast('list[str]', self.process.args))} has ended")
        return cast("Json", json.loads(answer))


@contextmanager
def child(module: str, *words: str, env: Mapping[str, str], log: Path) -> Iterator[Child]:
    """Run ``python -m module words`` for the length of the block, its standard error in ``log``."""
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            [sys.executable, "-m", module, *words],
            cwd=_TREE,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            yield Child(process)
        finally:
            process.kill()


@contextmanager
def lessor_server(variant: str, folder: Path, env: Mapping[str, str]) -> Iterator[tuple[Child, str]]:
    """Run a server of ``bench.server`` on a free port and yield it with its address."""
    log = folder / f"{variant}.log"
    data = folder / variant
    own = {**env, "LESSOR_LISTEN": "127.0.0.1:0", "LESSOR_DATA_DIR": str(data), "LESSOR_LOG_FORMAT": "json"}
    parts = variant.partition("-")[0]
    with child("bench.server", parts, env=own, log=log) as server:
        yield server, _address(server, log)


def _address(server: Child, log: Path) -> str:
    """Wait until the log says where the server listens."""
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and server.process.poll() is None:
        for line in log.read_text(encoding="utf-8").splitlines():
            if '"event": "serving"' in line:
                return str(json.loads(line)["address"])
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text(encoding='utf-8')}")
