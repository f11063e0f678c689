"""What each method does to the world, which decides how it is audited. See ``permissions.py`` beside it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, cast

from google.protobuf.message import Message

from lessor.v1.lease_pb2 import ReconcileRequest


class Effect(Enum):
    """How a method is audited, and what becomes of it while no audit sink works."""

    READ = "read"
    """One record, which is not waited for. It goes on without audit."""
    READ_ROOT = "read_root"
    """One record, without which there is no answer."""
    CHANGE = "change"
    """A record before anything is done and one before each answer; without them it is refused."""
    REVOKE = "revoke"
    """The same records, but it goes on without audit: they wait in memory."""


READ, CHANGE, REVOKE = Effect.READ, Effect.CHANGE, Effect.REVOKE

EFFECTS: Final[Mapping[str, Effect]] = {
    "ConfigService.EnableMount": CHANGE,
    # Not a plain revocation: the mount's roots and roles go too, and with ``force`` users stay on AWS.
    "ConfigService.DisableMount": CHANGE,
    "ConfigService.ListMounts": READ,
    "ConfigService.TuneMount": CHANGE,
    "ConfigService.SetRoot": CHANGE,
    "ConfigService.GetRoot": Effect.READ_ROOT,
    "ConfigService.RotateRoot": CHANGE,
    "ConfigService.CheckRoot": READ,
    "ConfigService.SetLeaseDefaults": CHANGE,
    "ConfigService.GetLeaseDefaults": READ,
    "RoleService.PutRole": CHANGE,
    "RoleService.GetRole": READ,
    "RoleService.ListRoles": READ,
    "RoleService.DeleteRole": CHANGE,
    "RoleService.CheckRole": READ,
    "RoleService.PutStaticRole": CHANGE,
    "RoleService.GetStaticRole": READ,
    "RoleService.DeleteStaticRole": CHANGE,
    "RoleService.RotateStaticRole": CHANGE,
    "RoleService.ResumeStaticRole": CHANGE,
    "RoleService.ListUsableRoles": READ,
    "RoleService.ListStaticRoles": READ,
    "CredsService.GenerateCredentials": CHANGE,
    # It changes nothing, but hands a credential out.
    "CredsService.GetStaticCredentials": CHANGE,
    "CredsService.WatchCredentials": CHANGE,
    "LeaseService.LookupLease": READ,
    "LeaseService.ListLeases": READ,
    "LeaseService.CountLeases": READ,
    "LeaseService.RenewLease": CHANGE,
    "LeaseService.RevokeLease": REVOKE,
    "LeaseService.RevokePrefix": REVOKE,
    # It ends the attempts to revoke: users may stay on AWS.
    "LeaseService.AbandonLeases": CHANGE,
    "LeaseService.WatchLeases": READ,
    "LeaseService.Reconcile": CHANGE,
    "SystemService.GetInfo": READ,
    "SystemService.WhoAmI": READ,
    # The login token that it creates has records of its own.
    "SystemService.CreateSignInLink": READ,
    "SystemService.RotateSealingKey": CHANGE,
    "SystemService.Backup": CHANGE,
    "SystemService.HoldExpiry": CHANGE,
    # What has expired is then revoked; a lower clock lengthens lives, so it is not a revocation alone.
    "SystemService.ResumeExpiry": CHANGE,
    "SystemService.ReloadAccess": CHANGE,
}
"""Keys are ``Service.Rpc`` without the package."""


def effect_of(name: str, request: Message, effects: Mapping[str, Effect] = EFFECTS) -> Effect:
    """Return the effect of a method with this request: a reconcile run that only looks is a read."""
    if name == "LeaseService.Reconcile" and not cast("ReconcileRequest", request).apply:
        return READ
    return effects[name]
