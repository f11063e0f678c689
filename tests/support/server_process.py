"""Runs ``lessor server`` in a separate process, as a user would, on a port that the system chooses.

    server = ServerProcess()
    await server.start(tmp_path, {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url})
    ... server.address, server.token, server.client_env ...
    await server.kill()                 # SIGKILL; start() again finds the same data
    await server.start(tmp_path)
    assert await server.stop() == 0     # SIGTERM; drains

``async with serving(tmp_path, overrides) as server`` does both ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import signal
import subprocess
import termios
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.forked import Forked, forked

TOKEN = "the-root-token-of-tests"
START_SECONDS, STOP_SECONDS = 30.0, 30.0
COMMAND = ("-m", "lessor.cli.main", "server")


class ServerProcess:
    """A real server over ``tmp_dir/data``; ``log_file`` holds every line that it wrote.

    Attributes:
        token: The root token; the override ``LESSOR_ROOT_TOKEN`` changes it.
        address: Where it listens: ``127.0.0.1:PORT``, or ``unix:/path`` where the overrides say so.
        port: The port of ``address``; 0 at a socket file.
        data_dir: Its data directory, which outlives it.
        log_file: ``tmp_dir/server.log``, appended to at each start.
    """

    def __init__(self) -> None:
        """Begin with no process."""
        self.token = TOKEN
        self.address = ""
        self.data_dir = Path()
        self._log_file = Path()
        self._copying = threading.Lock()
        self._process: Forked | None = None
        self._reader: threading.Thread | None = None

    @property
    def port(self) -> int:
        """Return the port that the system chose."""
        return 0 if self.address.startswith("unix:") else int(self.address.rpartition(":")[2])

    @property
    def http_url(self) -> str:
        """Return the URL of its HTTP edge, which ``LESSOR_HTTP_LISTEN`` turns on."""
        return str(next(line["http"] for line in reversed(self.log()) if line.get("event") == "serving"))

    @property
    def pid(self) -> int:
        """Return the process id of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def log_file(self) -> Path:
        """Return the log file; it has everything that the server wrote before its last response."""
        process = self._process
        while process is not None and not process.output.closed:
            with self._copying:
                waiting = bytearray(4)
                try:
                    fcntl.ioctl(process.output.fileno(), termios.FIONREAD, waiting)
                except (OSError, ValueError):  # closed meanwhile
                    break
                if not any(waiting):
                    break
            select.select([], [], [], 0.001)
        return self._log_file

    @property
    def client_env(self) -> dict[str, str]:
        """Return the variables by which a client finds this server."""
        return {"LESSOR_ADDR": self.address, "LESSOR_TOKEN": self.token}

    def log(self) -> list[dict[str, object]]:
        """Return the server's log so far, one dict for each line, without lines that are not JSON."""
        lines = self.log_file.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def start(
        self,
        tmp_dir: Path,
        env_overrides: Mapping[str, str] | None = None,
        *options: str,
        without: Iterable[str] = (),
    ) -> None:
        """Start the server and wait until its port accepts; RuntimeError with its output if it ends."""
        assert self._process is None, "it runs already"
        self.data_dir, self._log_file = tmp_dir / "data", tmp_dir / "server.log"
        env = _environment(self.data_dir, env_overrides or {})
        self.token = env["LESSOR_ROOT_TOKEN"]
        env = {name: value for name, value in env.items() if name not in without}
        loop = asyncio.get_running_loop()
        serving: asyncio.Future[str] = loop.create_future()
        self._process = process = forked(["server", *options], env)
        self._reader = threading.Thread(target=self._read, args=(process, loop, serving), daemon=True)
        self._reader.start()
        try:
            async with asyncio.timeout(START_SECONDS):
                self.address = await serving
                await _connect(self.address)
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> int:
        """Send SIGTERM, wait until the server has drained, and return its exit code."""
        assert self._process is not None
        self._process.terminate()
        return await self._ended()

    def hang_up(self) -> None:
        """Send SIGHUP."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end; do nothing if no process runs."""
        if self._process is not None:
            self._process.kill()
            await self._ended()

    async def _ended(self) -> int:
        process, reader = self._process, self._reader
        assert process is not None
        assert reader is not None
        try:
            code = await asyncio.to_thread(process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        await asyncio.to_thread(reader.join)
        self._process = self._reader = None
        return code

    def _read(self, process: Forked, loop: asyncio.AbstractEventLoop, serving: asyncio.Future[str]) -> None:
        """Copy the output to the file, in a thread; set ``serving`` to the address or an error."""
        seen, told = b"", False
        descriptor = process.output.fileno()
        with process.output, self._log_file.open("ab", buffering=0) as file:
            while select.select([descriptor], [], [])[0]:
                with self._copying:
                    data = os.read(descriptor, 1 << 16)
                    file.write(data)
                if not data:
                    break
                if not told:
                    seen += data
                    lines = seen.decode(errors="replace").splitlines()
                    complete = lines if seen.endswith(b"\n") else lines[:-1]
                    if address := next(filter(None, map(_address_of, complete)), ""):
                        told = True
                        loop.call_soon_threadsafe(_settle, serving, address, None)
        if not told:
            error = RuntimeError(f"the server did not start:\n{seen.decode(errors='replace')}")
            loop.call_soon_threadsafe(_settle, serving, "", error)


@asynccontextmanager
async def serving(
    tmp_dir: Path, env_overrides: Mapping[str, str] | None = None, *, without: Iterable[str] = ()
) -> AsyncIterator[ServerProcess]:
    """Run a server for the duration of the block, ``without`` some variables; it is killed at the end."""
    server = ServerProcess()
    await server.start(tmp_dir, env_overrides, without=without)
    try:
        yield server
    finally:
        await server.kill()


def bare_environment(dropped: Iterable[str] = ("LESSOR_", "AWS_", "GRPC_")) -> dict[str, str]:
    """Return this process's environment without what would change Lessor, AWS libraries or gRPC."""
    return {name: value for name, value in os.environ.items() if not name.startswith(tuple(dropped))}


def _environment(data_dir: Path, overrides: Mapping[str, str]) -> dict[str, str]:
    return {
        **bare_environment(),
        "AWS_EC2_METADATA_DISABLED": "true",
        "LESSOR_LISTEN": "127.0.0.1:0",
        "LESSOR_DATA_DIR": str(data_dir),
        "LESSOR_ROOT_TOKEN": TOKEN,
        "LESSOR_LOG_FORMAT": "json",
        **overrides,
    }


def _address_of(line: str) -> str:
    """Return the address of the line "serving", or an empty text for any other line."""
    if not line.startswith("{"):
        return ""
    record = json.loads(line)
    return str(record["address"]) if record.get("event") == "serving" else ""


def _settle(serving: asyncio.Future[str], address: str, error: Exception | None) -> None:
    if serving.done():
        return
    if error is None:
        serving.set_result(address)
    else:
        serving.set_exception(error)


async def _connect(address: str) -> None:
    """Open and close one connection."""
    if address.startswith("unix:"):
        _, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.close()
    await writer.wait_closed()
