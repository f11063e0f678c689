"""Rows to values and back; no row leaves the store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from lessor_server.domain.lease import Footprint, Intent, Lease, Request, State
from lessor_server.domain.mount import Mount, MountState
from lessor_server.domain.role import CredentialType, Role
from lessor_server.domain.root import StoredRoot

Params = dict[str, str | int | bytes | None]

_MICROSECOND = timedelta(microseconds=1)
_STATES = {state.value: state for state in State}
_TYPES = {kind.value: kind for kind in CredentialType}
_SPANS = ("default_sts_ttl", "max_sts_ttl", "default_ttl", "max_ttl")
_LISTS = ("role_arns", "policy_arns", "iam_groups", "transitive_tag_keys")
_TEXTS = (
    "policy_document",
    "source_identity",
    "external_id",
    "user_path",
    "permissions_boundary_arn",
    "mfa_serial_number",
)


def us(span: timedelta) -> int:
    """Return a span in microseconds."""
    return span // _MICROSECOND


def span(value: int) -> timedelta:
    """Return a span of ``value`` microseconds."""
    return timedelta(microseconds=value)


def lease(row: sqlite3.Row | tuple[Any, ...]) -> Lease:
    """Return the lease of a row with ``LEASE_COLUMNS``."""
    (
        id_, mount, role, kind, owner, state, generation, due_us, account, user_name, user_path,
        inline_policy, policy_arns, groups, key_id, ttl_us, created_us, issue_us, last_renewal_us,
        expires_us, max_expires_us, attempts, looks, last_error, last_create_us,
        request_id, request_digest, untaken, reason,
    ) = row  # fmt: skip
    footprint = Footprint(account, user_name, user_path, inline_policy, _texts(policy_arns), _texts(groups))
    return Lease(
        id=id_,
        mount=mount,
        role=role,
        credential_type=_TYPES[kind],
        owner=owner,
        state=_STATES[state],
        generation=generation,
        footprint=footprint,
        access_key_id=key_id,
        ttl=span(ttl_us),
        created_us=created_us,
        issue_us=issue_us,
        last_renewal_us=last_renewal_us,
        expires_us=expires_us,
        max_expires_us=max_expires_us,
        due_us=due_us,
        attempts=attempts,
        looks=looks,
        last_error=last_error,
        last_create_us=last_create_us,
        request=Request(request_id, request_digest) if request_id else None,
        untaken=bool(untaken),
        reason=reason,
    )


def intent(wanted: Intent) -> Params:
    """Return the parameters of ``BEGIN`` that come from the intent."""
    footprint = wanted.footprint
    return {
        "id": wanted.id,
        "mount": wanted.mount,
        "role": wanted.role,
        "credential_type": wanted.credential_type.value,
        "owner": wanted.owner,
        "account": footprint.account,
        "user_name": footprint.user_name,
        "user_path": footprint.user_path,
        "inline_policy": footprint.inline_policy,
        "policy_arns": _list(footprint.policy_arns),
        "groups": _list(footprint.groups),
        "ttl_us": us(wanted.ttl),
        "max_ttl_us": us(wanted.max_ttl),
        "max_users": wanted.max_users,
        "max_leases": wanted.max_leases,
        "root_version": wanted.root_version,
        "request_id": wanted.request.id if wanted.request else "",
        "request_digest": wanted.request.digest if wanted.request else "",
        "reason": wanted.reason,
    }


def mount(row: sqlite3.Row | tuple[Any, ...]) -> Mount:
    """Return the mount of a row with ``MOUNT_COLUMNS``."""
    name, description, default_us, max_us, max_users, lease_us, lease_max_us, state, created_us = row
    return Mount(
        name=name,
        description=description,
        default_lease_ttl=span(default_us),
        max_lease_ttl=span(max_us),
        max_users=max_users,
        lease=None if lease_us is None else span(lease_us),
        lease_max=None if lease_max_us is None else span(lease_max_us),
        state=MountState(state),
        created_us=created_us,
    )


def mount_params(value: Mount) -> Params:
    """Return the parameters that store a mount."""
    return {
        "name": value.name,
        "description": value.description,
        "default_lease_ttl_us": us(value.default_lease_ttl),
        "max_lease_ttl_us": us(value.max_lease_ttl),
        "max_users": value.max_users,
        "lease_us": None if value.lease is None else us(value.lease),
        "lease_max_us": None if value.lease_max is None else us(value.lease_max),
        "state": value.state.value,
        "created_us": value.created_us,
    }


def root(row: sqlite3.Row | tuple[Any, ...]) -> StoredRoot:
    """Return the sealed root of a row."""
    name, sealed, account, version, etag = row
    return StoredRoot(name, bytes(sealed), account, version, etag)


def role(row: sqlite3.Row | tuple[Any, ...]) -> Role:
    """Return the role of a row; members of its body that a later version wrote are passed over."""
    mount_name, name, etag, body = row
    plain: dict[str, Any] = json.loads(body)
    values: dict[str, Any] = {field: tuple(plain.get(field, ())) for field in _LISTS}
    values |= {field: plain.get(field, "") for field in _TEXTS}
    values |= {field: _span_or_none(plain.get(field)) for field in _SPANS}
    return Role(
        mount=mount_name,
        name=name,
        etag=etag,
        credential_type=CredentialType(plain["credential_type"]),
        iam_tags=_tags(plain.get("iam_tags", {})),
        session_tags=_tags(plain.get("session_tags", {})),
        max_leases=plain.get("max_leases", 0),
        **values,
    )


def role_params(value: Role) -> Params:
    """Return the parameters that store a role."""
    body: dict[str, object] = {
        "credential_type": value.credential_type.value,
        "iam_tags": dict(value.iam_tags),
        "session_tags": dict(value.session_tags),
        "max_leases": value.max_leases,
    }
    for field in (*_LISTS, *_TEXTS):
        body[field] = getattr(value, field)
    for field in _SPANS:
        stored: timedelta | None = getattr(value, field)
        body[field] = None if stored is None else us(stored)
    return {"mount": value.mount, "name": value.name, "etag": value.etag, "body": json.dumps(body)}


def _tags(plain: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(plain.items()))


def _span_or_none(value: int | None) -> timedelta | None:
    return None if value is None else span(value)


def _list(values: tuple[str, ...]) -> str:
    return json.dumps(values) if values else "[]"


def _texts(stored: str) -> tuple[str, ...]:
    return () if stored == "[]" else tuple(json.loads(stored))
