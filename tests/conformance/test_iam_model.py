"""Compares the IAM model with moto through a real client, where moto behaves as AWS does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any, Protocol
from urllib.parse import urlsplit

import aioboto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.support.standin_control import run_server

ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
POLICY = json.dumps(ALLOW)
READ_ONLY = "arn:aws:iam::aws:policy/ReadOnlyAccess"


class Client(Protocol):
    """Stands for a botocore client, which makes its methods at run time."""

    def __getattr__(self, name: str) -> Operation:
        """Return an operation."""


class Operation(Protocol):
    """Calls one operation."""

    def __call__(self, **params: object) -> Awaitable[dict[str, Any]]:
        """Send it and parse the answer."""


@contextmanager
def run_moto() -> Iterator[str]:
    """Run moto's server and yield its URL."""
    command = [sys.executable, "-m", "moto.server", "-p", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "Running on" in line)
            yield line.rpartition(" ")[2].strip()
        finally:
            process.kill()


SERVERS = {
    "standin": (run_server, "/_standin/reset"),
    "moto": (run_moto, "/moto-api/reset"),
}


@pytest.fixture(scope="module", params=list(SERVERS))
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Run each of the two servers in turn: its URL, and the path that empties it."""
    run, reset = SERVERS[request.param]
    with run() as url:
        yield url, reset


@pytest.fixture(scope="module")
def session() -> aioboto3.Session:
    """Make one session for the module: it reads AWS's model of IAM once."""
    return aioboto3.Session(aws_access_key_id="AKIATEST", aws_secret_access_key="x", region_name="us-east-1")


@pytest.fixture
async def iam(server: tuple[str, str], session: aioboto3.Session) -> AsyncIterator[Client]:
    """Open a real IAM client on an empty account."""
    url, reset = server
    connection = HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("POST", reset)
    assert connection.getresponse().status == 200
    connection.close()
    config = Config(retries={"total_max_attempts": 1})
    async with session.client("iam", endpoint_url=url, config=config) as client:
        yield client


async def refused(call: Awaitable[object]) -> tuple[str, int]:
    """Return the code and the status of a call that must be refused."""
    with pytest.raises(ClientError) as caught:
        await call
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


async def test_a_user_is_created_with_path_and_tags(iam: Client) -> None:
    made = await iam.create_user(UserName="ann", Path="/lessor/x/", Tags=[{"Key": "k", "Value": "a <&> b"}])
    got = await iam.get_user(UserName="ann")
    assert made["User"] == got["User"]
    assert got["User"]["Path"] == "/lessor/x/"
    assert got["User"]["Arn"] == "arn:aws:iam::123456789012:user/lessor/x/ann"
    assert (await iam.list_user_tags(UserName="ann"))["Tags"] == [{"Key": "k", "Value": "a <&> b"}]


async def test_a_taken_name_is_entity_already_exists(iam: Client) -> None:
    await iam.create_user(UserName="ann")
    assert await refused(iam.create_user(UserName="ann")) == ("EntityAlreadyExists", 409)


@pytest.mark.parametrize(
    ("operation", "params"),
    [
        ("get_user", {}),
        ("delete_user", {}),
        ("put_user_policy", {"PolicyName": "p", "PolicyDocument": POLICY}),
        ("attach_user_policy", {"PolicyArn": READ_ONLY}),
        ("create_access_key", {}),
        ("list_groups_for_user", {}),
        ("list_mfa_devices", {}),
        ("list_ssh_public_keys", {}),
        ("list_signing_certificates", {}),
        ("get_login_profile", {}),
    ],
)
async def test_an_absent_user_is_no_such_entity(iam: Client, operation: str, params: dict[str, str]) -> None:
    call = getattr(iam, operation)
    assert await refused(call(UserName="nobody", **params)) == ("NoSuchEntity", 404)


async def test_users_are_listed_by_path(iam: Client) -> None:
    for name, path in (("ann", "/lessor/x/"), ("bob", "/lessor/y/"), ("eve", "/")):
        await iam.create_user(UserName=name, Path=path)
    listed = await iam.list_users(PathPrefix="/lessor/")
    assert sorted(user["UserName"] for user in listed["Users"]) == ["ann", "bob"]


async def test_listings_come_in_pages(iam: Client) -> None:
    for number in range(5):
        await iam.create_user(UserName=f"user{number}", Path="/lessor/")
    seen: list[str] = []
    page = await iam.list_users(PathPrefix="/lessor/", MaxItems=2)
    while True:
        seen += [user["UserName"] for user in page["Users"]]
        if not page["IsTruncated"]:
            break
        page = await iam.list_users(PathPrefix="/lessor/", MaxItems=2, Marker=page["Marker"])
    assert seen == [f"user{number}" for number in range(5)]


async def test_inline_policies_are_put_and_deleted(iam: Client) -> None:
    await iam.create_user(UserName="ann")
    await iam.put_user_policy(UserName="ann", PolicyName="p", PolicyDocument=POLICY)
    assert (await iam.list_user_policies(UserName="ann"))["PolicyNames"] == ["p"]
    assert await refused(iam.delete_user(UserName="ann")) == ("DeleteConflict", 409)
    await iam.delete_user_policy(UserName="ann", PolicyName="p")
    assert (await iam.list_user_policies(UserName="ann"))["PolicyNames"] == []
    again = iam.delete_user_policy(UserName="ann", PolicyName="p")
    assert await refused(again) == ("NoSuchEntity", 404)


@pytest.mark.parametrize(
    "document",
    [
        "no JSON",
        json.dumps({**ALLOW, "Version": "2020-01-01"}),
        json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*"}]}),
        json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*"}]}),
        json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Perhaps", "Action": "s3:*", "Resource": "*"}],
            }
        ),
        json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Action": "all", "Resource": "*"}],
            }
        ),
    ],
)
async def test_an_invalid_policy_is_malformed_policy_document(iam: Client, document: str) -> None:
    await iam.create_user(UserName="ann")
    put = iam.put_user_policy(UserName="ann", PolicyName="p", PolicyDocument=document)
    assert await refused(put) == ("MalformedPolicyDocument", 400)


async def test_a_version_after_its_statement_fails_legacy_parsing(
    iam: Client, server: tuple[str, str]
) -> None:
    """IAM refuses this order. Moto does not check it."""
    await iam.create_user(UserName="ann")
    document = json.dumps({"Statement": ALLOW["Statement"][0], "Version": ALLOW["Version"]})
    put = iam.put_user_policy(UserName="ann", PolicyName="p", PolicyDocument=document)
    if "_standin" in server[1]:
        assert await refused(put) == ("MalformedPolicyDocument", 400)
    else:
        await put


async def test_managed_policies_are_attached_and_detached(iam: Client) -> None:
    await iam.create_user(UserName="ann")
    made = await iam.create_policy(PolicyName="own", PolicyDocument=POLICY)
    arn = made["Policy"]["Arn"]
    for _ in range(2):
        await iam.attach_user_policy(UserName="ann", PolicyArn=arn)
    listed = (await iam.list_attached_user_policies(UserName="ann"))["AttachedPolicies"]
    assert listed == [{"PolicyName": "own", "PolicyArn": arn}]
    assert await refused(iam.delete_user(UserName="ann")) == ("DeleteConflict", 409)
    await iam.detach_user_policy(UserName="ann", PolicyArn=arn)
    assert (await iam.list_attached_user_policies(UserName="ann"))["AttachedPolicies"] == []
    assert await refused(iam.detach_user_policy(UserName="ann", PolicyArn=arn)) == ("NoSuchEntity", 404)


async def test_an_unknown_managed_policy_is_no_such_entity(iam: Client) -> None:
    await iam.create_user(UserName="ann")
    attach = iam.attach_user_policy(UserName="ann", PolicyArn="arn:aws:iam::123456789012:policy/none")
    assert await refused(attach) == ("NoSuchEntity", 404)


async def test_groups_are_joined_and_left(iam: Client) -> None:
    """Removing a user twice is NoSuchEntity."""
    await iam.create_user(UserName="ann")
    await iam.create_group(GroupName="devs")
    await iam.add_user_to_group(UserName="ann", GroupName="devs")
    await iam.add_user_to_group(UserName="ann", GroupName="devs")
    groups = (await iam.list_groups_for_user(UserName="ann"))["Groups"]
    assert [group["GroupName"] for group in groups] == ["devs"]
    await iam.remove_user_from_group(UserName="ann", GroupName="devs")
    assert (await iam.list_groups_for_user(UserName="ann"))["Groups"] == []
    leave = iam.remove_user_from_group(UserName="ann", GroupName="devs")
    assert await refused(leave) == ("NoSuchEntity", 404)


async def test_an_absent_group_is_no_such_entity(iam: Client) -> None:
    await iam.create_user(UserName="ann")
    join = iam.add_user_to_group(UserName="ann", GroupName="none")
    assert await refused(join) == ("NoSuchEntity", 404)


async def test_a_user_has_at_most_two_keys(iam: Client) -> None:
    await iam.create_user(UserName="ann")
    first = (await iam.create_access_key(UserName="ann"))["AccessKey"]
    await iam.create_access_key(UserName="ann")
    assert first["AccessKeyId"].startswith("AKIA")
    assert len(first["AccessKeyId"]) == 20
    assert len(first["SecretAccessKey"]) == 40
    assert await refused(iam.create_access_key(UserName="ann")) == ("LimitExceeded", 409)
    await iam.delete_access_key(UserName="ann", AccessKeyId=first["AccessKeyId"])
    await iam.create_access_key(UserName="ann")


async def test_keys_are_set_inactive_and_deleted(iam: Client) -> None:
    await iam.create_user(UserName="ann")
    key_id = (await iam.create_access_key(UserName="ann"))["AccessKey"]["AccessKeyId"]
    await iam.update_access_key(UserName="ann", AccessKeyId=key_id, Status="Inactive")
    (key,) = (await iam.list_access_keys(UserName="ann"))["AccessKeyMetadata"]
    assert (key["AccessKeyId"], key["Status"]) == (key_id, "Inactive")
    await iam.delete_access_key(UserName="ann", AccessKeyId=key_id)
    assert (await iam.list_access_keys(UserName="ann"))["AccessKeyMetadata"] == []
    again = iam.delete_access_key(UserName="ann", AccessKeyId=key_id)
    assert await refused(again) == ("NoSuchEntity", 404)


async def test_tags_are_added_and_changed(iam: Client) -> None:
    await iam.create_user(UserName="ann", Tags=[{"Key": "a", "Value": "1"}])
    await iam.tag_user(UserName="ann", Tags=[{"Key": "a", "Value": "2"}, {"Key": "b", "Value": ""}])
    tags = (await iam.list_user_tags(UserName="ann"))["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"a": "2", "b": ""}


async def test_login_profiles_are_created_and_deleted(iam: Client) -> None:
    await iam.create_user(UserName="ann")
    await iam.create_login_profile(UserName="ann", Password="long-enough")
    again = iam.create_login_profile(UserName="ann", Password="long-enough")
    assert await refused(again) == ("EntityAlreadyExists", 409)
    assert (await iam.get_login_profile(UserName="ann"))["LoginProfile"]["UserName"] == "ann"
    await iam.delete_login_profile(UserName="ann")
    assert await refused(iam.get_login_profile(UserName="ann")) == ("NoSuchEntity", 404)


async def test_the_summary_counts_users(iam: Client) -> None:
    await iam.create_user(UserName="ann")
    summary = (await iam.get_account_summary())["SummaryMap"]
    assert (summary["Users"], summary["UsersQuota"]) == (1, 5000)
