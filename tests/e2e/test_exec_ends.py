"""Checks how ``lessor exec`` ends: signals, terminals that hang up, kills, and servers that are away."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import shlex
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from lessor.v1 import lease_pb2
from tests.support.clients import Lessor, connect, until, users_of
from tests.support.command_line import CommandLine
from tests.support.exec_world import all_gone, at_home, ended, home, line, states
from tests.support.own_server import own_server
from tests.support.server_process import ServerProcess, bare_environment
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

REPORTS_SIGNALS = """
import signal, sys, time
got = []
def receive(number, _):
    got.append(number)
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(7)
for one in ("INT", "TERM", "HUP", "QUIT", "WINCH", "TSTP", "CONT", "USR1"):
    signal.signal(getattr(signal, "SIG" + one), receive)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def lessor_cli(server: ServerProcess, tmp_path: Path) -> CommandLine:
    """Run commands against the server of the module, in a home of their own."""
    return at_home(tmp_path, server)


class AtTerminal:
    """A command that leads a session at a terminal of its own."""

    def __init__(self, lessor_cli: CommandLine, arguments: tuple[str, ...], *other: str) -> None:
        """Start it, or another program; ``master`` is the other end of the terminal."""
        env = {**bare_environment(), **lessor_cli.environment, "TERM": "xterm"}
        self.pid, self.master = pty.fork()
        if not self.pid:
            run = other or (sys.executable, "-m", "lessor.cli.main", *arguments)
            os.chdir(lessor_cli.folder)
            os.execvpe(run[0], run, env)
        self.shown = b""

    async def wait_for(self, text: bytes) -> None:
        """Wait until the terminal has shown a text."""
        late = asyncio.get_running_loop().time() + 30
        while text not in self.shown:
            assert asyncio.get_running_loop().time() < late, self.shown.decode()
            if (await asyncio.to_thread(select.select, [self.master], [], [], 0.1))[0]:
                self.shown += os.read(self.master, 1024)

    async def exit_code(self) -> int:
        """Wait for the end and return the exit code, negative for a signal."""

        async def poll() -> tuple[int, int]:
            return os.waitpid(self.pid, os.WNOHANG)  # noqa: ASYNC222 - it does not block

        _, status = await until(poll, lambda found: found[0] == self.pid)
        return os.waitstatus_to_exitcode(status)


def words(mount: str, *program: str) -> tuple[str, ...]:
    """Return the arguments that run a program with the role ``app``."""
    return ("exec", "app", "--mount", mount, "--wait-usable", "0s", "--", *program)


async def test_signals_are_passed_to_the_program(lessor_cli: CommandLine, lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    process = await lessor_cli.start(*words(mount, sys.executable, "-c", REPORTS_SIGNALS), leads=True)
    assert await line(process) == "ready"
    for name in ("INT", "HUP", "QUIT", "WINCH", "TSTP", "CONT", "USR1", "INT"):
        process.send_signal(signal.Signals[f"SIG{name}"])
        assert await line(process) == f"SIG{name}"
    assert await states(lessor, f"{mount}/") == ["ACTIVE"]
    process.terminate()
    assert await line(process) == "SIGTERM"
    code, _, err = await ended(process)
    assert (code, err) == (7, "")
    assert await states(lessor, f"{mount}/") == ["GONE"]


async def test_a_program_that_ignores_term_is_waited_for(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    script = "trap '' TERM; echo ready; read line; echo $line; exit 3"
    process = await lessor_cli.start(*words(mount, "sh", "-c", script))
    assert await line(process) == "ready"
    process.terminate()
    process.send_signal(signal.SIGWINCH)
    assert process.stdin is not None
    process.stdin.write(b"later\n")
    assert await line(process) == "later"
    code, _, _ = await ended(process)
    assert code == 3
    assert await states(lessor, f"{mount}/") == ["GONE"]


async def test_a_program_that_is_killed_ends_the_lease(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    process = await lessor_cli.start(*words(mount, "sh", "-c", "echo $$; read line"))
    os.kill(int(await line(process)), signal.SIGKILL)
    assert (await ended(process))[0] == 128 + 9
    assert await states(lessor, f"{mount}/") == ["GONE"]


async def test_a_program_that_leaves_another_one_behind_ends_the_lease(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    """The process that was started counts, as with a shell."""
    await lessor.put_role(mount)
    done = await lessor_cli(
        *words(mount, "sh", "-c", "sleep 60 </dev/null >/dev/null 2>&1 & echo $!; exit 4")
    )
    os.kill(int(done.out), signal.SIGKILL)
    assert done.code == 4
    assert await states(lessor, f"{mount}/") == ["GONE"]


async def test_ignored_signals_stay_ignored(lessor_cli: CommandLine, lessor: Lessor, mount: str) -> None:
    """As nohup(1) expects."""
    await lessor.put_role(mount)
    program = [sys.executable, "-m", "lessor.cli.main", *words(mount, "sh", "-c", "kill -HUP $$; exit 5")]
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *program,
        env={**bare_environment(), **lessor_cli.environment}, stdin=PIPE, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    assert (await ended(process))[0] == 5


async def test_a_signal_before_the_start_starts_nothing(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    await lessor.generate(mount)  # the root is known now
    before = len(await aws.calls("CreateUser"))
    await aws.fault("delay", "CreateUser", seconds=3)
    process = await lessor_cli.start(*words(mount, "touch", str(lessor_cli.folder / "started")))
    await until(lambda: aws.calls("CreateUser"), lambda calls: len(calls) > before)
    process.terminate()
    assert (await ended(process))[0] == 128 + 15
    assert not (lessor_cli.folder / "started").exists()


async def test_a_terminal_that_hangs_up_ends_the_lease(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    process = AtTerminal(lessor_cli, words(mount, "sh", "-c", "echo ready; while :; do sleep 1; done"))
    await process.wait_for(b"ready")
    assert await states(lessor, f"{mount}/") == ["ACTIVE"]
    os.close(process.master)
    assert await process.exit_code() == 128 + signal.SIGHUP
    await all_gone(lessor, f"{mount}/")


async def test_an_interrupt_at_a_terminal_reaches_the_program_once(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    """The terminal sends it to both; a second one would end many programs without cleaning up."""
    await lessor.put_role(mount)
    script = (
        "import signal, sys\n"
        "got = []\n"
        "signal.signal(signal.SIGINT, lambda *_: (got.append(1), print('interrupted', flush=True)))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(f'times={len(got)}', flush=True)\n"
    )
    process = AtTerminal(lessor_cli, words(mount, sys.executable, "-c", script))
    await process.wait_for(b"ready")
    os.write(process.master, b"\x03")
    await process.wait_for(b"interrupted")
    os.write(process.master, b"\n")
    await process.wait_for(b"times=1")
    assert await process.exit_code() == 0
    os.close(process.master)
    await all_gone(lessor, f"{mount}/")


async def test_a_job_that_is_stopped_at_a_terminal_is_continued(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    """Both stop, so that the shell gets its terminal back, and both go on."""
    await lessor.put_role(mount)
    program = shlex.join(
        [sys.executable, "-m", "lessor.cli.main", *words(mount, "sh", "-c", "echo ready; read line")]
    )
    shell = AtTerminal(lessor_cli, (), "bash", "--norc", "-i")
    os.write(shell.master, f"PS1='prompt: '; {program}; echo code=$?\n".encode())
    await shell.wait_for(b"ready\r\n")
    shell.shown = b""
    os.write(shell.master, b"\x1a")
    await shell.wait_for(b"Stopped")
    await shell.wait_for(b"prompt: ")  # what is typed before it can be lost
    shell.shown = b""
    os.write(shell.master, b"fg\n")
    await shell.wait_for(b"read line")
    os.write(shell.master, b"go on\n")
    await until(lambda: states(lessor, f"{mount}/"), lambda found: found == ["GONE"])
    os.write(shell.master, b"exit\n")
    await shell.exit_code()
    os.close(shell.master)


async def test_the_next_exec_revokes_the_lease_of_a_killed_one(
    lessor_cli: CommandLine, lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    process = await lessor_cli.start(*words(mount, "sh", "-c", "echo $$; read line"))
    child = int(await line(process))
    [note] = (lessor_cli.folder / "run" / "lessor").glob("exec-*.json")
    assert str(process.pid) in note.name
    assert "AKIA" not in note.read_text()
    assert note.stat().st_mode & 0o777 == 0o600
    other = await lessor_cli(*words(mount, "true"))
    assert other.err == "", "the lease of a living process is left alone"
    assert sorted(await states(lessor, f"{mount}/")) == ["ACTIVE", "GONE"]
    process.kill()
    os.kill(child, signal.SIGKILL)
    await ended(process)
    assert sorted(await states(lessor, f"{mount}/")) == ["ACTIVE", "GONE"]
    done = await lessor_cli(*words(mount, "true"))
    assert done.code == 0
    assert f"revoked lease {mount}/creds/app/" in done.err
    await all_gone(lessor, f"{mount}/")
    assert await users_of(aws, mount) == []
    assert list((lessor_cli.folder / "run" / "lessor").glob("exec-*")) == []


async def test_clearing_the_cache_revokes_the_lease_of_a_killed_exec(
    lessor_cli: CommandLine, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount)
    process = await lessor_cli.start(*words(mount, "sh", "-c", "echo $$; read line"))
    child = int(await line(process))
    process.kill()
    os.kill(child, signal.SIGKILL)
    await ended(process)
    assert (await lessor_cli("cache", "clear")).code == 0
    assert await states(lessor, f"{mount}/") == ["ACTIVE"]
    assert (await lessor_cli("cache", "clear", "--revoke")).code == 0
    await all_gone(lessor, f"{mount}/")


async def test_a_server_that_is_away_is_waited_for_in_the_middle_and_at_the_end(
    aws: StandIn, tmp_path: Path
) -> None:
    """The key is renewed after the outage, and the lease revoked as soon as the server is back."""
    async with own_server(tmp_path, aws) as server:
        lessor_cli = CommandLine(tmp_path, {**server.client_env, **home(tmp_path)})
        options = ("exec", "app", "--ttl", "6s", "--wait-usable", "0s", "--")
        process = await lessor_cli.start(*options, "sh", "-c", "echo ready; read line")
        assert await line(process) == "ready"
        async with connect(server.address, server.token) as lessor:
            await until(lambda: renewals(lessor), lambda count: count >= 1)
        address = server.address
        await server.kill()
        assert process.stdin is not None
        process.stdin.write(b"go on\n")
        await process.stdin.drain()
        await server.start(tmp_path, {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url, "LESSOR_LISTEN": address})
        code, _, err = await ended(process)
        assert code == 0
        assert "was not revoked" not in err
        async with connect(server.address, server.token) as lessor:
            await all_gone(lessor, "aws/")


async def renewals(lessor: Lessor) -> int:
    """Return how many leases of the mount aws were renewed."""
    answer = await lessor.leases.ListLeases(lease_pb2.ListLeasesRequest(prefix="aws/"))
    return sum(one.HasField("last_renewal_time") for one in answer.leases)
