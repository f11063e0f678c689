"""Access rules of a test: who is known by which token, without a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from lessor_server.domain.access.acl import Acl, Capability, Policy, Rule, acl_of
from lessor_server.domain.access.caller import AuthMethod, Credential, Principal
from lessor_server.domain.access.issue_limits import IssueLimits
from lessor_server.domain.errors.base import Unauthenticated
from lessor_server.domain.policy.template import identity_fields


def acl(*rules: str, **limits: object) -> Acl:
    """Return an ACL of rules such as ``read,update aws/creds/*``, all with the same limits."""
    bounds = IssueLimits(**limits)  # type: ignore[arg-type]
    made = []
    for rule in rules:
        capabilities, _, path = rule.partition(" ")
        made.append(Rule(path, frozenset(map(Capability, capabilities.split(","))), bounds))
    return acl_of([Policy("test", tuple(made))], identity_fields("test", {}))


def principal(name: str, *rules: str, **limits: object) -> Principal:
    """Return the caller ``name`` with a fixed token, and with rules as in ``acl``."""
    return Principal(name, AuthMethod.TOKEN, acl(*rules, **limits), policies=("test",))


class FixedAccess:
    """Knows callers by their tokens; a test may change who is known."""

    def __init__(self, known: Mapping[str, Principal] | Callable[[str], Principal | None]) -> None:
        """Begin with ``known``, a principal by token."""
        self.known = known
        self.version = 0

    def find(self, credential: Credential) -> Principal:
        """Return the caller with the one bearer token of the credential."""
        values = [value for value in credential.authorization if isinstance(value, str)]
        scheme, _, token = values[0].partition(" ") if len(credential.authorization) == 1 else ("", "", "")
        found = None
        if values and scheme.lower() == "bearer":
            found = self.known.get(token) if isinstance(self.known, Mapping) else self.known(token)
        if found is None:
            raise Unauthenticated("the token is missing or unknown")
        return found

    async def identify_again(self, caller: Principal) -> Principal:
        """Return the caller of that name that is known now."""
        known: Iterable[Principal] = self.known.values() if isinstance(self.known, Mapping) else ()
        for one in known:
            if one.name == caller.name:
                return one
        raise Unauthenticated(f"{caller.name} is not known any more")
