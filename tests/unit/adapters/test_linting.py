"""Checks the linter with the real list of AWS's actions."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from lessor_server.adapters.linting.sentry import SentryLinter, installed


def policy(action: str | list[str], resource: str = "*") -> str:
    """Return a policy that allows something."""
    statement = {"Effect": "Allow", "Action": action, "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


async def test_real_actions_are_known_and_typos_are_reported() -> None:
    linter = SentryLinter()
    known = ["ec2:DescribeRegions", "s3:ListAllMyBuckets", "dynamodb:Query", "kms:DescribeKey", "logs:Get*"]
    assert await linter.findings(policy(known)) == []
    (said,) = await linter.findings(policy("dynamodb:GetItems"))
    assert said.endswith('"dynamodb:GetItems" is not an action; did you mean dynamodb:GetItem?')


async def test_writes_on_every_resource_are_reported() -> None:
    linter = SentryLinter()
    (said,) = await linter.findings(policy(["s3:DeleteBucket", "sns:Publish"]))
    assert "s3:DeleteBucket, sns:Publish on every resource" in said
    assert await linter.findings(policy("s3:DeleteBucket", "arn:aws:s3:::one")) == []


def test_the_list_is_loaded_at_the_first_check() -> None:
    script = (
        "import sys; from lessor_server.adapters.linting.sentry import SentryLinter, installed;"
        "installed(); SentryLinter(); print([m for m in sys.modules if m.startswith('policy_sentry')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_linter_has_the_name_and_version_of_its_package() -> None:
    assert re.fullmatch(r"policy_sentry \d+\.\d+\.\d+", installed())
