"""The permission that each RPC needs. The server does not start if an RPC has none."""

from __future__ import annotations

from lessor_server.domain.access_levels import Capability

REQUIRED_CAPABILITY: dict[str, Capability] = {
    "ConfigService.EnableMount": Capability.CONFIGURE,
    "ConfigService.DisableMount": Capability.CONFIGURE,
    "ConfigService.ListMounts": Capability.READ,
    "ConfigService.TuneMount": Capability.CONFIGURE,
    "ConfigService.SetRoot": Capability.CONFIGURE,
    "ConfigService.GetRoot": Capability.CONFIGURE,
    "ConfigService.RotateRoot": Capability.CONFIGURE,
    "ConfigService.CheckRoot": Capability.CONFIGURE,
    "ConfigService.SetLeaseDefaults": Capability.CONFIGURE,
    "ConfigService.GetLeaseDefaults": Capability.READ,
    "RoleService.PutRole": Capability.CONFIGURE,
    "RoleService.GetRole": Capability.READ,
    "RoleService.ListRoles": Capability.READ,
    "RoleService.DeleteRole": Capability.CONFIGURE,
    "RoleService.CheckRole": Capability.CONFIGURE,
    "RoleService.PutStaticRole": Capability.CONFIGURE,
    "RoleService.GetStaticRole": Capability.READ,
    "RoleService.DeleteStaticRole": Capability.CONFIGURE,
    "RoleService.RotateStaticRole": Capability.CONFIGURE,
    "RoleService.ListStaticRoles": Capability.READ,
    "CredsService.GenerateCredentials": Capability.ISSUE,
    "CredsService.GetStaticCredentials": Capability.ISSUE,
    "CredsService.WatchCredentials": Capability.ISSUE,
    "LeaseService.LookupLease": Capability.LEASE,
    "LeaseService.ListLeases": Capability.LEASE,
    "LeaseService.CountLeases": Capability.LEASE,
    "LeaseService.RenewLease": Capability.LEASE,
    "LeaseService.RevokeLease": Capability.LEASE,
    "LeaseService.RevokePrefix": Capability.LEASE,
    "LeaseService.AbandonLeases": Capability.OPERATE,
    "LeaseService.WatchLeases": Capability.LEASE,
    "LeaseService.Reconcile": Capability.OPERATE,
    "SystemService.GetInfo": Capability.READ,
    "SystemService.WhoAmI": Capability.READ,
    "SystemService.RotateSealingKey": Capability.OPERATE,
    "SystemService.Backup": Capability.OPERATE,
    "SystemService.HoldExpiry": Capability.OPERATE,
    "SystemService.ResumeExpiry": Capability.OPERATE,
    "SystemService.ReloadAccess": Capability.OPERATE,
}
"""Keys are ``Service.Rpc`` without the package."""

PUBLIC = frozenset({"Health.Check", "Health.List", "Health.Watch", "ServerReflection.ServerReflectionInfo"})
"""Methods that everybody may call, without a token."""

UNBOUNDED_STREAMS = frozenset({"CredsService.WatchCredentials", "LeaseService.WatchLeases", "Health.Watch"})
"""Unbounded streams: no default deadline ends them, but a drain ends those that need a token."""
