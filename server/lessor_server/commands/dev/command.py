"""``lessor dev``: the service with an embedded AWS, on one machine, without any setup."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click
import uvloop

from lessor_server.adapters.observing.log import LogLevel, start_logging
from lessor_server.app import serve
from lessor_server.commands.cli_errors import report_errors
from lessor_server.commands.dev.embedded_aws import (
    AddressTaken,
    EmbeddedAwsFailed,
    MotoMissing,
    address_of,
    listen,
    require_moto,
    run_embedded_aws,
)
from lessor_server.commands.dev.mount import give_root
from lessor_server.commands.dev.options import ROOT_TOKEN, DevOptions, settings_of
from lessor_server.commands.loopback_client import CallFailed, LoopbackClient
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.secret import Secret
from lessor_server.reload import on_hang_up
from lessor_server.settings.model import Settings, forget_tokens
from lessor_server.settings.parsers import Address, InvalidValue, address, folder, token
from lessor_server.tracing_start import open_tracing

REPORTED = (
    AddressTaken,
    CallFailed,
    EmbeddedAwsFailed,
    LessorError,
    MotoMissing,
    OSError,
)
"""Failures that the user can fix: they are printed on one line, without a traceback."""

_BANNER = """\
The service listens on {address}, and the embedded AWS on {url}.
Nothing is real, and everything is deleted when this process ends{kept}.
Continue in another shell:

  export LESSOR_ADDR={address}
  export {token}

  echo '{policy}' |
    lessor role put reader --type iam_user --policy-document -
  lessor creds reader
  eval "$(lessor creds reader --format env)"
  aws --endpoint-url {url} --region us-east-1 ec2 describe-regions
{http}"""
_HTTP = """
The console opens in a browser with `lessor ui`. Clients of Vault use VAULT_ADDR={http_url}.
"""
_POLICY = (
    '{"Version": "2012-10-17",'
    ' "Statement": [{"Effect": "Allow", "Action": "ec2:DescribeRegions", "Resource": "*"}]}'
)

T = TypeVar("T")


def loopback(value: object) -> Address:
    """Accept a loopback ``HOST:PORT``."""
    given = address(value)
    if given.path or not given.is_local:
        raise InvalidValue(f"{given} is not loopback", "write 127.0.0.1:PORT; this server is for trials only")
    return given


def root_token(value: object) -> Secret:
    """Accept a root token by the rule of the setting, which keeps only the hash."""
    token(value)
    return Secret(str(value))


def by(rule: Callable[[object], T]) -> Callable[[click.Context, click.Parameter, str | None], T | None]:
    """Return a click callback that parses an option by the rule of a setting."""

    def take(_: click.Context, __: click.Parameter, value: str | None) -> T | None:
        try:
            return None if value is None else rule(value)
        except InvalidValue as wrong:
            raise click.BadParameter(str(wrong)) from None

    return take


@click.command("dev")
@click.option(
    "--listen",
    "grpc",
    metavar="HOST:PORT",
    callback=by(loopback),
    help="Where the service listens.  [default: LESSOR_LISTEN or 127.0.0.1:50051]",
)
@click.option(
    "--aws-listen",
    "aws",
    metavar="HOST:PORT",
    default="127.0.0.1:5000",
    show_default=True,
    callback=by(loopback),
    help="Where the embedded AWS listens.",
)
@click.option(
    "--http-listen",
    "http",
    metavar="HOST:PORT",
    callback=by(loopback),
    help="Where Vault's API and the console listen.  [default: LESSOR_HTTP_LISTEN, or 127.0.0.1:8200 if"
    " it is free]",
)
@click.option(
    "--token",
    "secret",
    metavar="TOKEN",
    callback=by(root_token),
    help="The root token, at least 16 characters.  [default: LESSOR_ROOT_TOKEN or a random one]",
)
@click.option(
    "--data",
    metavar="DIR",
    callback=by(folder),
    help="Keep leases and roles here.  [default: a temporary directory]",
)
@click.option("--until-eof", is_flag=True, hidden=True, help="End when standard input ends.")
def command(
    grpc: Address | None,
    aws: Address,
    http: Address | None,
    secret: Secret | None,
    data: Path | None,
    *,
    until_eof: bool,
) -> None:
    """Run the service and an embedded AWS on this machine, ready to use, for trials and tests.

    Nothing is real: the keys it issues work only with the embedded AWS.
    """
    with report_errors("dev", REPORTED):
        require_moto()
        uvloop.run(run_dev(DevOptions(grpc, aws, secret, data, http), until_eof=until_eof))


async def run_dev(options: DevOptions, *, until_eof: bool) -> None:
    """Serve until SIGTERM, SIGINT or, with ``until_eof``, the end of standard input; then drain.

    The embedded AWS and the data are closed last, because calls that are drained still use them.
    """
    stop, hang_up = _stop_event(until_eof=until_eof), asyncio.Event()
    at_terminal = has_terminal()

    def react() -> None:
        """End when the terminal closes; any other SIGHUP reloads the settings, as for the service."""
        (stop if at_terminal and not has_terminal() else hang_up).set()

    with on_hang_up(react), _data_dir(options.data) as data, listen(options.aws, "--aws-listen") as listener:
        url = f"http://{address_of(listener, options.aws.host)}"
        settings, secret = settings_of(options, data, url, os.environ)
        variable = token_variable(settings, secret, os.environ)
        forget_tokens(os.environ)
        listen(settings.listen[0].address, "--listen").close()  # report a used port before anything starts
        logger = start_logging(LogLevel(settings.log.level), settings.log.format)
        async with (
            run_embedded_aws(listener, options.aws.host) as aws,
            open_tracing(os.environ, logger) as tracer,
            serve(settings, logger, dev=True, hang_up=hang_up, tracer=tracer) as served,
        ):
            (address,) = served.addresses
            async with LoopbackClient.connect(address, secret) as client:
                await give_root(client, aws)
            print_banner(variable, address, url, options.data, served.http_url)
            del variable, secret
            await stop.wait()


def _stop_event(*, until_eof: bool) -> asyncio.Event:
    """Return an event that is set when this process must end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def read() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            stop.set()

    if until_eof:
        loop.add_reader(sys.stdin.fileno(), read)
    return stop


def has_terminal() -> bool:
    """Return whether an open terminal controls this process (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextmanager
def _data_dir(kept: Path | None) -> Iterator[Path]:
    """Yield the directory to keep, or a temporary one that is deleted after the block."""
    if kept is not None:
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="lessor-dev-") as made:
        yield Path(made)


def print_banner(token: str, address: str, url: str, kept: Path | None, http_url: str) -> None:
    """Print the next steps, then the line ``ready grpc=HOST:PORT aws=URL http=URL``.

    ``kept`` stays after the end. Without a listener for HTTP ``http_url`` is empty: the line ends before it.

    ``token`` is as ``token_variable`` returns it.
    """
    click.echo(
        _BANNER.format(
            address=address,
            url=url,
            kept=f", but for {kept}" if kept else "",
            token=token,
            policy=_POLICY,
            http=_HTTP.format(http_url=http_url) if http_url else "",
        )
    )
    http = f" http={http_url}" if http_url else ""
    click.echo(f"ready grpc={address} aws={url}{http}")  # click flushes


def token_variable(settings: Settings, token: Secret, environ: Mapping[str, str]) -> str:
    """Return the export command for the token; the value of the user's variable is not repeated."""
    if settings.root_token_file is not None:
        return f"LESSOR_TOKEN_FILE={shlex.quote(str(settings.root_token_file.absolute()))}"
    if token.reveal() == environ.get(ROOT_TOKEN):
        return f'LESSOR_TOKEN="${ROOT_TOKEN}"'
    return f"LESSOR_TOKEN={shlex.quote(token.reveal())}"


if __name__ == "__main__":
    command()
