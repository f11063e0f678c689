"""``lessor exec``: runs a program with credentials that stay valid while it runs."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lessor.cli.command import DEFAULT_SECONDS, mount_option
from lessor.cli.completing import complete_usable_role
from lessor.cli.connecting import Command, get_clock, reaching, reaching_options, report
from lessor.cli.params import DURATION, duration_of, given, session_options
from lessor.cli.styles import TABLE

if TYPE_CHECKING:
    from lessor.channel import Connection
    from lessor.leasing.clock import Clock

NOT_EXECUTABLE, NOT_FOUND = 126, 127
WORDS: Final = "lessor.words"
"""Where the words after ``--`` are kept."""


class ProgramCommand(click.Command):
    """A command whose words after ``--`` belong to another program."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the words after the first ``--``."""
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[WORDS] = tuple(args[at + 1 :])
        return super().parse_args(ctx, args[:at])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Show the words in the usage line."""
        return [*super().collect_usage_pieces(ctx), "[-- CMD ...]"]


def with_session_options(command: Command) -> Command:
    """Add the options of the request to a command that keeps credentials valid."""
    for option in (
        click.option("--wait-usable", type=DURATION, default="10s", show_default=True,
                     help="Maximum wait until AWS accepts the new key; 0s: no wait."),
        click.option("--reason", help="Reason for the request; stored with the lease, and logged."),
        click.option("--ttl", type=DURATION, default="1h", show_default=True,
                     help="Lifetime to request; each renewal requests it again."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("exec", cls=ProgramCommand)
@click.argument("role", required=False, shell_complete=complete_usable_role)
@mount_option
@with_session_options
@session_options
@click.option("--env", "by_env", is_flag=True, help="Pass the keys in the environment.")
@click.option("--endpoint", "by_endpoint", is_flag=True, help="Pass the address of a container endpoint.")
@click.option("--keep", is_flag=True, help="Leave the lease active at the end.")
@click.option("--region", default="", help="Set AWS_REGION and AWS_DEFAULT_REGION.")
@click.option("--pass-token", is_flag=True, help="Leave LESSOR_TOKEN and LESSOR_TOKEN_FILE to the program.")
@reaching_options
def exec(role: str | None, mount: str, **options: object) -> int:  # noqa: A001 - the command's name
    """Run a program with credentials of a role; without CMD run your shell.

    Without ROLE, at a terminal, it lists the roles that you may use: type to filter, Enter to choose.

    The lease is renewed while the program runs and revoked when it ends. An IAM user's keys are passed in the
    environment, because they work as long as the lease is renewed. A session's are served on an endpoint of
    127.0.0.1, where AWS's SDKs fetch new ones before they end. --env and --endpoint choose.

    Signals are passed to the program. The exit code is the program's: 128 + N if signal N ended it, 127 if it
    does not exist, 126 if it can't be executed.
    """
    if role is None:
        role = _pick(mount, options)
    words = click.get_current_context().meta[WORDS] or (os.environ.get("SHELL") or "/bin/sh",)
    return run(role, mount, words, options, get_clock())


def run(role: str, mount: str, words: tuple[str, ...], options: dict[str, object], clock: Clock) -> int:
    """Run a program with the options of the command line; return its exit code.

    Raises:
        Failed: No credentials were issued, or the program can't be started.
    """
    connection, seconds = reaching(options)
    require_program(words[0])
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import asyncio  # noqa: PLC0415 - help needs none of it

    from lessor.cli.call import Failed, refusals_reported  # noqa: PLC0415 - gRPC takes its time to load
    from lessor.leasing import execution  # noqa: PLC0415
    from lessor.leasing.caller import caller_of  # noqa: PLC0415
    from lessor.leasing.child import NotStarted  # noqa: PLC0415
    from lessor.leasing.environment import Passed  # noqa: PLC0415
    from lessor.leasing.issued import Order  # noqa: PLC0415
    from lessor.leasing.notes import Holder  # noqa: PLC0415

    by_env, by_endpoint = options.pop("by_env"), options.pop("by_endpoint")
    if by_env and by_endpoint:
        raise click.UsageError("--env and --endpoint exclude each other; give one of them.")
    keep, region = options.pop("keep"), str(options.pop("region"))
    passed = Passed(role, region, pass_token=bool(options.pop("pass_token")))
    wait_usable = duration_of(options.pop("wait_usable"), "--wait-usable")
    assert wait_usable is not None
    duration_of(options["ttl"], "--ttl")
    with refusals_reported(connection):
        holder = Holder(connection.address, caller_of(connection))
        folder = _note_folder()
        job = execution.Job(
            order=Order(mount, role, wait_usable, given(options)),
            words=words,
            environ=dict(os.environ),
            passed=passed,
            uses_endpoint=bool(by_endpoint) if by_env or by_endpoint else None,
            keeps=bool(keep),
            notes=None if folder is None else (folder, holder),
        )
        try:
            return asyncio.run(_execute(job, connection, seconds, clock))
        except NotStarted as error:
            raise Failed(str(error), error.exit_code) from None


async def _execute(job: object, connection: Connection, seconds: float | None, clock: Clock) -> int:
    from lessor.leasing import execution  # noqa: PLC0415
    from lessor.leasing.refreshed import Tools  # noqa: PLC0415
    from lessor.leasing.server import SECONDS, GrpcLeaseServer  # noqa: PLC0415

    assert isinstance(job, execution.Job)
    async with GrpcLeaseServer(connection, clock, seconds or SECONDS) as server:
        return await execution.execute(job, Tools(server, clock, random.SystemRandom(), report))


def _pick(mount: str, options: dict[str, object]) -> str:
    """Return the role that the person at the terminal chooses; raises ``ClickException``."""
    from lessor.cli.role_picker import is_at_terminal, require_role  # noqa: PLC0415 - rarely needed

    if not is_at_terminal():
        raise click.UsageError("Missing argument 'ROLE'.")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from lessor.cli.call import Call  # noqa: PLC0415 - gRPC takes its time to load

    reaching(dict(options))  # chooses the context
    found = {**(click.get_current_context().obj or {}), **given(options)}
    address, token_file = (str(found[name]) if name in found else None for name in ("address", "token_file"))
    with Call(address, token_file, DEFAULT_SECONDS, TABLE) as call:
        return require_role(call, mount, None)


def require_program(name: str) -> None:
    """Raise ``Failed`` if a program surely can't be started, before credentials are issued for it."""
    if shutil.which(name) is not None:
        return
    from lessor.cli.call import Failed  # noqa: PLC0415

    exists = os.sep in name and Path(name).exists()
    if exists:
        raise Failed(f"{name} can't be executed; nothing was issued", NOT_EXECUTABLE)
    raise Failed(f"{name}: no such command; check its name and PATH", NOT_FOUND)


def _note_folder() -> Path | None:
    from lessor.leasing.notes import note_folder  # noqa: PLC0415
    from lessor.leasing.private_files import NotPrivate  # noqa: PLC0415

    try:
        return note_folder(os.environ)
    except NotPrivate as error:
        report(f"warning: leases are not noted: {error}")
        return None
