"""ConfigService: mounts and their roots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from lessor.v1 import config_pb2 as pb
from lessor_server.domain.aws.partition import canonical_url
from lessor_server.domain.mount import DEFAULT_LEASE_TTL, DEFAULT_MAX_USERS, Mount, MountState
from lessor_server.domain.root import Hop, Root, RootConfig
from lessor_server.domain.secret import Secret
from lessor_server.engine.config.mounts import Mounts
from lessor_server.engine.config.root_checker import RootChecker
from lessor_server.engine.rotation.root_keys import RootKeys
from lessor_server.engine.upkeep.mount_remover import MountRemover
from lessor_server.services import messages
from lessor_server.services.call import Caller
from lessor_server.services.messages import Problems

_STATES = {MountState.ENABLED: pb.Mount.ENABLED, MountState.DISABLING: pb.Mount.DISABLING}
_TUNABLE = ("description", "default_lease_ttl", "max_lease_ttl", "max_users")
_LIMITS = ("default_lease_ttl", "max_lease_ttl")
_SETTABLE = tuple(pb.RootConfig.DESCRIPTOR.fields_by_name)


class ConfigService:
    """Serves operators who manage mounts and roots."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["ConfigService"]

    def __init__(
        self, mounts: Mounts, mount_remover: MountRemover, root_checker: RootChecker, keys: RootKeys
    ) -> None:
        """Change ``mounts``; ``root_checker`` asks AWS about their roots; ``keys`` rotates root keys."""
        self._mounts = mounts
        self._mount_remover = mount_remover
        self._root_checker = root_checker
        self._keys = keys

    async def EnableMount(self, request: pb.EnableMountRequest, caller: Caller) -> pb.EnableMountResponse:
        """Enable an engine."""
        with Problems() as problems:
            name = problems.parse(messages.mount_of, request.mount)
            spans = problems.parse(messages.parse_durations, request, _LIMITS)
        mount = _limited(Mount(name), request, spans)
        return pb.EnableMountResponse(mount=_mount(await self._mounts.enable(mount, caller.principal.name)))

    async def DisableMount(self, request: pb.DisableMountRequest, caller: Caller) -> pb.DisableMountResponse:
        """Take an engine out of service."""
        name = messages.mount_of(request.mount)
        disabling = await self._mount_remover.disable(name, force=request.force, by=caller.principal.name)
        return pb.DisableMountResponse(mount=_mount(disabling.mount), leases_left=disabling.leases_left)

    async def ListMounts(self, request: pb.ListMountsRequest, _: Caller) -> pb.ListMountsResponse:
        """List engines by name."""
        with Problems() as problems:
            size = problems.parse(messages.page_size, request.page_size)
            after = problems.parse(messages.parse_page_token, request.page_token)
        found = await self._mounts.list(after, size + 1)
        page, more = await messages.fill_page(found, size, _mount)
        return pb.ListMountsResponse(mounts=page, next_page_token=page[-1].mount if more else "")

    async def TuneMount(self, request: pb.TuneMountRequest, caller: Caller) -> pb.TuneMountResponse:
        """Change an engine's limits."""
        mask = request.update_mask if request.HasField("update_mask") else FieldMask(paths=_TUNABLE)
        with Problems() as problems:
            name = problems.parse(messages.mount_of, request.mount)
            paths = messages.paths(mask, _TUNABLE, f"name of {', '.join(_TUNABLE)}", problems)
            problems.parse(
                messages.parse_durations, messages.apply_mask(pb.TuneMountRequest(), request, paths), _LIMITS
            )

        def change(before: Mount) -> Mount:
            stored = pb.TuneMountRequest(
                description=before.description,
                default_lease_ttl=messages.to_duration(before.default_lease_ttl),
                max_lease_ttl=messages.to_duration(before.max_lease_ttl),
                max_users=before.max_users,
            )
            tuned = messages.apply_mask(stored, request, paths)
            return _limited(before, tuned, messages.parse_durations(tuned, _LIMITS))

        tuned = await self._mounts.tune(name, change, caller.principal.name)
        return pb.TuneMountResponse(mount=_mount(tuned))

    async def SetRoot(self, request: pb.SetRootRequest, caller: Caller) -> pb.SetRootResponse:
        """Give an engine its root."""
        masked = request.HasField("update_mask")
        with Problems() as problems:
            name = problems.parse(messages.mount_of, request.mount)
            if not request.HasField("config"):
                problems.add("config", "is missing", "send the root to set")
            paths = messages.paths(
                request.update_mask, _SETTABLE, "name fields of RootConfig, whole", problems
            )
            sent = messages.apply_mask(pb.RootConfig(), request.config, paths) if masked else request.config
            config = problems.parse(_config, sent)

        def change(before: RootConfig | None) -> RootConfig:
            if not masked:
                return config
            stored = _config_message(before, with_secret=True) if before else pb.RootConfig()
            return _config(messages.apply_mask(stored, request.config, paths))

        by = caller.principal.name
        root = await self._mounts.set_root(name, request.config.etag, change, by, whole=not masked)
        return pb.SetRootResponse(config=_root(root))

    async def GetRoot(self, request: pb.GetRootRequest, _: Caller) -> pb.GetRootResponse:
        """Show an engine's root, without its secret."""
        return pb.GetRootResponse(config=_root(await self._mounts.get_root(messages.mount_of(request.mount))))

    async def RotateRoot(self, request: pb.RotateRootRequest, caller: Caller) -> pb.RotateRootResponse:
        """Replace the root's access key by a new one."""
        mount = messages.mount_of(request.mount)
        by = caller.principal.name
        key_id = await self._keys.rotate(mount, by, delete_other_key=request.delete_other_key)
        return pb.RotateRootResponse(access_key=key_id)

    async def CheckRoot(self, request: pb.CheckRootRequest, _: Caller) -> pb.CheckRootResponse:
        """Ask AWS who the root is and what it may do, and return the least policy that it needs."""
        name = messages.mount_of(request.mount)
        await self._mounts.get(name)
        check = await self._root_checker.check_root(name)
        policy = Struct()
        policy.update(check.policy)
        answer = pb.CheckRootResponse(
            arn=check.identity.arn,
            user_id=check.identity.user_id,
            account=check.identity.account.rpartition(":")[2],
            root_kind=pb.CheckRootResponse.RootKind.Value(check.kind.name),
            least_policy=policy,
            warnings=check.warnings,
        )
        for action, verdict in check.verdicts.items():
            answer.actions.add(action=action, verdict=pb.RootAction.Verdict.Value(verdict.name))
        return answer

    async def SetLeaseDefaults(
        self, request: pb.SetLeaseDefaultsRequest, caller: Caller
    ) -> pb.SetLeaseDefaultsResponse:
        """Set the default ttl of an engine's users, for roles without one."""
        with Problems() as problems:
            name = problems.parse(messages.mount_of, request.mount)
            spans = problems.parse(messages.parse_durations, request, ("lease", "lease_max"))

        def change(before: Mount) -> Mount:
            return replace(before, lease=spans["lease"], lease_max=spans["lease_max"])

        mount = await self._mounts.tune(name, change, caller.principal.name)
        return pb.SetLeaseDefaultsResponse(
            mount=mount.name,
            lease=messages.to_duration(mount.lease),
            lease_max=messages.to_duration(mount.lease_max),
        )

    async def GetLeaseDefaults(
        self, request: pb.GetLeaseDefaultsRequest, _: Caller
    ) -> pb.GetLeaseDefaultsResponse:
        """Show the default ttl of an engine's users, for roles without one."""
        mount = await self._mounts.get(messages.mount_of(request.mount))
        return pb.GetLeaseDefaultsResponse(
            mount=mount.name,
            lease=messages.to_duration(mount.lease),
            lease_max=messages.to_duration(mount.lease_max),
        )


def _limited(
    mount: Mount,
    message: pb.EnableMountRequest | pb.TuneMountRequest,
    spans: Mapping[str, timedelta | None],
) -> Mount:
    """Return ``mount`` with a message's description and limits; its ``spans`` were read before."""
    longest = spans["max_lease_ttl"] or DEFAULT_LEASE_TTL
    return replace(
        mount,
        description=message.description,
        default_lease_ttl=spans["default_lease_ttl"] or min(DEFAULT_LEASE_TTL, longest),
        max_lease_ttl=longest,
        max_users=message.max_users or DEFAULT_MAX_USERS,
    )


def _mount(mount: Mount) -> pb.Mount:
    return pb.Mount(
        mount=mount.name,
        description=mount.description,
        default_lease_ttl=messages.to_duration(mount.default_lease_ttl),
        max_lease_ttl=messages.to_duration(mount.max_lease_ttl),
        max_users=mount.max_users,
        state=_STATES[mount.state],
        create_time=messages.timestamp(mount.created_us),
    )


def _config(message: pb.RootConfig) -> RootConfig:
    """Return the root of a message, or raise ``Invalid`` with all problems of its shape."""
    spans = messages.parse_durations(message, ("rotation_period", "rotation_window"), "config")
    return RootConfig(
        access_key=message.access_key,
        secret_key=Secret(message.secret_key),
        region=message.region,
        iam_endpoint=canonical_url(message.iam_endpoint),
        sts_endpoint=canonical_url(message.sts_endpoint),
        sts_region=message.sts_region,
        sts_fallback_endpoints=tuple(map(canonical_url, message.sts_fallback_endpoints)),
        sts_fallback_regions=tuple(message.sts_fallback_regions),
        max_retries=message.max_retries if message.HasField("max_retries") else None,
        username_template=message.username_template,
        assume_chain=tuple(Hop(hop.role_arn, hop.external_id) for hop in message.assume_chain),
        identity_token_file=message.identity_token_file,
        identity_token_audience=message.identity_token_audience,
        rotation_period=spans["rotation_period"],
        rotation_schedule=message.rotation_schedule,
        rotation_window=spans["rotation_window"],
    )


def _root(root: Root) -> pb.RootConfig:
    message = _config_message(root.config, with_secret=False)
    message.account = root.account.rpartition(":")[2]
    message.etag = root.config.etag
    return message


def _config_message(config: RootConfig, *, with_secret: bool) -> pb.RootConfig:
    message = pb.RootConfig(
        access_key=config.access_key,
        secret_key=config.secret_key.reveal() if with_secret else "",
        region=config.region,
        iam_endpoint=config.iam_endpoint,
        sts_endpoint=config.sts_endpoint,
        sts_region=config.sts_region,
        sts_fallback_endpoints=config.sts_fallback_endpoints,
        sts_fallback_regions=config.sts_fallback_regions,
        max_retries=config.max_retries,
        username_template=config.username_template,
        identity_token_file=config.identity_token_file,
        identity_token_audience=config.identity_token_audience,
        rotation_period=messages.to_duration(config.rotation_period),
        rotation_schedule=config.rotation_schedule,
        rotation_window=messages.to_duration(config.rotation_window),
    )
    for hop in config.assume_chain:
        message.assume_chain.add(role_arn=hop.role_arn, external_id=hop.external_id)
    return message
