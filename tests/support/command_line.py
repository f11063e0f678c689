"""Runs the command line as a user does: in a separate process, with only its arguments and variables.

What is started and left running is a new Python process; what runs to its end is forked, which is quicker.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.clients import POLICY, ROOT_SECRET
from tests.support.forked import run_forked
from tests.support.server_process import bare_environment
from tests.support.standin_control import Json


@dataclass(frozen=True, slots=True)
class Done:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Json:
        """Return its output, parsed as JSON."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    @property
    def fields(self) -> dict[str, str]:
        """Return the table of fields that it printed."""
        return dict(re.split(r" {2,}", line, maxsplit=1) for line in self.out.splitlines() if line[0] != " ")


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Runs ``lessor`` in a folder that holds ``policy.json`` and the root's ``secret``."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Write the files."""
        (self.folder / "policy.json").write_text(json.dumps(POLICY), encoding="utf-8")
        (self.folder / "secret").write_text(f"{ROOT_SECRET}\n", encoding="utf-8")

    async def start(
        self, *arguments: str, stdout: int = PIPE, leads: bool = False, **variables: str
    ) -> Process:
        """Start a command that writes to a pipe, or to the file ``stdout``.

        One that ``leads`` a session has no terminal, also if the tests have one.
        """
        env = self._environment(variables)
        words = (sys.executable, "-m", "lessor.cli.main", *arguments)
        return await asyncio.create_subprocess_exec(
            *words, env=env, cwd=self.folder, start_new_session=leads,
            stdin=PIPE, stdout=stdout, stderr=PIPE,
        )  # fmt: skip

    async def __call__(self, *arguments: str, stdin: str = "", **variables: str) -> Done:
        """Run a command to its end; assert that it prints no stack trace and no token."""
        environment = self._environment(variables)
        code, out, err = await run_forked(arguments, environment, self.folder, stdin.encode())
        done = Done(code, out.decode(), err.decode())
        assert "Traceback" not in done.err
        assert self.environment["LESSOR_TOKEN"] not in done.out + done.err
        return done

    def _environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        return {**bare_environment(), **self.environment, **variables}

    async def put_role(self, mount: str, *options: str) -> Done:
        """Store the role ``app``."""
        words = ("--mount", mount, "--type", "iam_user", "--policy-document", "@policy.json", *options)
        done = await self("role", "put", "app", *words)
        assert done.code == 0, done.err
        return done

    async def issue(self, mount: str, *options: str) -> Json:
        """Issue credentials of the role ``app``."""
        done = await self("creds", "app", "--mount", mount, "--format", "json", *options)
        assert done.code == 0, done.err
        return done.json
