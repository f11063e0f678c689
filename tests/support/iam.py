"""A model of one AWS account's IAM and STS: ``Iam.handle`` answers one call of the query protocol.

Not modelled: who may do what (each known key may do all), sessions, and deletions that take effect late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tests.support.iam_account import Account
from tests.support.iam_actions import ACTIONS, Caller, Params
from tests.support.iam_rules import Answer, RefusalError, Result, Value, bad_token, no_user
from tests.support.iam_user import Thing, User

ROOT = "root-of-lessor"
"""The user whom a key that the account never made belongs to: the one the service under test is given."""


class Iam(Account):
    """Answers calls on one account, as AWS's endpoints do once a signature has been checked."""

    def handle(self, action: str, params: Mapping[str, Value], access_key_id: str = "") -> Answer:
        """Carry out one call and return the answer; never raises for what AWS would answer with an error.

        ``params`` are query-protocol parameters (``Tags.member.1.Key``), or nested values (``Tags`` as a list
        of ``Key``/``Value`` pairs or as a dict).
        """
        perform = ACTIONS.get(action)
        if perform is None:
            message = f"Could not find operation {action} for version 2010-05-08"
            return Answer(400, "InvalidAction", message)
        try:
            caller = self.caller(access_key_id)
            return Answer(result=perform(self, Params(params, caller)) or {})
        except RefusalError as refusal:
            return refusal.answer

    def caller(self, access_key_id: str) -> Caller:
        """Tell whose key this is; a key that was deleted, is inactive or too new is InvalidClientTokenId.

        A key the account never made is the root's: user ``root-of-lessor``.
        """
        key = self._keys.get(access_key_id)
        dead = access_key_id in self._dead_keys
        if dead or (key and (key.status != "Active" or key.usable_at > self._now())):
            raise bad_token()
        if key is None:
            return Caller(self.account, self._arn("user", "/", ROOT), "AIDALESSORROOTUSER000", ROOT)
        user = self.users[key.user_name.casefold()]
        return Caller(self.account, user.arn, user.id, user.name)

    def time(self) -> float:
        """Return AWS's time in seconds since 1970, as its answers give it in ``Date``."""
        return self._now()

    def prove(self, access_key_id: str, secret: str) -> Answer:
        """Answer GetCallerIdentity signed with a key, which must be one that this account made.

        A wrong secret is SignatureDoesNotMatch (CommonErrors).
        """
        key = self._keys.get(access_key_id)
        if key is None:
            return bad_token().answer
        if key.secret != secret:
            return Answer(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
        return self.handle("GetCallerIdentity", {}, access_key_id)

    def adopt_root(self, access_key_id: str) -> User:
        """Make the root's user real, with this key, so that the root's keys can be listed and rotated."""
        user = self.users.get(ROOT) or self.create_user(ROOT)
        user.visible_at = self._now()
        self._add_key(user, access_key_id, 0.0)
        return user

    def forget(self, user_name: str) -> None:
        """Delete a user and all that hangs on it at once, as somebody at the console would."""
        user = self.users.pop(user_name.casefold(), None)
        if user is None:
            raise no_user(user_name)
        for key_id in list(user.keys):
            self._bury_key(user, key_id)
        for serial in user.mfa:
            self.virtual_mfa.pop(serial, None)

    def touch(self, user_name: str, things: Iterable[str]) -> None:
        """Change a user from outside; ``things`` are names out of ``TOUCHES``, KeyError for another."""
        for thing in things:
            TOUCHES[thing](self, user_name)

    def snapshot(self) -> Result:
        """Show all that is on the account but secrets and documents, for a test to look at."""
        return {
            "account": self.account,
            "users": [user.snapshot() for user in self.users.values()],
            "groups": [str(group["GroupName"]) for group in self.groups.values()],
            "policies": list(self.policies),
            "virtual_mfa": list(self.virtual_mfa),
        }


def _join_extra_group(iam: Iam, user_name: str) -> None:
    if "extra" not in iam.groups:
        iam.create_group("extra")
    iam.add_user_to_group(user_name, "extra")


_EXTRA_POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}'

TOUCHES: dict[str, Callable[[Iam, str], object]] = {
    "user": Iam.create_user,
    "login_profile": Iam.create_login_profile,
    "mfa": lambda iam, name: iam.enable_mfa_device(name, virtual=False),
    "virtual_mfa": lambda iam, name: iam.enable_mfa_device(name, virtual=True),
    "ssh_key": lambda iam, name: iam.add_thing(name, Thing.SSH_KEY),
    "certificate": lambda iam, name: iam.add_thing(name, Thing.CERTIFICATE),
    "service_credential": lambda iam, name: iam.add_thing(name, Thing.SERVICE_CREDENTIAL),
    "access_key": Iam.create_access_key,
    "policy": lambda iam, name: iam.put_user_policy(name, "extra", _EXTRA_POLICY),
    "attached_policy": lambda iam, name: iam.attach_user_policy(
        name, "arn:aws:iam::aws:policy/job-function/Billing"
    ),
    "group": _join_extra_group,
}
"""What a test can hang on a user from outside, or ``user``: a user that nobody leased."""
