"""The state of STS for one account: its roles that can be assumed, its sessions, its MFA codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Made(Enum):
    """The call that created a session."""

    ASSUMED = "assumed"
    FEDERATED = "federated"
    SESSION_TOKEN = "session_token"


@dataclass(frozen=True, slots=True)
class TrustedRole:
    """Holds one role and its trust policy as far as STS looks at it (reference_policies_elements_principal).

    ``trusts`` are accounts of 12 digits, ARNs of users or roles, or ``*``. A role with an ``audience`` trusts
    an identity provider instead, for tokens with this ``aud``.
    """

    arn: str
    id: str
    trusts: tuple[str, ...] = ("*",)
    external_id: str = ""
    longest: int = 3600
    needs_mfa: bool = False
    takes_tags: bool = True
    audience: str = ""

    @property
    def name(self) -> str:
        """Return its name without its path."""
        return self.arn.rpartition("/")[2]

    @property
    def account(self) -> str:
        """Return its account."""
        return self.arn.split(":")[4]


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Holds one session's credentials and whose they are; ``ends`` in seconds since 1970."""

    id: str
    secret: str = field(repr=False)
    token: str = field(repr=False)
    made: Made
    ends: float
    arn: str
    user_id: str
    user_name: str = ""
    with_mfa: bool = False
    tags: tuple[tuple[str, str], ...] = ()
    transitive: tuple[str, ...] = ()
    source_identity: str = ""
    policy: str = ""
    policy_arns: tuple[str, ...] = ()


@dataclass(slots=True)
class StsState:
    """Holds one account's part of STS; ``root_arn`` is who a key that the account never made belongs to.

    ``mfa_codes`` are the codes that devices show now, by serial number; each code works once.
    ``verdicts`` are what the simulator says of an action, whoever asks, so many on a page.
    """

    roles: dict[str, TrustedRole] = field(default_factory=dict)
    sessions: dict[str, SessionKey] = field(default_factory=dict)
    mfa_codes: dict[str, str] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)
    simulated_a_page: int = 1000
    root_arn: str = ""
    packed_limit: int = 2048
