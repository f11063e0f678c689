"""``lessor aws-profile``: profiles of AWS's configuration file that get their credentials from Lessor."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

import click

from lessor import values
from lessor.leasing.environment import CREDENTIALS
from lessor.leasing.ini_sections import section_names, settings_of, with_section, without_section
from lessor.leasing.private_files import FILE_MODE, write_atomically
from lessor.refresh import MIN_CACHED_TTL

SETTING: Final = "credential_process"
COMMAND: Final = "credential-process"
_NAME: Final = re.compile(r"[A-Za-z0-9_.@+,/=-]{1,128}")


@click.group("aws-profile")
def aws_profile() -> None:
    """Manage profiles of AWS's tools that get their credentials from Lessor.

    They are in ~/.aws/config, or in the file that AWS_CONFIG_FILE names. Its other lines stay as they are.
    """


@aws_profile.command("add")
@click.argument("name")
@click.option("--role", required=True, help="The role whose credentials the profile has.")
@click.option("--mount", default="aws", show_default=True, help="The engine.")
@click.option("--ttl", help="Lifetime to request, 30m or more [1h].")
@click.option("--region", default="", help="The profile's region.")
@click.option("--address", help="Address of the server [that of the environment in which a tool runs].")
@click.option("--token-file", help="A file with your token [that of the environment in which a tool runs].")
def add(name: str, role: str, mount: str, region: str, **options: str | None) -> None:
    """Add a profile, or change one that was added before: `aws --profile NAME` then uses the role."""
    _require_name(name)
    _require_ttl(options["ttl"])
    path, text = _config()
    section = _section(name)
    found = settings_of(text, section)
    if not _is_ours(found.get(SETTING, "")) and not CREDENTIALS.isdisjoint(found):
        raise click.ClickException(
            f"profile {name} exists in {path}, and its credentials are not Lessor's; choose another name"
        )
    words = [_program(), *_reaching(options), COMMAND, role]
    words += ["--mount", mount] if mount != "aws" else []
    words += ["--ttl", options["ttl"]] if options["ttl"] else []
    settings = {SETTING: shlex.join(words), **({"region": region} if region else {})}
    _write(path, with_section(text, section, settings))
    click.echo(f"profile {name} is in {path}; try: aws --profile {name} sts get-caller-identity")


@aws_profile.command("list")
def list_() -> None:
    """Print the profiles that get their credentials from Lessor, each with its command."""
    _, text = _config()
    for section in section_names(text):
        command = settings_of(text, section).get(SETTING, "")
        if _is_ours(command):
            click.echo(f"{section.removeprefix('profile ')}  {command}")


@aws_profile.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Remove a profile that gets its credentials from Lessor; one with settings of yours keeps those."""
    path, text = _config()
    section = _section(name)
    found = settings_of(text, section)
    if not found:
        raise click.ClickException(
            f"there is no profile {name} in {path}; `lessor aws-profile list` shows them"
        )
    if not _is_ours(found.get(SETTING, "")):
        raise click.ClickException(
            f"profile {name} does not get its credentials from Lessor; it is unchanged"
        )
    left = found.keys() - {SETTING, "region"}
    if left or name == "default":
        _write(path, with_section(text, section, {SETTING: ""}))
    else:
        _write(path, without_section(text, section))


def _section(name: str) -> str:
    """Return the section of a profile (AWS CLI User Guide, "Configuration and credential file settings")."""
    return name if name == "default" else f"profile {name}"


def _is_ours(command: str) -> bool:
    try:
        program, *arguments = shlex.split(command) or [""]
    except ValueError:
        return False
    return Path(program).name.startswith("lessor") and COMMAND in arguments


def _program() -> str:
    """Return the absolute path of this program: tools start it with another PATH."""
    own = Path(sys.argv[0])
    found = str(own) if own.name == "lessor" and own.is_file() else shutil.which("lessor")
    if found is None:
        beside = Path(sys.executable).with_name("lessor")
        found = str(beside) if beside.is_file() else "lessor"
    return str(Path(found).absolute()) if os.sep in found else found


def _reaching(options: dict[str, str | None]) -> list[str]:
    """Return the words that reach the server, before the command."""
    words = ["--address", options["address"]] if options["address"] else []
    token_file = options["token_file"]
    return [*words, *(["--token-file", str(Path(token_file).absolute())] if token_file else [])]


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise click.UsageError(f"{name!r} is not valid as a profile; use letters, digits and _ . @ + , / = -")


def _require_ttl(text: str | None) -> None:
    try:
        too_short = text is not None and values.duration(text) < MIN_CACHED_TTL
    except values.InvalidValue as wrong:
        raise click.UsageError(f"--ttl: {wrong}") from None
    if too_short:
        raise click.UsageError("--ttl: AWS's SDKs call again 15 minutes before the end; give 30m or more")


def _config() -> tuple[Path, str]:
    """Return AWS's configuration file and its text, empty if it does not exist."""
    path = Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
    try:
        return path, path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{path} can't be read: {error}") from None


def _write(path: Path, text: str) -> None:
    """Replace the file behind a link, and keep its mode."""
    real = Path(os.path.realpath(path))
    try:
        real.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = real.stat().st_mode & 0o777 if real.exists() else FILE_MODE
        write_atomically(real, text.encode(), mode)
    except OSError as error:
        raise click.ClickException(f"{path} can't be written: {error.strerror}") from None
