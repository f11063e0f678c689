"""Checks the linter over the real list of AWS's actions."""

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


async def test_real_actions_are_known_and_slips_are_told() -> None:
    """AWS's own names pass; a slip is told with the name that was meant."""
    linter = SentryLinter()
    known = ["ec2:DescribeRegions", "s3:ListAllMyBuckets", "dynamodb:Query", "kms:DescribeKey", "logs:Get*"]
    assert await linter.findings(policy(known)) == []
    (said,) = await linter.findings(policy("dynamodb:GetItems"))
    assert said.endswith('"dynamodb:GetItems" is not an action; did you mean dynamodb:GetItem?')


async def test_changes_on_every_resource_are_told() -> None:
    """What a policy could narrow, and does not, is told; where it does, not."""
    linter = SentryLinter()
    (said,) = await linter.findings(policy(["s3:DeleteBucket", "sns:Publish"]))
    assert "s3:DeleteBucket, sns:Publish on every resource" in said
    assert await linter.findings(policy("s3:DeleteBucket", "arn:aws:s3:::one")) == []


def test_nothing_is_loaded_before_a_policy_is_looked_at() -> None:
    """A server that checks no role does not carry the list: importing and making a linter loads nothing."""
    script = (
        "import sys; from lessor_server.adapters.linting.sentry import SentryLinter, installed;"
        "installed(); SentryLinter(); print([m for m in sys.modules if m.startswith('policy_sentry')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_linter_says_what_it_is() -> None:
    """Its name and version are those of the package."""
    assert re.fullmatch(r"policy_sentry \d+\.\d+\.\d+", installed())
