"""Uses boto3: for each line with a number of seconds it prints the ARN of the caller at that time."""

from __future__ import annotations

import sys
from datetime import timedelta

import boto3
from botocore.credentials import RefreshableCredentials, _local_now


def main() -> None:
    """Answer each line of standard input."""
    session = boto3.Session(region_name="us-east-1")
    client = session.client("sts")
    credentials = session.get_credentials()
    for line in sys.stdin:
        moved = timedelta(seconds=int(line))
        if isinstance(credentials, RefreshableCredentials):
            credentials._time_fetcher = lambda moved=moved: _local_now() + moved
        sys.stdout.write(client.get_caller_identity()["Arn"] + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
