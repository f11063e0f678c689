"""What ``lessor dev`` prints when it serves: the next steps, and one line for programs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import click

from lessor_server.commands.dev.options import ROOT_TOKEN
from lessor_server.domain.secret import Secret
from lessor_server.settings.model import Settings

_WORDS = """\
The service listens on {address}, and the embedded AWS on {url}.
Nothing of it is real, and all of it goes when this process ends{kept}.
Continue in another shell:

  export LESSOR_ADDR={address}
  export {token}

  echo '{policy}' |
    lessor role put reader --type iam_user --policy-document -
  lessor creds reader
  eval "$(lessor creds reader --format env)"
  aws --endpoint-url {url} --region us-east-1 ec2 describe-regions
"""
_POLICY = (
    '{"Version": "2012-10-17",'
    ' "Statement": [{"Effect": "Allow", "Action": "ec2:DescribeRegions", "Resource": "*"}]}'
)


def print_banner(token: str, address: str, url: str, kept: Path | None) -> None:
    """Print the next steps, then the line ``ready grpc=HOST:PORT aws=URL``; ``kept`` stays after the end.

    ``token`` is as ``token_variable`` returns it.
    """
    click.echo(
        _WORDS.format(
            address=address,
            url=url,
            kept=f", but for {kept}" if kept else "",
            token=token,
            policy=_POLICY,
        )
    )
    click.echo(f"ready grpc={address} aws={url}")  # click flushes


def token_variable(settings: Settings, token: Secret, environ: Mapping[str, str]) -> str:
    """Return how a client is given the token; the text of a variable is not repeated."""
    if settings.root_token_file is not None:
        return f"LESSOR_TOKEN_FILE={shlex.quote(str(settings.root_token_file.absolute()))}"
    if token.reveal() == environ.get(ROOT_TOKEN):
        return f'LESSOR_TOKEN="${ROOT_TOKEN}"'
    return f"LESSOR_TOKEN={shlex.quote(token.reveal())}"
