"""Checks what only the stand-in for AWS has: stricter rules, faults, outages and a console."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aioboto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError, ReadTimeoutError
from tests.conformance.test_iam_model import POLICY, Client, refused
from tests.support.clients import until
from tests.support.iam import TOUCHES
from tests.support.standin_control import StandIn, ask

ROOT_KEY = "AKIATESTROOT0EXAMPLE"
SESSION = aioboto3.Session(region_name="us-east-1")
"""One for all clients: it reads each of AWS's models once."""


async def open_client(
    stack: AsyncExitStack, service: str, url: str, key_id: str = ROOT_KEY, *, seconds: float = 30.0
) -> Client:
    """Open a real client that never retries, signs with this key and waits so long for an answer."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=seconds)
    keys = {"aws_access_key_id": key_id, "aws_secret_access_key": "x"}
    sdk = SESSION.client(service, endpoint_url=url, config=config, **keys)
    client: Client = await stack.enter_async_context(sdk)
    return client


@pytest.fixture
async def iam(aws: StandIn) -> AsyncIterator[Client]:
    """Open an IAM client of the root."""
    async with AsyncExitStack() as stack:
        yield await open_client(stack, "iam", aws.url)


@pytest.fixture
async def impatient(aws: StandIn) -> AsyncIterator[Client]:
    """Open an IAM client of the root that waits for a second only."""
    async with AsyncExitStack() as stack:
        yield await open_client(stack, "iam", aws.url, seconds=1.0)


async def who(aws: StandIn, key_id: str) -> str:
    """Ask STS whose key this is."""
    async with AsyncExitStack() as stack:
        sts = await open_client(stack, "sts", aws.url, key_id)
        return str((await sts.get_caller_identity())["Arn"])


# --- rules that moto doesn't keep ---------------------------------------------------------------------------


async def test_names_are_unique_ignoring_case(iam: Client) -> None:
    await iam.create_user(UserName="ann")
    with pytest.raises(ClientError, match=r"User with name ANN already exists\."):
        await iam.create_user(UserName="ANN")


@pytest.mark.parametrize("thing", [thing for thing in TOUCHES if thing != "user"])
async def test_a_user_with_anything_attached_is_not_deleted(aws: StandIn, iam: Client, thing: str) -> None:
    await iam.create_user(UserName="ann")
    await iam.create_user(UserName="bob")
    await aws.touch("ann", thing)
    assert await refused(iam.delete_user(UserName="ann")) == ("DeleteConflict", 409)
    await iam.delete_user(UserName="bob")
    assert list(await aws.users()) == ["ann"]


async def test_everything_attached_to_a_user_can_be_listed_and_deleted(aws: StandIn, iam: Client) -> None:
    await iam.create_user(UserName="ann")
    await aws.touch(
        "ann", "login_profile", "mfa", "virtual_mfa", "ssh_key", "certificate", "service_credential"
    )
    name = {"UserName": "ann"}
    await iam.delete_login_profile(**name)
    for device in (await iam.list_mfa_devices(**name))["MFADevices"]:
        serial = device["SerialNumber"]
        await iam.deactivate_mfa_device(SerialNumber=serial, **name)
        if serial.startswith("arn:"):
            await iam.delete_virtual_mfa_device(SerialNumber=serial)
    for key in (await iam.list_ssh_public_keys(**name))["SSHPublicKeys"]:
        await iam.delete_ssh_public_key(SSHPublicKeyId=key["SSHPublicKeyId"], **name)
    for certificate in (await iam.list_signing_certificates(**name))["Certificates"]:
        await iam.delete_signing_certificate(CertificateId=certificate["CertificateId"], **name)
    listed = await iam.list_service_specific_credentials(**name)
    for one in listed["ServiceSpecificCredentials"]:
        credential_id = one["ServiceSpecificCredentialId"]
        await iam.delete_service_specific_credential(ServiceSpecificCredentialId=credential_id, **name)
    await iam.delete_user(**name)
    assert (await aws.state())["users"] == (await aws.state())["virtual_mfa"] == []


async def test_a_virtual_device_in_use_is_not_deleted(aws: StandIn, iam: Client) -> None:
    await aws.touch("ann", "user", "virtual_mfa")
    serial = (await iam.list_mfa_devices(UserName="ann"))["MFADevices"][0]["SerialNumber"]
    delete = iam.delete_virtual_mfa_device(SerialNumber=serial)
    assert await refused(delete) == ("DeleteConflict", 409)


async def test_inline_policies_share_2048_characters(iam: Client) -> None:
    """White space does not count."""
    await iam.create_user(UserName="ann")
    room = 2048 - len(POLICY.replace(" ", ""))
    padded = POLICY.replace("s3:*", "s3:" + "x" * (room + 1))
    await iam.put_user_policy(UserName="ann", PolicyName="p", PolicyDocument=padded + " " * 500)
    more = iam.put_user_policy(UserName="ann", PolicyName="q", PolicyDocument=POLICY)
    assert await refused(more) == ("LimitExceeded", 409)
    await iam.put_user_policy(UserName="ann", PolicyName="p", PolicyDocument=POLICY)


async def test_quotas_are_limit_exceeded(aws: StandIn, iam: Client) -> None:
    await aws.account(max_users=1)
    await iam.create_user(UserName="ann")
    names = [f"g{number}" for number in range(11)]
    await aws.groups(*names)
    for name in names[:10]:
        await iam.add_user_to_group(UserName="ann", GroupName=name)
        await iam.attach_user_policy(UserName="ann", PolicyArn=f"arn:aws:iam::aws:policy/{name}")
    join = iam.add_user_to_group(UserName="ann", GroupName="g10")
    attach = iam.attach_user_policy(UserName="ann", PolicyArn="arn:aws:iam::aws:policy/g10")
    for call in (join, attach, iam.create_user(UserName="bob")):
        assert await refused(call) == ("LimitExceeded", 409)


async def test_tag_keys_are_unique_ignoring_case(iam: Client) -> None:
    tags = [{"Key": "c", "Value": "1"}, {"Key": "C", "Value": "2"}]
    assert await refused(iam.create_user(UserName="ann", Tags=tags)) == ("InvalidInput", 400)


async def test_get_caller_identity_returns_the_owner_of_the_key(aws: StandIn, iam: Client) -> None:
    """An unknown key is the root's."""
    await iam.create_user(UserName="ann", Path="/lessor/")
    key_id = (await iam.create_access_key(UserName="ann"))["AccessKey"]["AccessKeyId"]
    assert await who(aws, key_id) == "arn:aws:iam::123456789012:user/lessor/ann"
    assert await who(aws, ROOT_KEY) == "arn:aws:iam::123456789012:user/root-of-lessor"
    await iam.update_access_key(UserName="ann", AccessKeyId=key_id, Status="Inactive")
    assert await refused(who(aws, key_id)) == ("InvalidClientTokenId", 403)
    await iam.delete_access_key(UserName="ann", AccessKeyId=key_id)
    assert await refused(who(aws, key_id)) == ("InvalidClientTokenId", 403)


async def test_a_root_with_a_real_user_can_rotate_its_key(aws: StandIn) -> None:
    await aws.root(ROOT_KEY)
    async with AsyncExitStack() as stack:
        iam = await open_client(stack, "iam", aws.url)
        (listed,) = (await iam.list_access_keys())["AccessKeyMetadata"]
        assert listed["AccessKeyId"] == ROOT_KEY
        new = (await iam.create_access_key())["AccessKey"]["AccessKeyId"]
        await iam.delete_access_key(AccessKeyId=ROOT_KEY)
    assert await who(aws, new) == "arn:aws:iam::123456789012:user/root-of-lessor"
    assert await refused(who(aws, ROOT_KEY)) == ("InvalidClientTokenId", 403)


async def test_a_new_user_can_be_invisible_for_a_while(aws: StandIn, iam: Client) -> None:
    """Its name is already taken."""
    await aws.account(visible_after=60)
    await iam.create_user(UserName="ann")
    assert await refused(iam.get_user(UserName="ann")) == ("NoSuchEntity", 404)
    assert (await iam.list_users())["Users"] == []
    assert await refused(iam.create_user(UserName="ann")) == ("EntityAlreadyExists", 409)
    await aws.account(clock_offset=60)
    assert (await iam.get_user(UserName="ann"))["User"]["UserName"] == "ann"


# --- faults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "code", "status", "made"),
    [
        ("throttle", "Throttling", 400, False),
        ("refuse", "AccessDenied", 403, False),
        ("error_before", "InternalFailure", 500, False),
        ("error_after", "InternalFailure", 500, True),
    ],
)
async def test_a_fault_with_an_answer_replaces_the_answer_once(
    aws: StandIn, iam: Client, kind: str, code: str, status: int, *, made: bool
) -> None:
    await aws.fault(kind, "CreateUser", nth=1)
    assert await refused(iam.create_user(UserName="ann")) == (code, status)
    assert ("ann" in await aws.users()) is made
    await iam.create_user(UserName="bob")


@pytest.mark.parametrize(("kind", "made"), [("lose", True), ("drop", False)])
async def test_a_fault_can_cut_the_connection(aws: StandIn, iam: Client, kind: str, *, made: bool) -> None:
    await aws.fault(kind, "CreateUser", nth=1)
    with pytest.raises(HTTPClientError):
        await iam.create_user(UserName="ann")
    assert ("ann" in await aws.users()) is made
    assert [call["outcome"] for call in await aws.calls("CreateUser")] == [kind]


@pytest.mark.parametrize(("kind", "made"), [("hang", False), ("hang_after", True)])
async def test_a_fault_can_leave_a_call_unanswered(
    aws: StandIn, impatient: Client, kind: str, *, made: bool
) -> None:
    await aws.fault(kind, "CreateUser", nth=1)
    with pytest.raises(ReadTimeoutError):
        await impatient.create_user(UserName="ann")
    await until(lambda: aws.calls("CreateUser"), bool)
    assert ("ann" in await aws.users()) is made


async def test_a_fault_can_answer_html(aws: StandIn, iam: Client) -> None:
    """With status 200, which the SDK takes for a success if the call has no result."""
    await iam.create_user(UserName="ann")
    await aws.fault("garbage")
    deleted = (await iam.delete_user(UserName="ann"))["ResponseMetadata"]
    assert deleted["HTTPStatusCode"] == 200
    assert "RequestId" not in deleted
    with pytest.raises(KeyError):
        await iam.create_user(UserName="bob")
    assert list(await aws.users()) == ["ann"]


async def test_a_delayed_call_takes_effect_after_its_caller_left(aws: StandIn, impatient: Client) -> None:
    await aws.fault("delay", "CreateUser", nth=1, seconds=3.0)
    with pytest.raises(ReadTimeoutError):
        await impatient.create_user(UserName="ann")
    assert await aws.users() == {}
    await until(aws.users, bool)


async def test_a_fault_applies_to_the_calls_that_it_names(aws: StandIn, iam: Client) -> None:
    await aws.fault("throttle", "CreateUser", user="ann", nth=2, times=2)
    await iam.create_user(UserName="bob")
    await iam.create_user(UserName="ann")
    for _ in range(2):
        assert await refused(iam.create_user(UserName="ann")) == ("Throttling", 400)
    assert await refused(iam.create_user(UserName="ann")) == ("EntityAlreadyExists", 409)
    await aws.fault("refuse")
    for _ in range(2):
        assert await refused(iam.list_users()) == ("AccessDenied", 403)
    await aws.clear_faults()
    await iam.list_users()


async def test_an_invalid_fault_is_refused(aws: StandIn) -> None:
    with pytest.raises(RuntimeError, match="nonsense"):
        await aws.fault("nonsense")
    with pytest.raises(RuntimeError, match="colour"):
        await aws.fault("drop", colour="red")


async def test_an_outage_does_not_affect_the_control_api(aws: StandIn, iam: Client) -> None:
    await iam.create_user(UserName="ann")
    await aws.down()
    # A connection is cut, or never comes about: that depends on when the old one is seen to be closed.
    with pytest.raises((HTTPClientError, EndpointConnectionError)):
        await iam.get_user(UserName="ann")
    assert list(await aws.users()) == ["ann"]
    await aws.up()
    assert (await iam.get_user(UserName="ann"))["User"]["UserName"] == "ann"


# --- the record and the console -----------------------------------------------------------------------------


async def test_calls_are_recorded_in_order(aws: StandIn, iam: Client) -> None:
    await iam.create_user(UserName="ann")
    await refused(iam.get_user(UserName="bob"))
    calls = await aws.calls()
    assert [(call["n"], call["action"], call["user"], call["outcome"]) for call in calls] == [
        (1, "CreateUser", "ann", "ok"),
        (2, "GetUser", "bob", "NoSuchEntity"),
    ]
    assert {call["key_id"] for call in calls} == {ROOT_KEY}
    assert await aws.totals() == {"CreateUser": 1, "GetUser": 1}
    assert 1 <= await aws.peak_per_second() <= 2
    await aws.forget_calls()
    assert await aws.calls() == []


async def test_a_user_deleted_by_the_control_api_is_gone_with_its_key(aws: StandIn, iam: Client) -> None:
    await iam.create_user(UserName="ann")
    key_id = (await iam.create_access_key(UserName="ann"))["AccessKey"]["AccessKeyId"]
    await aws.forget("ann")
    assert await aws.users() == {}
    assert await refused(who(aws, key_id)) == ("InvalidClientTokenId", 403)


async def test_the_state_shows_no_secret(aws: StandIn, iam: Client) -> None:
    await iam.create_user(UserName="ann")
    key = (await iam.create_access_key(UserName="ann"))["AccessKey"]
    shown = str(await aws.state())
    assert key["AccessKeyId"] in shown
    assert key["SecretAccessKey"] not in shown


def test_the_control_api_can_be_called_without_an_event_loop(url: str) -> None:
    ask(url, "POST", "reset")
    ask(url, "POST", "touch", {"user": "ann", "things": ["user", "access_key"]})
    users = ask(url, "GET", "state")["users"]
    assert isinstance(users, list)
    assert [user["name"] for user in users] == ["ann"]
