"""The tour that ``lessor demo`` walks: each step as the command a person would type, done, and proven."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Coroutine
from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2
from lessor_server.commands.aws_use import KEY_REFUSED, AwsSaidNo, Key, describe_regions, list_users
from lessor_server.commands.dev_mount import MOUNT
from lessor_server.commands.embedded_aws import REGION
from lessor_server.commands.loopback_client import CallFailed, LoopbackClient
from lessor_server.domain.secret import Secret

ROLE: Final = "reader"
WRONG_VERSION, RIGHT_VERSION, OLD_VERSION = "2023-11-12", "2012-10-17", "2008-10-17"
SHORT_TTL: Final = 5
LOOK_SECONDS: Final = 0.25
MOST_LOOKS: Final = 240

Credentials = creds_pb2.GenerateCredentialsResponse


class StepFailed(Exception):
    """A step of the tour did not come out as it should."""


class Tour:
    """Walks the steps with one server, and stops at the first that comes out wrong."""

    def __init__(self, client: LoopbackClient, aws_url: str, say: Callable[[str], None]) -> None:
        """Ask through ``client``; keys are used against ``aws_url``; ``say`` shows a line."""
        self._client = client
        self._url = aws_url
        self._say = say

    async def walk(self) -> None:
        """Walk all steps.

        Raises:
            StepFailed: A step came out otherwise than it should.
            CallFailed: The server refused what it should do.
        """
        await self._see_the_engine()
        await self._write_a_role()
        issued = await self._issue()
        await self._use(issued)
        await self._renew(issued)
        await self._revoke(issued)
        await self._let_expire()

    async def _see_the_engine(self) -> None:
        self._step("The engine: `lessor dev` has enabled it and given it a root key of its AWS")
        self._typed(f"lessor enable {MOUNT}")
        enable = self._client.ask(self._client.config.EnableMount, config_pb2.EnableMountRequest(mount=MOUNT))
        self._show(await self._refused(enable, grpc.StatusCode.ALREADY_EXISTS))
        self._typed("lessor config root get")
        request = config_pb2.GetRootRequest(mount=MOUNT)
        root = (await self._client.ask(self._client.config.GetRoot, request)).config
        self._show(f"access_key    {root.access_key}", f"iam_endpoint  {root.iam_endpoint}")
        self._require(
            root.access_key != "" and root.secret_key == "", "the root shows its id, not its secret"
        )
        self._note("The secret key is sealed; no command shows it.")

    async def _write_a_role(self) -> None:
        self._step("A role: what its users may do")
        refused = self._client.ask(self._client.roles.PutRole, self._role(WRONG_VERSION))
        words = await self._refused(refused, grpc.StatusCode.INVALID_ARGUMENT)
        self._show(words)
        self._require(RIGHT_VERSION in words and OLD_VERSION in words, "the refusal names the two versions")
        self._note(
            "IAM knows two versions of its policy language. A typo is found here, not at the first user."
        )
        stored = (await self._client.ask(self._client.roles.PutRole, self._role(RIGHT_VERSION))).role
        self._show(f"name  {stored.name}", f"etag  {stored.etag}")
        self._require(stored.name == ROLE, "the role is stored")

    async def _issue(self) -> Credentials:
        self._step("Credentials: an IAM user of one's own, made now")
        issued = await self._generate("")
        self._require(issued.lease_renewable, "the lease can be renewed")
        return issued

    async def _use(self, issued: Credentials) -> None:
        self._step("The key opens what the role allows, and nothing else")
        self._export(issued)
        self._require(REGION in await self._regions(issued), f"the regions are listed, {REGION} among them")
        self._aws("iam list-users")
        await self._said_no(list_users(self._key(issued)), {"AccessDenied"})

    async def _renew(self, issued: Credentials) -> None:
        self._step("The lease: renewed while it is needed")
        self._typed(f"lessor lease renew {issued.lease_id} --increment 1h")
        request = lease_pb2.RenewLeaseRequest(lease_id=issued.lease_id, increment=Duration(seconds=3600))
        renewed = await self._client.ask(self._client.leases.RenewLease, request)
        self._show(
            f"lease_duration  {renewed.lease_duration.seconds} s",
            f"expire_time     {renewed.expire_time.ToJsonString()}",
        )
        self._require(renewed.lease_duration.seconds == 3600, "the lease has an hour from now")

    async def _revoke(self, issued: Credentials) -> None:
        self._step("The end: revoked, the key is refused at once")
        self._typed(f"lessor lease revoke {issued.lease_id} --sync")
        request = lease_pb2.RevokeLeaseRequest(lease_id=issued.lease_id, sync=True)
        outcome = (await self._client.ask(self._client.leases.RevokeLease, request)).outcome
        self._show(lease_pb2.RevokeLeaseResponse.Outcome.Name(outcome))
        self._require(outcome == lease_pb2.RevokeLeaseResponse.GONE, "the user is gone")
        await self._key_refused(issued)

    async def _let_expire(self) -> None:
        self._step(f"Nobody revokes: a lease of {SHORT_TTL} seconds ends by itself")
        issued = await self._generate(f"{SHORT_TTL}s")
        self._export(issued)
        self._require(REGION in await self._regions(issued), "the new key works")
        self._note(f"Waiting {SHORT_TTL} s …")
        await self._gone(issued.lease_id)
        self._typed(f"lessor lease lookup {issued.lease_id}")
        self._show("state  GONE")
        await self._key_refused(issued)

    # --- what steps are made of -------------------------------------------------------------------

    async def _generate(self, ttl: str) -> Credentials:
        self._typed(f"lessor creds {ROLE}" + (f" --ttl {ttl}" if ttl else ""))
        request = creds_pb2.GenerateCredentialsRequest(mount=MOUNT, role=ROLE)
        if ttl:
            request.ttl.FromSeconds(SHORT_TTL)
        issued = await self._client.ask(self._client.creds.GenerateCredentials, request)
        self._show(
            f"lease_id        {issued.lease_id}",
            f"lease_duration  {issued.lease_duration.seconds} s",
            f"access_key      {issued.access_key}",
            f"secret_key      {shortened(issued.secret_key)}",
        )
        return issued

    def _role(self, version: str) -> role_pb2.PutRoleRequest:
        """Show a policy of ``version`` being written, and return the request that puts it into the role."""
        allow = {"Effect": "Allow", "Action": "ec2:DescribeRegions", "Resource": "*"}
        policy = {"Version": version, "Statement": [allow]}
        self._typed("cat policy.json")
        self._show(json.dumps(policy))
        self._typed(f"lessor role put {ROLE} --type iam_user --policy-document @policy.json")
        role = role_pb2.Role(
            name=ROLE,
            credential_type=role_pb2.Role.IAM_USER,
            policy_document=ParseDict(policy, Struct()),
        )
        return role_pb2.PutRoleRequest(mount=MOUNT, role=role)

    async def _gone(self, lease_id: str) -> None:
        """Look at a lease until it is gone, at most a minute long."""
        request = lease_pb2.LookupLeaseRequest(lease_id=lease_id)
        for _ in range(MOST_LOOKS):
            lease = (await self._client.ask(self._client.leases.LookupLease, request)).lease
            if lease.state == lease_pb2.Lease.GONE:
                return
            await asyncio.sleep(LOOK_SECONDS)
        raise StepFailed("the lease still stands after a minute")

    def _key(self, issued: Credentials) -> Key:
        return Key(self._url, issued.access_key, Secret(issued.secret_key))

    async def _regions(self, issued: Credentials) -> list[str]:
        self._aws("ec2 describe-regions")
        try:
            found = await describe_regions(self._key(issued))
        except AwsSaidNo as no:
            raise StepFailed(f"the key should list the regions, but AWS says {no}") from None
        self._show(f"{', '.join(found[:3])}, … {len(found)} regions")
        return found

    async def _key_refused(self, issued: Credentials) -> None:
        self._aws("ec2 describe-regions")
        await self._said_no(describe_regions(self._key(issued)), KEY_REFUSED)

    async def _said_no(self, use: Coroutine[object, object, object], codes: Collection[str]) -> None:
        """Await what AWS must refuse with one of ``codes``, and show its words."""
        try:
            await use
        except AwsSaidNo as no:
            self._show(str(no))
            self._require(no.code in codes, f"AWS refuses with {' or '.join(sorted(codes))}")
            return
        raise StepFailed("AWS allowed what it should refuse")

    async def _refused(self, call: Coroutine[object, object, object], code: grpc.StatusCode) -> str:
        """Await what the server must refuse with ``code``, and return its words."""
        try:
            await call
        except CallFailed as failed:
            if failed.code is not code:
                raise
            return str(failed)
        raise StepFailed(f"the server took what it should refuse with {code.name}")

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise StepFailed(f"it should be that {what}")

    # --- how it looks -----------------------------------------------------------------------------

    def _step(self, title: str) -> None:
        self._say(f"\n{title}")

    def _typed(self, line: str) -> None:
        self._say(f"  $ {line}")

    def _export(self, issued: Credentials) -> None:
        secret = shortened(issued.secret_key)
        self._typed(f"export AWS_ACCESS_KEY_ID={issued.access_key} AWS_SECRET_ACCESS_KEY={secret}")

    def _aws(self, line: str) -> None:
        self._typed(f"aws --endpoint-url {self._url} --region {REGION} {line}")

    def _show(self, *lines: str) -> None:
        for line in lines:
            self._say(f"    {line}")

    def _note(self, text: str) -> None:
        self._say(f"  {text}")


def shortened(secret: str) -> str:
    """Return the beginning of a secret: enough to know it again, too little to use."""
    return f"{secret[:4]}…"
