"""The agent: keeps credentials of several roles valid, and serves them on an endpoint and in files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from lessor.channel import BadConnection
from lessor.errors import Error
from lessor.leasing.agent_config import AgentConfig, FileSpec, RoleName, content_of
from lessor.leasing.child import Signals
from lessor.leasing.clock import wait_until
from lessor.leasing.endpoint import Endpoint, Reply, draw_token, is_loopback, own_host_and_localhost
from lessor.leasing.environment import TOKENS
from lessor.leasing.execution import reply_with, warn_if_short
from lessor.leasing.ini_sections import with_section
from lessor.leasing.issued import Order
from lessor.leasing.private_files import FILE_MODE, write_atomically
from lessor.leasing.refreshed import Plan, RefreshedLease, Tools
from lessor.refresh import SDK_LEFT, retry_pause

READY: Final = "/ready"
EXEC_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 10.0
MIN_TOKEN: Final = 16


class BadToken(ValueError):
    """The token file can't be used; the text says the fix."""


@dataclass(frozen=True, slots=True, repr=False)
class Served:
    """What callers of the endpoint need to know."""

    url: str
    token: str
    names: tuple[RoleName, ...]

    def uri(self, name: RoleName) -> str:
        """Return the URL of a role's credentials."""
        return f"{self.url}{name.path}"


def token_of(path: Path | None) -> str:
    """Return the token in a file, which is created if it does not exist; without a file a new token.

    Raises:
        BadToken: The file can't be read or written, or has no token.
    """
    if path is None:
        return draw_token()
    try:
        with suppress(FileExistsError):
            token = draw_token()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags, FILE_MODE), "w", encoding="ascii") as file:
                file.write(token)  # SDKs refuse a token file with a line end
            return token
        found = path.read_bytes().decode("ascii", "replace").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise BadToken(f"{path} can't be used: {error.strerror}; name a readable file") from None
    if len(found) < MIN_TOKEN or not found.isascii() or not found.isprintable() or " " in found:
        raise BadToken(
            f"{path} has no token of {MIN_TOKEN} or more printable characters; delete it, and a new token is "
            "written"
        )
    return found


class Agent:
    """Refreshes the credentials of each role, and answers from memory."""

    def __init__(self, config: AgentConfig, tools: Tools, environ: Mapping[str, str]) -> None:
        """Serve the roles of ``config``; ``environ`` is that of the programs that files run."""
        self._config = config
        self._tools = tools
        self._environ = {name: value for name, value in environ.items() if name not in TOKENS}
        self._changes: dict[FileSpec, asyncio.Event] = {spec: asyncio.Event() for spec in config.files}
        self._written: set[FileSpec] = set()
        self._leases: dict[str, RefreshedLease] = {}
        self._settled: dict[str, asyncio.Event] = {}
        self._refusal: Error | BadConnection | None = None
        self._stopped = asyncio.Event()
        for name in config.all_names:
            order = Order(name.mount, name.role, config.wait_usable, {"ttl": config.ttl})
            plan = Plan(order, SDK_LEFT)
            self._settled[name.path] = asyncio.Event()
            self._leases[name.path] = RefreshedLease(plan, tools, partial(self._note, name))

    async def run(self, started: Callable[[Served], object]) -> None:
        """Serve until a signal asks for the end; then revoke the leases, unless they are to be kept.

        Raises:
            Error: The server refused a role at the start.
            BadConnection: The connection's settings are not usable.
            OSError: The address can't be listened on.
            BadToken: The token file can't be used.
        """
        signals = Signals()
        with signals.handled(), signals.ends(self._stopped.set):
            async with self._listening(started):
                try:
                    async with asyncio.TaskGroup() as group:
                        tasks = [group.create_task(self._keep(path)) for path in self._leases]
                        tasks += [group.create_task(self._keep_file(spec)) for spec in self._config.files]
                        await self._stopped.wait()
                        if self._refusal is not None:
                            await self._settle()
                        for task in tasks:
                            task.cancel()
                finally:
                    if not self._config.keep:
                        with signals.hastens(self._hurry):
                            await self._revoke_all()
        if self._refusal is not None:
            raise self._refusal

    async def _settle(self) -> None:
        """Wait until no issue is on its way any more, so that its lease can be revoked."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                for settled in self._settled.values():
                    await settled.wait()

    async def _revoke_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for lease in self._leases.values():
                group.create_task(lease.revoke_all())

    def _hurry(self) -> None:
        for lease in self._leases.values():
            lease.hurried = True

    @asynccontextmanager
    async def _listening(self, started: Callable[[Served], object]) -> AsyncIterator[None]:
        """Serve the endpoint during the block."""
        host, port = self._config.address()
        if not is_loopback(host):
            self._tools.report(
                f"warning: {host} is not a loopback address: credentials cross a network unencrypted"
            )
        token = token_of(self._config.token_file)
        endpoint = Endpoint(token, self._answer, lambda path: path == READY)
        async with endpoint.listen(host, port, own_host_and_localhost) as bound:
            shown = f"[{host}]" if ":" in host else host
            started(Served(f"http://{shown}:{bound}", token, self._config.all_names))
            yield

    def _answer(self, path: str) -> Reply:
        """Return the reply to a request."""
        if path == READY:
            missing = [one for one, lease in self._leases.items() if lease.current is None]
            unwritten = [str(spec.path) for spec in self._config.files if spec not in self._written]
            if missing or unwritten:
                return Reply.refuse(503, "NotReady", f"waiting for {', '.join([*missing, *unwritten][:5])}")
            return Reply(200, {"ready": True})
        lease = self._leases.get(path)
        if lease is None:
            return Reply.refuse(404, "NotFound", "this role is not served; add it with --role MOUNT/ROLE")
        return reply_with(lease, self._tools)

    def _note(self, name: RoleName, _: RefreshedLease) -> None:
        """Let the files of a role be written."""
        for spec, event in self._changes.items():
            if spec.name == name:
                event.set()

    async def _keep(self, path: str) -> None:
        """Issue the credentials of a role and keep them valid; if the first are refused, end the agent."""
        lease = self._leases[path]
        try:
            await lease.issue_when_reachable()
        except (Error, BadConnection) as error:
            self._refusal = error
            self._stopped.set()
            return
        finally:
            self._settled[path].set()
        warn_if_short(lease, self._tools)
        if all(one.current is not None for one in self._leases.values()):
            self._tools.report("every role has credentials")
        await lease.run()

    async def _keep_file(self, spec: FileSpec) -> None:
        """Write a file after each change, and try again after a failure."""
        tries = 0
        while True:
            await self._changes[spec].wait()
            self._changes[spec].clear()
            try:
                changed = self._write(spec)
            except (OSError, LookupError, ValueError) as error:
                self._tools.report(f"warning: {spec.path} can't be written: {error}; retrying")
                pause = retry_pause(tries, self._tools.rng.uniform(0, 1))
                await wait_until(self._tools.clock, self._tools.clock.now() + pause)
                self._changes[spec].set()
                tries += 1
                continue
            tries = 0
            self._written.add(spec)
            if changed and spec.words:
                await self._run_after(spec)

    def _write(self, spec: FileSpec) -> bool:
        """Write a file if its content is not the current one, and return whether it was written."""
        issued = self._leases[spec.name.path].current
        if issued is None:
            return False
        before = spec.path.read_text(encoding="utf-8") if spec.path.exists() else None
        content = content_of(spec, issued)
        text = content if isinstance(content, str) else with_section(before or "", spec.profile, content)
        if text == before and spec in self._written:
            return False
        write_atomically(Path(os.path.realpath(spec.path)), text.encode(), spec.mode, spec.owner)
        return text != before

    async def _run_after(self, spec: FileSpec) -> None:
        """Run the program of a file, and report if it fails."""
        try:
            child = await asyncio.create_subprocess_exec(
                *spec.words, env=self._environ, stdin=asyncio.subprocess.DEVNULL
            )
        except (OSError, ValueError) as error:
            self._tools.report(
                f"warning: {spec.words[0]} can't be executed after {spec.path} changed: {error}"
            )
            return
        try:
            async with asyncio.timeout(EXEC_SECONDS):
                code = await child.wait()
        except TimeoutError:
            code = None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if code != 0:
            ended = f"did not end within {EXEC_SECONDS:g} s" if code is None else f"ended with {code}"
            self._tools.report(f"warning: {spec.words[0]}, run after {spec.path} changed, {ended}")
