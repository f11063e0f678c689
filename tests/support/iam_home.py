"""The state of one AWS account of the model, and its links to the other accounts."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Self

from tests.support.iam_groups import GroupPolicies
from tests.support.iam_rules import Quotas, Result
from tests.support.iam_user import AccessKey, User, draw_id
from tests.support.sts_state import StsState, TrustedRole

ROOT = "root-of-lessor"
"""The user of every key that the account did not create: the root of the service under test."""


class Home:
    """Holds one account. ``now`` gives seconds since 1970; ``rng`` draws ids and secrets.

    For ``visible_after`` seconds other calls don't find a new user, and a new key is not accepted
    (UserGuide/troubleshoot, "Changes that I make are not always immediately visible").
    """

    def __init__(
        self,
        account: str = "123456789012",
        *,
        now: Callable[[], float],
        rng: random.Random | None = None,
        quotas: Quotas | None = None,
        visible_after: float = 0.0,
    ) -> None:
        """Begin empty; without ``rng`` each run has the same ids."""
        self.account = account
        self.quotas = quotas or Quotas()
        self.visible_after = visible_after
        self.now = now
        self.rng = rng or random.Random(0)
        self.clear()

    def clear(self: Self) -> None:
        """Empty the account; all its keys become unknown."""
        self.users: dict[str, User] = {}
        self.groups: dict[str, Result] = {}
        self.policies: dict[str, Result] = {}
        self.virtual_mfa: dict[str, str] = {}
        self.documents: dict[str, str] = {}
        self.group_policies: dict[str, GroupPolicies] = {}
        self.sts = StsState()
        self.peers: dict[str, Self] = {self.account: self}
        self.keys: dict[str, AccessKey] = {}
        self.dead_keys: set[str] = set()

    # --- the account among others ---------------------------------------------------------------------------

    def knows_policy(self, arn: str) -> bool:
        """Return whether a managed policy exists; all of AWS's own do."""
        return arn.startswith("arn:aws:iam::aws:policy/") or arn in self.policies

    def peer(self, number: str) -> Self:
        """Return the account with this number; a new account is empty."""
        if number == self.account:
            return self
        if number not in self.peers:
            made = type(self)(number, now=self.now, rng=self.rng, quotas=self.quotas)
            made.peers = self.peers
            self.peers[number] = made
        return self.peers[number]

    def add_role(self, name: str, **trust: Any) -> TrustedRole:
        """Make a role, or replace it; ``name`` may begin with a path, ``trust`` are fields of TrustedRole."""
        arn = f"arn:aws:iam::{self.account}:role/{name.removeprefix('/')}"
        self.sts.roles[arn] = TrustedRole(arn, draw_id(self.rng, "AROA"), **trust)
        return self.sts.roles[arn]

    def root_arn(self) -> str:
        """Return the principal of keys that this account did not create: the tested service's root."""
        return self.sts.root_arn or self.arn("user", "/", ROOT)

    def arn(self, kind: str, path: str, name: str) -> str:
        """Return the ARN of something in this account."""
        return f"arn:aws:iam::{self.account}:{kind}{path}{name}"
