"""Processes of a measurement: how they start and end, how they are asked, what CPU and memory they take."""

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

Json = dict[str, object]


class BenchError(RuntimeError):
    """A row can't be measured, or what was measured is not what was asked for."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running process; it may be asked in lines of JSON on its standard streams."""

    process: subprocess.Popen[str]
    log: Path

    def cpu_seconds(self) -> float:
        """Return the user and system time of all its threads so far (proc(5), ``/proc/PID/stat``)."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8")
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def wait_until_idle(self) -> None:
        """Wait until it takes less than 2 % of a core for a second, but not longer than ten minutes."""
        for _ in range(600):
            before = self.cpu_seconds()
            time.sleep(1.0)
            if self.cpu_seconds() - before < 0.02:
                return
        raise BenchError(f"process {self.process.pid} does not become idle")

    def resident_bytes(self) -> int:
        """Return its resident memory without pages of files, which the system may drop (``RssAnon``)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
        return int(line.split()[1]) * 1024

    def ask(self, order: Json) -> Json:
        """Send one order and return the answer; raises ``BenchError`` where the process has gone away."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> Json:
        """Read one line; raises ``BenchError`` where the process has gone away."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self.ended()
        return cast("Json", json.loads(line))

    def ended(self) -> BenchError:
        """Return the error of a process that has ended before its time, with the end of what it wrote."""
        words = " ".join(map(str, cast("list[str]", self.process.args)))
        return BenchError(f"{words} has ended: {self.log.read_text(encoding='utf-8')[-2000:]}")


@contextmanager
def program(*words: str, env: Mapping[str, str], log: Path) -> Iterator[Child]:
    """Run a program for the length of the block, its standard error in ``log``."""
    with (
        log.open("a", encoding="utf-8") as errors,
        subprocess.Popen(
            words,
            cwd=_TREE,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            yield Child(process, log)
        finally:
            process.kill()


@contextmanager
def child(module: str, *words: str, env: Mapping[str, str], log: Path) -> Iterator[Child]:
    """Run ``python -m module words`` for the length of the block."""
    with program(sys.executable, "-m", module, *words, env=env, log=log) as one:
        yield one
