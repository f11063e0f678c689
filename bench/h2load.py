"""The load: h2load (nghttp2), which takes little CPU and speaks to both servers.

HTTP/1.1 to OpenBao; HTTP/2 to gRPC, a framed message as the posted file. A refused call of gRPC has the
status 200 and no message: a caller must check the bytes of the answers, or count what lives in the backend.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from bench.children import BenchError

BINARY = "h2load"
MISSING = "needs h2load: apt-get install nghttp2-client"
_WAIT_SECONDS = 1800.0
_DATA = re.compile(r"\((\d+)\) data$", re.MULTILINE)


def is_there() -> bool:
    """Return whether h2load is installed."""
    return shutil.which(BINARY) is not None


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of request: GET without a ``body``, else POST; ``grpc`` where it is HTTP/2."""

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    grpc: bool = False

    @classmethod
    def of_grpc(cls, address: str, method: str, token: str, message: bytes) -> Target:
        """Return a unary call of ``method``, such as ``lessor.v1.SystemService/WhoAmI``."""
        headers = (
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("authorization", f"Bearer {token}"),
        )
        framed = b"\0" + len(message).to_bytes(4, "big") + message
        return cls(f"http://{address}/{method}", headers, framed, grpc=True)


@dataclass(frozen=True, slots=True)
class Served:
    """How a load was answered: start and length of each answer in microseconds, and the bytes of messages."""

    spans: tuple[tuple[int, int], ...]
    failed: int
    data_bytes: int

    @property
    def seconds(self) -> float:
        """Return the time from the first request to the last answer."""
        start = min(start for start, _ in self.spans)
        return (max(start + span for start, span in self.spans) - start) / 1e6

    @property
    def rate(self) -> float:
        """Return answers a second."""
        return len(self.spans) / self.seconds

    @property
    def p50_ms(self) -> float:
        """Return the median time of an answer."""
        return median(span for _, span in self.spans) / 1e3

    @property
    def p99_ms(self) -> float:
        """Return the time within which 99 of 100 answers came."""
        return quantiles((span for _, span in self.spans), n=100, method="inclusive")[98] / 1e3

    @property
    def longest_ms(self) -> float:
        """Return the time of the slowest answer."""
        return max(span for _, span in self.spans) / 1e3

    def require_all(self, message_bytes: int = 0) -> Served:
        """Return itself; raises ``BenchError`` if a request failed, or messages were shorter than that."""
        if self.failed or self.data_bytes < message_bytes * len(self.spans):
            raise BenchError(
                f"{self.failed} of {len(self.spans)} requests failed; messages had {self.data_bytes} bytes"
            )
        return self


@dataclass(frozen=True, slots=True)
class Run:
    """A load that runs in a process of its own."""

    process: subprocess.Popen[str]
    folder: TemporaryDirectory[str] = field(repr=False)

    def wait(self) -> Served:
        """Wait until all answers came, and return them."""
        output, _ = self.process.communicate(timeout=_WAIT_SECONDS)
        if self.process.returncode:
            raise BenchError(f"h2load failed: {output}")
        log = (Path(self.folder.name) / "log").read_text(encoding="utf-8")
        self.folder.cleanup()
        return read(log, output)


def read(log: str, output: str) -> Served:
    """Read h2load's log file (start, status, length; tab-separated) and the bytes of messages it prints."""
    rows = [tuple(map(int, line.split("\t")[:3])) for line in log.splitlines()]
    spans = tuple((start, span) for start, _, span in rows)
    found = _DATA.search(output)
    if not spans or found is None:
        raise BenchError(f"h2load answered nothing: {output}")
    return Served(spans, sum(not 200 <= status < 300 for _, status, _ in rows), int(found[1]))


def start(target: Target, clients: int, count: int, *, rate: int = 0) -> Run:
    """Start ``count`` requests of ``clients``, each with a connection of its own.

    With ``rate`` requests a second arrive evenly spaced, as long as answers take less than clients / rate
    seconds; else each client asks again once answered.
    """
    folder = TemporaryDirectory(prefix="lessor-h2load-")
    words = [BINARY, "-n", str(count), "-c", str(clients), f"--log-file={folder.name}/log"]
    if not target.grpc:
        words.append("--h1")
    if target.body:
        body = Path(folder.name) / "body"
        body.write_bytes(target.body)
        words.append(f"--data={body}")
    if rate:
        gap_us = max(round(1e6 / rate), 1)
        words += [f"--rps={rate / clients}", "--rate=1", f"--rate-period={max(gap_us // 1000, 1)}ms"]
    for name, value in target.headers:
        words += ["-H", f"{name}: {value}"]
    process = subprocess.Popen(
        [*words, target.url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return Run(process, folder)


def load(target: Target, clients: int, count: int) -> Served:
    """Make ``count`` requests with ``clients`` at a time."""
    return start(target, clients, count).wait()


def arrive(target: Target, rate: int, seconds: float) -> Served:
    """Let requests arrive at a rate, each client ten a second."""
    return start(target, max(rate // 10, 1), round(rate * seconds), rate=rate).wait()


def load_each(targets: Sequence[Target], count: int) -> Served:
    """Make ``count`` requests in all, one client and process for each target."""
    runs = [start(target, 1, count // len(targets)) for target in targets]
    served = [run.wait() for run in runs]
    spans = tuple(span for one in served for span in one.spans)
    return Served(spans, sum(one.failed for one in served), sum(one.data_bytes for one in served))
