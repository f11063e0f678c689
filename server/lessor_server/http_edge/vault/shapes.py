"""Our messages in the shapes that Vault's clients read."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2
from lessor_server.domain.policy import policy
from lessor_server.http_edge.vault.parameters import compact
from lessor_server.services import messages

PLUGIN: Final = "v0.1.0+lessor"
DEFAULT_SECONDS: Final = 2_764_800
"""A mount's limits of 768 h, Vault's own default, are shown as 0: the default."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Shape = dict[str, object]


def iso(time: Timestamp) -> str:
    """Return an instant as RFC 3339 has it."""
    instant = _EPOCH + timedelta(seconds=time.seconds, microseconds=time.nanos // 1000)
    return instant.isoformat().replace("+00:00", "Z")


def iso_us(instant_us: int) -> str:
    """Return an instant in microseconds as RFC 3339 has it."""
    return (_EPOCH + timedelta(microseconds=instant_us)).isoformat().replace("+00:00", "Z")


def derived_uuid(text: str) -> str:
    """Return a UUID that is always the same for a text (RFC 9562, version 8)."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    number = number & ~(0xF << 76) & ~(0x3 << 62) | 0x8 << 76 | 0x2 << 62
    return str(UUID(int=number))


def mount_shape(mount: config_pb2.Mount) -> Shape:
    """Return a mount as the list of mounts has it."""
    return {
        "type": "aws",
        "description": mount.description,
        "accessor": f"aws_{hashlib.sha256(mount.mount.encode()).hexdigest()[:8]}",
        "uuid": derived_uuid(f"mount/{mount.mount}"),
        "options": None,
        "local": False,
        "seal_wrap": False,
        "external_entropy_access": False,
        "plugin_version": "",
        "running_plugin_version": PLUGIN,
        "running_sha256": "",
        "config": {
            "default_lease_ttl": _unless_default(mount.default_lease_ttl),
            "max_lease_ttl": _unless_default(mount.max_lease_ttl),
            "force_no_cache": False,
            "max_users": mount.max_users,
        },
    }


def tune_shape(mount: config_pb2.Mount) -> Shape:
    """Return a mount's limits."""
    return {
        "default_lease_ttl": mount.default_lease_ttl.seconds,
        "max_lease_ttl": mount.max_lease_ttl.seconds,
        "description": mount.description,
        "force_no_cache": False,
        "max_users": mount.max_users,
    }


def root_shape(root: config_pb2.RootConfig) -> Shape:
    """Return a root, without its secret key."""
    chain = [hop.role_arn for hop in root.assume_chain]
    return {
        "access_key": root.access_key,
        "region": root.region,
        "iam_endpoint": root.iam_endpoint,
        "sts_endpoint": root.sts_endpoint,
        "sts_region": root.sts_region,
        "sts_fallback_endpoints": list(root.sts_fallback_endpoints),
        "sts_fallback_regions": list(root.sts_fallback_regions),
        "max_retries": root.max_retries if root.HasField("max_retries") else -1,
        "username_template": root.username_template,
        "role_arn": chain[0] if len(chain) == 1 else "",
        "identity_token_audience": root.identity_token_audience,
        "identity_token_ttl": 0,
        "rotation_period": root.rotation_period.seconds,
        "rotation_schedule": root.rotation_schedule,
        "rotation_window": root.rotation_window.seconds,
        "disable_automated_rotation": False,
        "identity_token_file": root.identity_token_file,
        "assume_chain": chain,
        "account": root.account,
    }


def role_shape(role: role_pb2.Role) -> Shape:
    """Return a role; its policy is one text, as Terraform and hvac need it."""
    return {
        "credential_type": role_pb2.Role.CredentialType.Name(role.credential_type).lower(),
        "role_arns": list(role.role_arns),
        "policy_arns": list(role.policy_arns),
        "policy_document": _policy_text(role),
        "iam_groups": list(role.iam_groups),
        "iam_tags": dict(role.iam_tags),
        "session_tags": dict(role.session_tags),
        "external_id": role.external_id,
        "user_path": role.user_path,
        "permissions_boundary_arn": role.permissions_boundary_arn,
        "default_sts_ttl": role.default_sts_ttl.seconds,
        "max_sts_ttl": role.max_sts_ttl.seconds,
        "mfa_serial_number": role.mfa_serial_number,
        "default_ttl": role.default_ttl.seconds,
        "max_ttl": role.max_ttl.seconds,
        "max_leases": role.max_leases,
        "source_identity": role.source_identity,
        "transitive_tag_keys": list(role.transitive_tag_keys),
        "wait_usable": role.wait_usable.seconds,
        "etag": role.etag,
    }


def credentials_shape(made: creds_pb2.GenerateCredentialsResponse) -> Shape:
    """Return issued credentials; those of STS have a life and perhaps an ARN."""
    token = made.security_token or None
    shape: Shape = {
        "access_key": made.access_key,
        "secret_key": made.secret_key,
        "security_token": token,
        "session_token": token,
    }
    if token is not None:
        shape["ttl"] = made.lease_duration.seconds
        if ":assumed-role/" in made.arn:
            shape["arn"] = made.arn
    return shape


def lease_shape(lease: lease_pb2.Lease) -> Shape:
    """Return a lease."""
    renewed = lease.last_renewal_time
    return {
        "id": lease.lease_id,
        "path": lease.lease_id.rpartition("/")[0],
        "issue_time": iso(lease.issue_time),
        "expire_time": iso(lease.expire_time),
        "last_renewal": iso(renewed) if lease.HasField("last_renewal_time") else None,
        "renewable": lease.renewable,
        "ttl": lease.ttl.seconds,
        "state": lease_pb2.Lease.State.Name(lease.state).lower(),
        "access_key": lease.access_key,
        "owner": lease.owner,
        "reason": lease.reason,
        "last_error": lease.last_error,
    }


def static_role_shape(mount: str, role: role_pb2.StaticRole) -> Shape:
    """Return a static role."""
    shape: Shape = {
        "name": role.name,
        "id": derived_uuid(f"static-role/{mount}/{role.name}"),
        "username": role.username,
        "rotation_period": role.rotation_period.seconds,
    }
    if role.rotation_schedule:
        shape["rotation_schedule"] = role.rotation_schedule
        shape["rotation_window"] = role.rotation_window.seconds
    if role.held:
        shape["held"] = True
    if role.assume_chain:
        shape["assume_role_arn"] = role.assume_chain[-1].role_arn
    return shape


def static_credentials_shape(found: creds_pb2.GetStaticCredentialsResponse, now_us: int) -> Shape:
    """Return the key of a static role; the last members let templates read it again after a rotation."""
    next_us = found.next_rotation_time.ToMicroseconds()
    shape: Shape = {"access_key": found.access_key, "secret_key": found.secret_key}
    if not next_us:
        return shape
    period = found.rotation_period.seconds
    return {
        **shape,
        "expiration": iso_us(next_us),
        "rotation_period": period,
        "ttl": max((next_us - now_us) // 1_000_000, 0),
        "last_vault_rotation": iso_us(next_us - period * 1_000_000),
    }


def _policy_text(role: role_pb2.Role) -> str:
    if not role.HasField("policy_document"):
        return ""
    document = messages.parse_document(role.policy_document, "policy_document")
    return policy.canonical(document) if document else compact({})


def _unless_default(span: Duration) -> int:
    return 0 if span.seconds == DEFAULT_SECONDS else span.seconds
