"""``lessor server``: the service."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Final, NoReturn

import click
import uvloop

from lessor.findings import show_findings
from lessor_server import app
from lessor_server.access_reload import load_rules
from lessor_server.adapters.aws.sdk_session import CaBundleUnusable, require_ca_bundle
from lessor_server.adapters.observing.log import LogLevel, start_logging
from lessor_server.adapters.service_manager import ServiceManager
from lessor_server.adapters.tls import CertificateUnusable
from lessor_server.commands.cli_errors import WRONG_SETTINGS, report_errors
from lessor_server.commands.deep_check.run import check_set_up
from lessor_server.commands.worker import WorkerPlace, report_ready
from lessor_server.commands.workers import run_workers
from lessor_server.domain.errors.base import LessorError
from lessor_server.reload import need_restart
from lessor_server.settings.model import Settings, forget_tokens, load

_START_ERRORS: Final = (
    LessorError,
    CertificateUnusable,
    OSError,
)


@click.command("server")
@click.option(
    "--config", "file", type=click.Path(path_type=Path, dir_okay=False), help="A TOML file of settings."
)
@click.option("--check", is_flag=True, help="Check the settings, print their problems, and exit.")
@click.option("--deep", is_flag=True, help="With --check: also check machine, database, key and AWS.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How --deep prints.",
)
@click.option("--workers", type=int, help="Run so many processes on the same ports; needs PostgreSQL.")
@click.option("--worker", "place", hidden=True, help="Which of them this is; set by the supervisor.")
def command(
    file: Path | None, *, check: bool, deep: bool, style: str, workers: int | None, place: str | None
) -> None:
    """Run the service. Settings come from a TOML file and LESSOR_* variables; variables override the file.

    `--check --deep` changes nothing, and exits with 1 if one of its lines begins with FAIL. Run it as the
    server's user with the server's variables.
    """
    if deep:
        if not check:
            raise click.UsageError("--deep needs --check")
        check_and_exit(file, as_json=style == "json")
    settings = load_server_settings(file, with_access_file=check)
    ca_bundle_or_exit()
    if check:
        click.echo("the settings are valid")
        return
    if workers is not None:
        logger = start_logging(LogLevel(settings.log.level), settings.log.format)
        with report_errors("server", _START_ERRORS):
            sys.exit(run_workers(settings, workers, str(file) if file else None, logger))
    run_server(settings, file, WorkerPlace.parse(place) if place else None)


def check_and_exit(file: Path | None, *, as_json: bool) -> NoReturn:
    """Check everything that the server needs, print what was found, and exit with 0 or 1."""
    with report_errors("server", _START_ERRORS):
        findings = asyncio.run(check_set_up(file, os.environ))
    sys.exit(show_findings(findings, as_json=as_json))


def load_server_settings(file: Path | None, *, with_access_file: bool) -> Settings:
    """Return the settings, or print every problem and exit with 2.

    ``with_access_file`` includes the problems of the access file, which a start reads later.
    """
    with report_errors("server", ()):
        settings = load(file, os.environ)
        if with_access_file:
            load_rules(settings.access.file)
    return settings


def ca_bundle_or_exit() -> None:
    """If the certificates for AWS cannot be used, print why, and exit with 2."""
    try:
        require_ca_bundle()
    except CaBundleUnusable as error:
        click.echo(f"lessor server: {error}; {error.fix}", err=True)
        sys.exit(WRONG_SETTINGS)


def run_server(settings: Settings, file: Path | None, place: WorkerPlace | None = None) -> None:
    """Serve until a signal stops it; a start that fails prints one line with the fix and exits with 1.

    With a ``place`` this process is one of several workers.
    """
    if place is not None:
        settings = place.apply(settings)
    forgotten = forget_tokens(os.environ)
    level = LogLevel(settings.log.level)
    logger = start_logging(level, settings.log.format)

    def reread() -> list[str]:
        fresh = load(file, {**os.environ, **forgotten})
        fresh = fresh if place is None else place.apply(fresh)
        level.name = fresh.log.level
        return need_restart(settings, fresh)

    with report_errors("server", _START_ERRORS):
        if place is None:
            serving = app.run(settings, logger, reread, ServiceManager(os.environ))
        else:  # its supervisor reports to the service manager
            serving = app.run(settings, logger, reread, ServiceManager({}), report_ready)
        uvloop.run(serving)
