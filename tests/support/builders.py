"""Valid domain values for tests of other things."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from lessor_server.domain.access.acl import Capability, Grant
from lessor_server.domain.access.issue_limits import IssueLimits
from lessor_server.domain.lease import Footprint, Intent
from lessor_server.domain.lease_id import suffix_of
from lessor_server.domain.mount import Mount
from lessor_server.domain.policy import policy
from lessor_server.domain.role import CredentialType, Role
from lessor_server.domain.root import RootConfig, StoredRoot
from lessor_server.domain.secret import Secret

ACCOUNT = "aws:123456789012"
ROOT_KEY = "ROOT_KEY_OF_THE_TESTS"
OTHER_ROOT_KEY = "ROOT_KEY_OF_ANOTHER_ACCOUNT"
DOCUMENT = policy.canonical(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}]}
)
READ_ONLY = "arn:aws:iam::aws:policy/ReadOnlyAccess"
MANAGED = (READ_ONLY, "arn:aws:iam::aws:policy/SecurityAudit", "arn:aws:iam::aws:policy/job-function/Billing")
HOUR = timedelta(hours=1)


def mount(name: str = "aws", **changes: Any) -> Mount:
    """Return an enabled mount whose leases live an hour."""
    return replace(Mount(name, default_lease_ttl=HOUR, max_lease_ttl=24 * HOUR), **changes)


def role(name: str = "app", mount_name: str = "aws", **changes: Any) -> Role:
    """Return an IAM user role with an inline policy."""
    plain = Role(mount_name, name, CredentialType.IAM_USER, policy_document=DOCUMENT, etag="0")
    return replace(plain, **changes)


def grant(pattern: str = "aws/creds/*", **limits: Any) -> Grant:
    """Return a grant to read, with these limits."""
    return Grant(pattern, frozenset({Capability.READ}), IssueLimits(**limits))


def assumed(role_arn: str, name: str = "assumed", **changes: Any) -> Role:
    """Return a role that assumes one IAM role and has no policies."""
    plain = role(name, credential_type=CredentialType.ASSUMED_ROLE, policy_document="", role_arns=(role_arn,))
    return replace(plain, **changes)


def session_intent(number: int = 0, **changes: Any) -> Intent:
    """Return the intent of a session: it has no user."""
    kind = CredentialType.ASSUMED_ROLE
    return intent(number, credential_type=kind, footprint=Footprint(ACCOUNT, "", ""), **changes)


def root_config(access_key: str = ROOT_KEY, **changes: Any) -> RootConfig:
    """Return a root with a key pair that no user has."""
    return replace(RootConfig(access_key=access_key, secret_key=Secret("not-a-secret")), **changes)


def stored_root(mount_name: str = "aws", account: str = ACCOUNT, version: int = 1) -> StoredRoot:
    """Return a root as a store keeps it; its bytes can't be decrypted."""
    return StoredRoot(mount_name, b"sealed", account, version, f"etag-{version}")


def intent(number: int = 0, mount_name: str = "aws", role_name: str = "app", **changes: Any) -> Intent:
    """Return the intent of a plain lease; each ``number`` gives different names."""
    suffix = suffix_of(0, number)
    made = Intent(
        id=f"{mount_name}/creds/{role_name}/{suffix}",
        mount=mount_name,
        role=role_name,
        credential_type=CredentialType.IAM_USER,
        owner="root",
        footprint=Footprint(ACCOUNT, f"lessor-{suffix}", "/lessor/0123456789abcdef/", "lessor"),
        ttl=HOUR,
        max_ttl=24 * HOUR,
        max_users=5000,
        max_leases=0,
        root_version=1,
    )
    return replace(made, **changes)
