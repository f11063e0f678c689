"""One IAM user of the model with its attachments, which must be deleted before the user."""

from __future__ import annotations

import base64
import functools
import random
import string
import time
from dataclasses import dataclass, field
from enum import Enum

from tests.support.iam_rules import Result, conflict

_BASE32 = string.ascii_uppercase + "234567"


class Thing(Enum):
    """Names a kind of credential besides access keys that somebody can hang on a user.

    The value is the prefix of its ids (reference_identifiers, "Unique identifiers").
    """

    SSH_KEY = "APKA"
    CERTIFICATE = "CERT"
    SERVICE_CREDENTIAL = "ACCA"


def draw_id(rng: random.Random, prefix: str) -> str:
    """Draw an id of the prefix and letters, as long as IAM makes it (reference_identifiers)."""
    length = {"AIDA": 21, "AROA": 21, "AGPA": 21, "ANPA": 21, "CERT": 24}.get(prefix, 20)
    return prefix + "".join(rng.choices(_BASE32, k=length - len(prefix)))


def draw_secret(rng: random.Random) -> str:
    """Draw a secret key of 40 characters (API_AccessKey)."""
    return base64.b64encode(rng.randbytes(30)).decode()


@functools.lru_cache(maxsize=1000)
def iso(seconds: float) -> str:
    """Write seconds since 1970 as IAM writes dates: UTC, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@dataclass(slots=True)
class AccessKey:
    """One access key; times in seconds since 1970. It is accepted from ``usable_at`` on."""

    id: str
    secret: str = field(repr=False)
    user_name: str
    created: float
    usable_at: float
    status: str = "Active"

    def described(self) -> Result:
        """Describe the key without its secret (API_AccessKeyMetadata)."""
        return {
            "UserName": self.user_name,
            "AccessKeyId": self.id,
            "Status": self.status,
            "CreateDate": iso(self.created),
        }


@dataclass(slots=True)
class User:
    """One user; times in seconds since 1970. Other calls find it from ``visible_at`` on."""

    name: str
    path: str
    arn: str
    id: str
    created: float
    visible_at: float
    boundary: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    inline: dict[str, str] = field(default_factory=dict)
    attached: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    keys: dict[str, AccessKey] = field(default_factory=dict)
    mfa: dict[str, float] = field(default_factory=dict)
    login_profile: float | None = None
    things: dict[Thing, dict[str, float]] = field(default_factory=lambda: {kind: {} for kind in Thing})

    def check_empty(self) -> None:
        """Refuse with DeleteConflict while anything is attached to the user (API_DeleteUser)."""
        left = (
            (self.inline, "delete policies"),
            (self.attached, "detach all policies"),
            (self.keys, "delete access keys"),
            (self.groups, "remove users from group"),
            (self.login_profile is not None, "delete login profile"),
            (self.mfa, "delete MFA device"),
            (self.things[Thing.CERTIFICATE], "delete certificates"),
            (self.things[Thing.SSH_KEY], "remove referenced objects"),
            (self.things[Thing.SERVICE_CREDENTIAL], "remove referenced objects"),
        )
        for something, what in left:
            if something:
                raise conflict(what)

    def described(self) -> Result:
        """Describe the user as ListUsers does, without tags and boundary (API_ListUsers)."""
        return {
            "Path": self.path,
            "UserName": self.name,
            "UserId": self.id,
            "Arn": self.arn,
            "CreateDate": iso(self.created),
        }

    def described_whole(self) -> Result:
        """Describe the user as CreateUser and GetUser do (API_User)."""
        whole = self.described()
        if self.boundary:
            whole["PermissionsBoundary"] = {
                "PermissionsBoundaryType": "Policy",
                "PermissionsBoundaryArn": self.boundary,
            }
        if self.tags:
            whole["Tags"] = [{"Key": key, "Value": value} for key, value in self.tags.items()]
        return whole

    def snapshot(self) -> Result:
        """Return the user's content for tests, without secrets and documents."""
        return {
            "name": self.name,
            "path": self.path,
            "arn": self.arn,
            "id": self.id,
            "created": iso(self.created),
            "boundary": self.boundary,
            "tags": dict(self.tags),
            "keys": [{"id": key.id, "status": key.status} for key in self.keys.values()],
            "policies": list(self.inline),
            "attached": list(self.attached),
            "groups": list(self.groups),
            "login_profile": self.login_profile is not None,
            "mfa": list(self.mfa),
            **{kind.name.lower() + "s": list(ids) for kind, ids in self.things.items()},
        }
