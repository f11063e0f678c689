"""The owner of the access key that a rotation replaces, and the credentials that sign its calls."""

from __future__ import annotations

from dataclasses import replace

from lessor_server.domain.aws.errors import AwsRefused, Refusal, for_caller
from lessor_server.domain.aws.iam_calls import GetUser
from lessor_server.domain.errors.base import LessorError, NotFound, Precondition
from lessor_server.domain.errors.preconditions import (
    MountDisabling,
    RootAccountChanged,
    RootKeyInUse,
    RootNotRotatable,
    RootNotSet,
    SealBroken,
    StaticKeyInUse,
    StaticUserChanged,
    StaticUserTaken,
    StaticUserUnknown,
)
from lessor_server.domain.mount import MountState
from lessor_server.domain.root import Hop, Root
from lessor_server.domain.rotation import Rotation, key_context, root_subject
from lessor_server.domain.secret import Secret
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.paging import iter_mount_names
from lessor_server.engine.ports import Store
from lessor_server.engine.sealing_ports import Sealer


async def require_enabled(store: Store, mount: str) -> None:
    """Raise ``NotFound`` or ``MountDisabling`` if a mount accepts no new keys."""
    found = await store.get_mount(mount)
    if found is None:
        raise NotFound("mount", mount)
    if found.state is not MountState.ENABLED:
        raise MountDisabling(f"mount {mount} is being disabled", subject=mount)


async def find_other_use(store: Store, roots: Roots, key_id: str, subject: str) -> Precondition | None:
    """Return why the rotation of ``subject`` must not delete a key: another mount or static role uses it."""
    mount = await _find_mount_with(store, roots, (key_id,))
    if mount:
        return RootKeyInUse(f"key {key_id} is the root of mount {mount}", subject=mount)
    role = await store.find_static_holder(key_id, subject)
    if role is not None:
        return StaticKeyInUse(f"key {key_id} is that of {role.title}", subject=f"{role.mount}/{role.name}")
    return None


async def require_no_root(store: Store, roots: Roots, rotation: Rotation, listed: tuple[str, ...]) -> None:
    """Raise ``StaticUserTaken`` if the user with the keys ``listed`` is that of a root.

    The server's own key is stored with no mount; for the rotation's mount, AWS reports its user.
    """
    mount = await _find_mount_with(store, roots, listed)
    if not mount and await _uses_server_credentials(roots, rotation):
        mount = rotation.mount
    if mount:
        raise StaticUserTaken(rotation.user_name, Rotation(root_subject(mount)).title)


async def _uses_server_credentials(roots: Roots, rotation: Rotation) -> bool:
    """Return whether the mount's root uses the server's own credentials, and these are the user's."""
    root = await roots.get(rotation.mount)
    if root.config.access_key or root.config.identity_token_file:
        return False
    return (await roots.identity(_user_of(root, rotation))).user_id == rotation.user_id


async def _find_mount_with(store: Store, roots: Roots, key_ids: tuple[str, ...]) -> str:
    """Return the first mount whose root has one of the keys; empty if none has."""
    async for mount in iter_mount_names(store):
        try:
            if (await roots.get(mount)).config.access_key in key_ids:
                return mount
        except (RootNotSet, SealBroken):
            continue
    return ""


async def get_signing_root(roots: Roots, rotation: Rotation) -> Root:
    """Return the root that signs for a rotation: a root's own user, or a role assumed from the root.

    Raises:
        AwsUnavailable: AWS does not answer for the account.
    """
    root = await roots.get(rotation.mount)
    if rotation.is_root and root.config.access_key and root.config.assume_chain:
        root = _user_of(root, rotation)
        if not root.account:
            root = replace(root, account=(await roots.identity(root)).account)
    else:
        root = _assumed(await roots.bind(root), rotation.assume_chain)
    roots.limiter(root).require_open()
    return root


def _user_of(root: Root, rotation: Rotation) -> Root:
    """Return the root as the user of its key: without the chain, and with that user's account.

    The account at the chain's end may differ; only the rotation of this key knows that of its user.
    """
    if not root.config.assume_chain:
        return root
    known = rotation.is_root and root.config.access_key == rotation.current
    account = rotation.account if known else ""
    return replace(root, account=account, config=replace(root.config, assume_chain=()))


def _assumed(root: Root, chain: tuple[Hop, ...]) -> Root:
    """Return ``root`` with a chain appended."""
    if not chain:
        return root
    _, partition, _, _, number, _ = chain[-1].role_arn.split(":", 5)
    config = replace(root.config, assume_chain=(*root.config.assume_chain, *chain))
    return replace(root, account=f"{partition}:{number}", config=config)


async def refresh_owner(roots: Roots, rotation: Rotation) -> Rotation:
    """Return the row with AWS's current data of the user.

    Raises:
        RootNotRotatable, StaticUserUnknown, StaticUserChanged, RootAccountChanged: The rotation must stop.
    """
    if not rotation.is_root:
        return await _refresh_static_user(roots, await get_signing_root(roots, rotation), rotation)
    root = _user_of(await roots.get(rotation.mount), rotation)
    if not root.config.access_key:
        raise _not_rotatable(rotation.mount)
    roots.limiter(root).require_open()
    return await _refresh_root_user(roots, root, rotation)


async def _refresh_root_user(roots: Roots, root: Root, rotation: Rotation) -> Rotation:
    identity = await roots.identity(root)
    resource = identity.arn.split(":", 5)[-1]
    if not resource.startswith("user/"):
        raise _not_rotatable(rotation.mount)
    user_name = resource.rpartition("/")[2]
    same = (identity.account, user_name) == (rotation.account, rotation.user_name)
    return replace(
        rotation,
        account=identity.account,
        user_name=user_name,
        user_id=identity.user_id,
        current=root.config.access_key,
        last_check_us=rotation.last_check_us if same else 0,
    )


def _not_rotatable(mount: str) -> RootNotRotatable:
    return RootNotRotatable(f"the root of {mount} is not an IAM user with a stored access key", subject=mount)


async def _refresh_static_user(roots: Roots, root: Root, rotation: Rotation) -> Rotation:
    if rotation.account not in ("", root.account):
        raise RootAccountChanged(
            f"user {rotation.user_name} is of another account than the root", subject=rotation.mount
        )
    outcome = await roots.caller(root).call(GetUser(rotation.user_name))
    if isinstance(outcome, AwsRefused) and outcome.refusal is Refusal.NO_SUCH_USER:
        unknown = StaticUserUnknown(f"AWS knows no user {rotation.user_name}", subject=rotation.user_name)
        unknown.aws = outcome.aws
        raise unknown
    if isinstance(outcome, LessorError):
        raise for_caller(outcome)
    found = outcome
    if rotation.user_id not in ("", found.user_id) or found.name != rotation.user_name:
        raise changed_user(rotation)
    return replace(rotation, account=root.account, user_id=found.user_id)


def changed_user(rotation: Rotation) -> StaticUserChanged:
    """Return the error of a static role whose user was replaced by another."""
    message = f"user {rotation.user_name} is not the one that the static role was stored for"
    return StaticUserChanged(message, subject=rotation.user_name)


def open_fresh(sealer: Sealer, rotation: Rotation) -> Secret:
    """Decrypt the secret of a key that a rotation has made and not put to use, or has just put to use."""
    place = key_context(rotation.subject)
    return Secret(sealer.open(rotation.fresh_sealed, place, rotation.fresh_version).decode())


async def list_signing_roots(roots: Roots, sealer: Sealer, rotation: Rotation) -> list[Root]:
    """Return the roots that can delete the keys of a rotation, best first; none of another account.

    A root's user may delete its own keys, so the rotation's key can sign if the root was set again.
    """
    root = await get_signing_root(roots, rotation)
    found = [root] if root.account == rotation.account else []
    if rotation.is_root and rotation.fresh_sealed:
        secret = open_fresh(sealer, rotation)
        config = replace(
            root.config,
            access_key=rotation.fresh or rotation.current,
            secret_key=secret,
            assume_chain=(),
            identity_token_file="",
            identity_token_audience="",
        )
        found.append(replace(root, account=rotation.account, config=config))
    return found
