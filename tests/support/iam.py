"""A model of one AWS account's IAM and STS: ``Iam.handle`` answers one call of the query protocol.

Not modelled: permissions (each known key may do everything that its kind may), and deletions that take effect
late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tests.support.iam_account import Account
from tests.support.iam_actions import ACTIONS, Caller, Params
from tests.support.iam_groups import GROUP_ACTIONS
from tests.support.iam_home import ROOT
from tests.support.iam_rules import Answer, RefusalError, Result, Value, bad_token, no_user
from tests.support.iam_simulator import SIMULATOR_ACTIONS
from tests.support.iam_user import Thing, User
from tests.support.sts_actions import STS_ACTIONS
from tests.support.sts_rules import check_caller, refused

_LONG_TERM_ONLY = ("GetFederationToken", "GetSessionToken")
_ALL_ACTIONS = {**ACTIONS, **GROUP_ACTIONS, **SIMULATOR_ACTIONS, **STS_ACTIONS}


class Iam(Account):
    """Answers calls on one account, as AWS's endpoints do once a signature has been checked."""

    def handle(
        self, action: str, params: Mapping[str, Value], access_key_id: str = "", token: str = ""
    ) -> Answer:
        """Carry out one call and return the answer; never raises for what AWS would answer with an error.

        ``params`` are query-protocol parameters (``Tags.member.1.Key``), or nested values (``Tags`` as a list
        of ``Key``/``Value`` pairs or as a dict). A session's key works on the account that it is of.
        """
        perform = _ALL_ACTIONS.get(action)
        if perform is None:
            message = f"Could not find operation {action} for version 2010-05-08"
            return Answer(400, "InvalidAction", message)
        made = (one for one in self.peers.values() if one.has_key(access_key_id))
        home = next(made, self)
        try:
            caller = _caller(home, access_key_id, token)
            check_caller(action, caller.session)
            if action in _LONG_TERM_ONLY and ":assumed-role/" in caller.arn:
                raise refused(f"Cannot call {action} with session credentials")
            return Answer(result=perform(home, Params(params, caller)) or {})
        except RefusalError as refusal:
            return refusal.answer

    def has_key(self, access_key_id: str) -> bool:
        """Return whether a key is one of this account's users or sessions."""
        return access_key_id in self.sts.sessions or access_key_id in self.keys

    def time(self) -> float:
        """Return AWS's time in seconds since 1970, as its answers give it in ``Date``."""
        return self.now()

    def prove(self, action: str, params: Mapping[str, Value], signer: tuple[str, str, str]) -> Answer:
        """Answer a call signed with a key (id, secret, token), which must be one that this account made.

        A wrong secret is SignatureDoesNotMatch (CommonErrors).
        """
        access_key_id, secret, token = signer
        sessions = {name: key for one in self.peers.values() for name, key in one.sts.sessions.items()}
        users = {name: key for one in self.peers.values() for name, key in one.keys.items()}
        known = sessions.get(access_key_id) or users.get(access_key_id)
        if known is None:
            return bad_token().answer
        if known.secret != secret:
            return Answer(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
        return self.handle(action, params, access_key_id, token)

    def adopt_root(self, access_key_id: str) -> User:
        """Create the root's user with this key, so that the root's keys can be listed and rotated."""
        user = self.users.get(ROOT) or self.create_user(ROOT)
        user.visible_at = self.now()
        self._add_key(user, access_key_id, 0.0)
        return user

    def forget(self, user_name: str) -> None:
        """Delete a user with everything attached to it, as the console does."""
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
        """Return the content of the account for tests, without secrets and documents."""
        return {
            "account": self.account,
            "users": [user.snapshot() for user in self.users.values()],
            "groups": [str(group["GroupName"]) for group in self.groups.values()],
            "policies": list(self.policies),
            "virtual_mfa": list(self.virtual_mfa),
        }


def _caller(iam: Account, access_key_id: str, token: str) -> Caller:
    """Tell whose key this is; a key that was deleted, is inactive or too new is InvalidClientTokenId.

    A session's key needs its token, and is ExpiredToken once its time is over (CommonErrors). A key the
    account never made is the root's: user ``root-of-lessor``, unless ``sts.root_arn`` says otherwise.
    """
    session = iam.sts.sessions.get(access_key_id)
    if session is not None:
        if session.token != token:
            raise bad_token()
        if session.ends <= iam.now():
            raise RefusalError(403, "ExpiredToken", "The security token included in the request is expired")
        return Caller(iam.account, session.arn, session.user_id, session.user_name, session)
    key = iam.keys.get(access_key_id)
    dead = access_key_id in iam.dead_keys or token
    if dead or (key and (key.status != "Active" or key.usable_at > iam.now())):
        raise bad_token()
    if key is None:
        return Caller(iam.account, iam.root_arn(), "AIDALESSORROOTUSER000", ROOT)
    user = iam.users[key.user_name.casefold()]
    return Caller(iam.account, user.arn, user.id, user.name)


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
"""What a test can attach to a user from outside; ``user`` creates a user without a lease."""
