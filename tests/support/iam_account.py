"""The IAM of one AWS account, as typed methods: in memory, no I/O, deterministic for a seeded random.

Each method follows the API page of its own name, ``…/IAM/latest/APIReference/API_<Action>.html``, and raises
``RefusalError`` where AWS answers with an error; rules from elsewhere are cited where they stand, by the last
part of their address (see ``iam_rules``).
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.support.iam_home import Home
from tests.support.iam_rules import (
    RefusalError,
    Result,
    check_document,
    check_name,
    check_path,
    check_policy_arn,
    check_tags,
    conflict,
    exists,
    missing,
    no_user,
    over_quota,
    policy_size,
)
from tests.support.iam_user import AccessKey, Thing, User, draw_id, draw_secret, iso


class Account(Home):
    """The users, policies, groups and keys of an account, and other attachments of users."""

    # --- users ---------------------------------------------------------------------------------------------

    def create_user(
        self, name: str, path: str = "/", tags: Iterable[tuple[str, str]] = (), boundary: str = ""
    ) -> User:
        """Create a user; EntityAlreadyExists regardless of case, LimitExceeded at the quota."""
        check_name(name)
        check_path(path)
        kept_tags = check_tags(tags, self.quotas.tags)
        if boundary and not self.knows_policy(boundary):
            raise missing(f"Scope ARN: {boundary} does not exist or is not attachable.")
        if name.casefold() in self.users:
            raise exists(f"User with name {name} already exists.")
        if len(self.users) >= self.quotas.users:
            raise over_quota("UsersPerAccount", self.quotas.users)
        now = self.now()
        user = User(
            name=name,
            path=path,
            arn=self.arn("user", path, name),
            id=draw_id(self.rng, "AIDA"),
            created=now,
            visible_at=now + self.visible_after,
            boundary=boundary,
            tags=kept_tags,
        )
        self.users[name.casefold()] = user
        return user

    def get_user(self, name: str) -> User:
        """Find a user by name, regardless of case; NoSuchEntity if it is missing or not visible yet."""
        user = self.users.get(name.casefold())
        if user is None or user.visible_at > self.now():
            raise no_user(name)
        return user

    def delete_user(self, name: str) -> None:
        """Delete a user; DeleteConflict while anything is attached to it."""
        user = self.get_user(name)
        user.check_empty()
        del self.users[user.name.casefold()]

    def list_users(self, path_prefix: str = "/") -> list[User]:
        """List the visible users with this path prefix, by name."""
        now = self.now()
        found = [
            user
            for user in self.users.values()
            if user.path.startswith(path_prefix) and user.visible_at <= now
        ]
        return sorted(found, key=lambda user: user.name.casefold())

    def tag_user(self, name: str, tags: Iterable[tuple[str, str]]) -> None:
        """Add tags to a user, or change their values."""
        user = self.get_user(name)
        user.tags = check_tags({**user.tags, **dict(tags)}.items(), self.quotas.tags)

    # --- policies ------------------------------------------------------------------------------------------

    def create_policy(self, name: str, document: str, path: str = "/") -> Result:
        """Make a managed policy and return its description."""
        check_name(name, "policyName", 128)
        check_document(document)
        arn = self.arn("policy", path, name)
        if arn in self.policies:
            raise exists(f"A policy called {name} already exists. Duplicate names are not allowed.")
        if policy_size(document) > self.quotas.managed_bytes:
            raise over_quota("PolicySize", self.quotas.managed_bytes)
        described: Result = {
            "PolicyName": name,
            "PolicyId": draw_id(self.rng, "ANPA"),
            "Arn": arn,
            "Path": path,
            "DefaultVersionId": "v1",
            "AttachmentCount": 0,
            "IsAttachable": True,
            "CreateDate": iso(self.now()),
        }
        self.policies[arn], self.documents[arn] = described, document
        return described

    def put_user_policy(self, user_name: str, name: str, document: str) -> None:
        """Add or replace an inline policy; a user's inline policies share one size (reference_iam-quotas)."""
        user = self.get_user(user_name)
        check_name(name, "policyName", 128)
        check_document(document)
        others = sum(policy_size(text) for other, text in user.inline.items() if other != name)
        limit = self.quotas.inline_bytes
        if others + policy_size(document) > limit:
            message = f"Maximum policy size of {limit} bytes exceeded for user {user.name}"
            raise RefusalError(409, "LimitExceeded", message)
        user.inline[name] = document

    def delete_user_policy(self, user_name: str, name: str) -> None:
        """Delete an inline policy."""
        if self.get_user(user_name).inline.pop(name, None) is None:
            raise missing(f"The user policy with name {name} cannot be found.")

    def attach_user_policy(self, user_name: str, arn: str) -> None:
        """Attach a managed policy; a repetition has no effect. All of AWS's own policies exist."""
        check_policy_arn(arn)
        user = self.get_user(user_name)
        if not self.knows_policy(arn):
            raise missing(f"Policy {arn} does not exist or is not attachable.")
        if arn in user.attached:
            return
        if len(user.attached) >= self.quotas.attached_policies:
            raise over_quota("PoliciesPerUser", self.quotas.attached_policies)
        user.attached.append(arn)

    def detach_user_policy(self, user_name: str, arn: str) -> None:
        """Detach a managed policy."""
        user = self.get_user(user_name)
        if arn not in user.attached:
            raise missing(f"Policy {arn} was not found.")
        user.attached.remove(arn)

    # --- groups --------------------------------------------------------------------------------------------

    def create_group(self, name: str, path: str = "/") -> Result:
        """Make a group and return its description."""
        check_name(name, "groupName", 128)
        check_path(path)
        if name.casefold() in self.groups:
            raise exists(f"Group with name {name} already exists.")
        described: Result = {
            "Path": path,
            "GroupName": name,
            "GroupId": draw_id(self.rng, "AGPA"),
            "Arn": self.arn("group", path, name),
            "CreateDate": iso(self.now()),
        }
        self.groups[name.casefold()] = described
        return described

    def get_group(self, name: str) -> Result:
        """Find a group's description by name."""
        try:
            return self.groups[name.casefold()]
        except KeyError:
            raise missing(f"The group with name {name} cannot be found.") from None

    def add_user_to_group(self, user_name: str, group: str) -> None:
        """Add a user to a group; a repetition changes nothing."""
        name = str(self.get_group(group)["GroupName"])
        user = self.get_user(user_name)
        if name in user.groups:
            return
        if len(user.groups) >= self.quotas.groups:
            raise over_quota("GroupsPerUser", self.quotas.groups)
        user.groups.append(name)

    def remove_user_from_group(self, user_name: str, group: str) -> None:
        """Remove a user from a group."""
        name = str(self.get_group(group)["GroupName"])
        user = self.get_user(user_name)
        if name not in user.groups:
            raise missing(f"User {user.name} not in group {name}")
        user.groups.remove(name)

    # --- access keys ---------------------------------------------------------------------------------------

    def create_access_key(self, user_name: str) -> AccessKey:
        """Create an access key; at most two for a user, regardless of status (reference_iam-quotas)."""
        user = self.get_user(user_name)
        if len(user.keys) >= self.quotas.access_keys:
            raise over_quota("AccessKeysPerUser", self.quotas.access_keys)
        return self._add_key(user, draw_id(self.rng, "AKIA"), self.visible_after)

    def delete_access_key(self, user_name: str, key_id: str) -> None:
        """Delete an access key; from now on a call signed with it is InvalidClientTokenId."""
        user = self.get_user(user_name)
        self._key(user, key_id)
        self._bury_key(user, key_id)

    def update_access_key(self, user_name: str, key_id: str, status: str) -> None:
        """Set the status of an access key, ``Active`` or ``Inactive``."""
        if status not in ("Active", "Inactive"):
            raise RefusalError(400, "ValidationError", f"Value '{status}' at 'status' is not valid.")
        self._key(self.get_user(user_name), key_id).status = status

    # --- what others hang on a user ------------------------------------------------------------------------

    def create_login_profile(self, user_name: str) -> Result:
        """Give a user a console password and return the profile's description."""
        user = self.get_user(user_name)
        if user.login_profile is not None:
            raise exists(f"Login Profile for user {user.name} already exists.")
        user.login_profile = self.now()
        return self.login_profile(user_name)

    def login_profile(self, user_name: str) -> Result:
        """Describe a user's login profile (API_GetLoginProfile)."""
        user = self.get_user(user_name)
        if user.login_profile is None:
            raise missing(f"Login Profile for User {user.name} cannot be found.")
        return {
            "UserName": user.name,
            "CreateDate": iso(user.login_profile),
            "PasswordResetRequired": False,
        }

    def delete_login_profile(self, user_name: str) -> None:
        """Delete a user's console password."""
        self.login_profile(user_name)
        self.get_user(user_name).login_profile = None

    def enable_mfa_device(self, user_name: str, *, virtual: bool) -> str:
        """Give a user an MFA device and return its serial number, an ARN if virtual (API_MFADevice)."""
        user = self.get_user(user_name)
        mark = draw_id(self.rng, "GAHT")
        serial = self.arn("mfa", "/", f"{user.name[:40]}-{mark[4:]}") if virtual else mark
        user.mfa[serial] = self.now()
        if virtual:
            self.virtual_mfa[serial] = user.name
        return serial

    def deactivate_mfa_device(self, user_name: str, serial: str) -> None:
        """Remove an MFA device from its user; a virtual one stays on the account until it is deleted."""
        if self.get_user(user_name).mfa.pop(serial, None) is None:
            raise missing(f"MFA Device with serial number {serial} cannot be found.")
        if serial in self.virtual_mfa:
            self.virtual_mfa[serial] = ""

    def delete_virtual_mfa_device(self, serial: str) -> None:
        """Delete a virtual MFA device that no user has any more."""
        if serial not in self.virtual_mfa:
            raise missing(f"VirtualMFADevice with serial number {serial} doesn't exist.")
        if self.virtual_mfa[serial]:
            raise conflict("deactivate MFA device")
        del self.virtual_mfa[serial]

    def add_thing(self, user_name: str, kind: Thing) -> str:
        """Add an SSH key, a signing certificate or a service credential to a user; return its id."""
        thing_id = draw_id(self.rng, kind.value)
        self.get_user(user_name).things[kind][thing_id] = self.now()
        return thing_id

    # --- inner ---------------------------------------------------------------------------------------------

    def _key(self, user: User, key_id: str) -> AccessKey:
        try:
            return user.keys[key_id]
        except KeyError:
            raise missing(f"The Access Key with id {key_id} cannot be found.") from None

    def _add_key(self, user: User, key_id: str, usable_after: float) -> AccessKey:
        now = self.now()
        key = AccessKey(key_id, draw_secret(self.rng), user.name, now, now + usable_after)
        user.keys[key_id] = self.keys[key_id] = key
        return key

    def _bury_key(self, user: User, key_id: str) -> None:
        del user.keys[key_id], self.keys[key_id]
        self.dead_keys.add(key_id)
