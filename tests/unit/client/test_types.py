"""Checks the types of the package as a program of a user meets them, without any stub package."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import google
import grpc
import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """\
from datetime import timedelta

import lessor


async def main() -> None:
    async with lessor.Client.from_environ(timeout="10s") as client:
        policy = {"Version": "2012-10-17", "Statement": []}
        role = await client.put_role(name="app", policy_document=policy, default_ttl=timedelta(hours=1))
        print(role.role.etag)
        async with client.lease("app", ttl=3600) as lease:
            key: str = lease.access_key
            print(key)
        async for event in client.watch_leases(prefix="aws/"):
            print(event.lease_id)
        try:
            await client.get_role(name="app")
        except lessor.NotFound as error:
            reason: lessor.Reason = error.reason
            wait: timedelta | None = error.retry_after
            print(reason, wait, [violation.field for violation in error.violations])


def block() -> None:
    with lessor.sync.Client("a:1", token="t") as client, client.lease("app") as lease:
        print(lease.secret_key, client.get_info().version)
    with lessor.boto3.session("app", region_name="eu-west-1") as session:
        session.close()
"""


@pytest.mark.slow
def test_a_strict_type_checker_needs_no_stub_packages_and_finds_a_wrong_argument(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = tmp_path / "venv" / "lib" / version / "site-packages"
    for folder in (grpc.__path__[0], google.__path__[0], str(ROOT / "client" / "lessor")):
        (packages / Path(folder).name).symlink_to(folder)
    python = tmp_path / "venv" / "bin" / "python"
    words = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", str(python)]
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(PROGRAM, encoding="utf-8")
    wrong.write_text(
        "import lessor\nlessor.sync.Client().get_role(nam='app')\nlessor.boto3.session(7)\n", encoding="utf-8"
    )
    done = subprocess.run(
        [*words, str(right), str(wrong)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert [line.partition(" error: ")[0] for line in done.stdout.splitlines() if " error: " in line] == [
        "wrong.py:2:",
        "wrong.py:3:",
    ], done.stdout + done.stderr
