"""Identifies callers: by the root token, a fixed token, a login token, a JWT or a client certificate.

The path of a credential that is known already does not wait and reads nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from lessor_server.adapters.identity.client_certificate import (
    Authorities,
    ClientCertificate,
    read_certificate,
)
from lessor_server.adapters.identity.issuer_keys import IssuerKeys
from lessor_server.adapters.identity.json_web_token import parse_token, verify_signature
from lessor_server.adapters.identity.jwt_limiter import JwtLimiter, JwtLimits
from lessor_server.adapters.identity.key_set import VerifyingKey
from lessor_server.adapters.identity.known_callers import Evidence, KnownCaller, KnownCallers
from lessor_server.adapters.identity.known_logins import KnownLogin, KnownLogins
from lessor_server.adapters.identity.login_judge import LoginRules, judge_login
from lessor_server.adapters.identity.strict_json import read_object
from lessor_server.domain.access.access_config import (
    AccessConfig,
    DnsMatch,
    Identity,
    JwtIssuer,
    SpiffeMatch,
    TokenMatch,
)
from lessor_server.domain.access.acl import Acls
from lessor_server.domain.access.caller import ROOT, AuthMethod, Credential, IpAddress, Principal
from lessor_server.domain.access.claims import Validity, check_claims
from lessor_server.domain.access.identify import (
    NameIndex,
    fill_identity,
    identify_certificate,
    identify_claims,
)
from lessor_server.domain.access.kept_claims import keep_jwt
from lessor_server.domain.access.login_token import (
    DEFAULT_MAX_TTL,
    KeptToken,
    LoginTerms,
    LoginToken,
    is_login_token,
)
from lessor_server.domain.access.names import ROOT_NAME
from lessor_server.domain.errors.access import HOW_TO_SEND, LoginNotPossible
from lessor_server.domain.errors.base import Unauthenticated, shown
from lessor_server.domain.secret import TokenHash


class KeyReader(Protocol):
    """Reads the key sets of issuers."""

    def read_keys(self, issuer: JwtIssuer) -> Awaitable[bytes]:
        """Return the JWKS document of an issuer; raises ``KeysUnreadable``."""
        ...

    def close(self) -> Awaitable[None]:
        """Close all connections."""
        ...


@dataclass(frozen=True, slots=True)
class _JwtProof:
    """What a verified JWT says; the payload takes less memory than its claims."""

    issuer: str
    algorithm: str
    payload: bytes = field(repr=False)
    key: VerifyingKey = field(repr=False)


class _InForce:
    """The rules in force, and all callers that were identified under them."""

    def __init__(self, config: AccessConfig, keys: dict[str, IssuerKeys], authorities: Authorities) -> None:
        self.config = config
        self.acls = Acls(config.policies)
        self.keys = keys
        self.authorities = authorities
        self.issuers = {issuer.url: issuer for issuer in config.issuers}
        self.jwts = KnownCallers()
        self.certificates = KnownCallers()
        self.client_cas = 0
        """The number of authorities of client certificates under which ``certificates`` were identified."""
        self.names = NameIndex(config.identities)
        self._tokens: dict[bytes, Identity] = {}
        self._known_tokens: dict[bytes, KnownCaller] = {}
        for identity in config.identities:
            if isinstance(identity.match, TokenMatch):
                self._tokens.update(dict.fromkeys(identity.match.digests, identity))

    def find_token(self, digest: bytes) -> KnownCaller | None:
        """Return the caller with a fixed token; its rights are worked out at its first call."""
        caller = self._known_tokens.get(digest)
        if caller is None and (identity := self._tokens.get(digest)) is not None:
            assert isinstance(identity.match, TokenMatch)
            validity = Validity(expires_at=identity.match.expires_at)
            caller = KnownCaller(self.acls, fill_identity(identity, {}), AuthMethod.TOKEN, validity, digest)
            self._known_tokens[digest] = caller
        return caller


def read_authorities(config: AccessConfig) -> Authorities:
    """Read the ``ca_file`` of each identity."""
    matches = (identity.match for identity in config.identities)
    files = (match.ca_file for match in matches if isinstance(match, SpiffeMatch | DnsMatch))
    return Authorities(dict.fromkeys(filter(None, files)))


class Identifier:
    """Identifies callers under the access rules in force."""

    def __init__(
        self,
        root_token: TokenHash | None,
        config: AccessConfig,
        client_cas: Callable[[], int],
        now: Callable[[], float],
        keys: KeyReader,
        limits: JwtLimits | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Use ``config``; ``root_token`` is None if no root token is accepted.

        ``client_cas`` returns how many certificates the client CA file holds, 0 if there is none. ``now``
        returns seconds since the epoch. ``report`` logs that an issuer's keys can't be read.
        """
        self._root_token = root_token
        self._client_cas = client_cas
        self._now = now
        self._reader = keys
        self._report = report
        self._limiter = JwtLimiter(limits or JwtLimits())
        self._group: asyncio.TaskGroup | None = None
        self.version = 0
        """A number that changes with the rules, and when a key leaves its set or login tokens are ended."""
        self.judge_streams: Callable[[], Coroutine[object, object, None]] | None = None
        """Judges open streams again, when a key or a login token has ended."""
        self.logins: KnownLogins | None = None
        """The login tokens, once the store is open."""
        self._in_force = _InForce(AccessConfig(), {}, Authorities(()))
        self.use(config)

    async def run(self) -> NoReturn:
        """Read keys in the background, until cancelled; without it no keys are read."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                while True:
                    await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    async def aclose(self) -> None:
        """Close the connections to issuers."""
        await self._reader.close()

    def use(self, config: AccessConfig, authorities: Authorities | None = None) -> None:
        """Use ``config`` from now on; only the keys of issuers that did not change are kept.

        ``authorities`` are its (``read_authorities``); without them their files are read here.
        """
        before = {keys.issuer.key_source: keys for keys in self._in_force.keys.values()}
        keys: dict[str, IssuerKeys] = {}
        for issuer in config.issuers:
            kept = before.get(issuer.key_source) or IssuerKeys(
                issuer, self._reader.read_keys, self._start, self
            )
            kept.issuer = issuer
            if issuer.jwks_file and kept in before.values():
                kept.read_again()  # a file costs little, and an operator may have replaced it
            keys[issuer.name] = kept
        self._in_force = _InForce(config, keys, authorities or read_authorities(config))
        self.version += 1

    @property
    def authorities(self) -> Authorities:
        """Return the authorities in use."""
        return self._in_force.authorities

    def use_authorities(self, authorities: Authorities) -> bool:
        """Use ``authorities``, read again, from now on; return whether they have changed."""
        before, self._in_force.authorities = self._in_force.authorities, authorities
        if before.contents == authorities.contents:
            return False
        self._in_force.certificates.clear()
        self.version += 1
        return True

    def may_match(self, name: str) -> bool:
        """Return whether a caller could have this name under the rules in force."""
        if name == ROOT_NAME:
            return self._root_token is not None
        return self._in_force.names.find(name) is not None

    def warnings(self) -> list[str]:
        """Return what keeps callers from being identified, for operators."""
        config, found = self._in_force.config, []
        if self._client_cas() > 1:
            found += [
                f"identity {shown(identity.name)} matches nobody: give it a ca_file, because"
                " tls.client_ca_file holds several authorities"
                for identity in config.identities
                if isinstance(identity.match, SpiffeMatch | DnsMatch) and not identity.match.ca_file
            ]
        problems = self._in_force.authorities.problems
        found += [f"the ca_file {file} can't be used: {problem}" for file, problem in problems.items()]
        found += [
            _unreadable(keys.issuer, keys.problem) for keys in self._in_force.keys.values() if keys.problem
        ]
        return found

    async def identify(self, credential: Credential) -> Principal:
        """Return the caller that presents ``credential``, as ``find``."""
        found = self.find(credential)
        return found if isinstance(found, Principal) else await found

    def find(self, credential: Credential) -> Principal | Awaitable[Principal]:
        """Return the caller that presents ``credential``; a bearer token wins over a certificate.

        A login token or a JWT has to be waited for: it may have to be looked up, or its keys to be read.

        Raises:
            Unauthenticated: The credential is missing, malformed, unknown or not valid now.
            IssuerUnavailable: The keys of a JWT's issuer are not known and can't be read.
            TryLater: Too many JWTs have to be verified.
        """
        address = credential.peer.address
        if not credential.authorization:
            if not credential.certificates:
                raise Unauthenticated(
                    "the call has neither a token nor a client certificate", fix=HOW_TO_SEND
                )
            return self._identify_certificate(credential.certificates, address)
        token = _bearer_token(credential.authorization)
        digest = TokenHash.of(token).digest
        if self._root_token is not None and hmac.compare_digest(self._root_token.digest, digest):
            return ROOT
        caller = self._in_force.find_token(digest)
        return self._look_up(token, digest, address) if caller is None else caller.admit(address, self._now())

    async def _look_up(self, token: str, digest: bytes, address: IpAddress | str | None) -> Principal:
        """Return the caller of a login token or of a JWT."""
        if is_login_token(token) and self.logins is not None:
            caller = self._judge_login(await self.logins.find(digest.hex(), address))
        elif token.count(".") == 2:
            caller = await self._find_jwt(token, digest, address)
        else:
            raise Unauthenticated("the token is unknown")
        return caller.admit(address, self._now())

    async def identify_again(self, principal: Principal) -> Principal:
        """Return the caller of a call that lasts, under the rules in force.

        It reads nothing but a login token that was not read for 10 s.

        Raises:
            Unauthenticated: The rules no longer accept its credential, or the credential has ended.
        """
        if principal.auth_method is AuthMethod.ROOT and self._root_token is not None:
            return principal
        caller, evidence = await self._judge_again(principal)
        return caller.admit(evidence.address, self._now())

    async def _judge_again(self, principal: Principal) -> tuple[KnownCaller, Evidence]:
        """Return who a caller is by the current rules, and what it has presented; see ``identify_again``."""
        in_force, now = self._in_force, self._now()
        caller: KnownCaller | None = None
        if isinstance(evidence := principal.evidence, Evidence):
            match evidence.proof:
                case bytes() as digest:
                    caller = in_force.find_token(digest)
                case _JwtProof() as proof:
                    caller = _judge_jwt(in_force, proof, now)
                    if not in_force.keys[caller.issuer].has(proof.key):
                        raise Unauthenticated("the key that verified the JWT is not in use any more")
                case ClientCertificate() as certificate:
                    caller = self._judge_certificate(in_force, certificate, now)
                case LoginToken() as token if self.logins is not None:
                    known = await self.logins.find_or_keep(token.digest, evidence.address)
                    caller = self._judge_login(known)
            if caller is not None:
                return caller, evidence
        raise Unauthenticated("the access rules no longer accept the caller's credential")

    # --- logins -----------------------------------------------------------------------------------------

    def has_issuer(self, name: str) -> bool:
        """Return whether the access file has an issuer of this name."""
        return name in self._in_force.keys

    def is_of_issuer(self, principal: Principal, name: str) -> bool:
        """Return whether a caller has presented a JWT of the issuer of this name."""
        evidence = principal.evidence
        if not isinstance(evidence, Evidence) or not isinstance(evidence.proof, _JwtProof):
            return False
        issuer = self._in_force.issuers.get(evidence.proof.issuer)
        return issuer is not None and issuer.name == name

    async def find_login_terms(self, principal: Principal) -> LoginTerms:
        """Return what kind of login token an identified caller may get, and for how long.

        Raises:
            LoginNotPossible: It is a client certificate.
            Unauthenticated: It has ended, or the rules no longer accept it.
        """
        if principal.auth_method is AuthMethod.ROOT and self._root_token is not None:
            return LoginTerms(KeptToken(self._root_token.digest.hex()))
        caller, evidence = await self._judge_again(principal)
        caller.validity.check(self._now())
        max_ttl = caller.identity.token_max_ttl or DEFAULT_MAX_TTL
        match evidence.proof:
            case bytes() as digest:
                return LoginTerms(KeptToken(digest.hex()), max_ttl)
            case _JwtProof() as proof:
                issuer, config = self._in_force.issuers[proof.issuer], self._in_force.config
                claims = read_object(proof.payload)
                return LoginTerms(keep_jwt(config, issuer, proof.algorithm, claims), max_ttl)
            case LoginToken() as token:
                return LoginTerms(token.credential, max_ttl)
        raise LoginNotPossible("a client certificate cannot be exchanged for a login token")

    async def identify_new_login(self, token: LoginToken, address: IpAddress | str | None) -> Principal:
        """Return the caller of a token that was just created, or renewed, here."""
        assert self.logins is not None
        self.logins.forget(token.digest)
        self.logins.add(token)
        caller = self._judge_login(await self.logins.find(token.digest, address, is_new=False))
        self._start_judging()
        return caller.admit(address, self._now())

    def end_logins(self, digests: Iterable[str]) -> None:
        """Refuse tokens that were ended here from now on, and end their open streams.

        A call of theirs whose message has not arrived is refused too.
        """
        assert self.logins is not None
        self.logins.end(digests)
        self.version += 1
        self._start_judging()

    def _start_judging(self) -> None:
        if self.judge_streams is not None:
            self._start(self.judge_streams())

    def _judge_login(self, known: KnownLogin) -> KnownCaller:
        """Return the caller of a login token; it is worked out again when the rules or the token change."""
        in_force = self._in_force
        if known.caller is None or known.rules is not in_force:
            assert self.logins is not None
            root = self._root_token.digest.hex() if self._root_token is not None else ""
            rules = LoginRules(in_force.config, in_force.acls, root, in_force.find_token)
            known.caller = judge_login(rules, known.chain, self.logins.now_us(), self._now())
            known.rules = in_force
        return known.caller

    async def _find_jwt(self, token: str, digest: bytes, address: IpAddress | str | None) -> KnownCaller:
        """Return the caller of a JWT; rules that change while it waits for keys count."""
        while True:
            in_force = self._in_force
            caller = in_force.jwts.find(digest)
            if caller is None:
                caller = await self._verify_jwt(in_force, token, digest, address)
                if in_force is self._in_force:
                    return caller
            elif (keys := in_force.keys[caller.issuer]).use_now():
                return caller
            else:
                await keys.refresh()  # which forgets the JWT if its key has left the set

    async def _verify_jwt(
        self, in_force: _InForce, token: str, digest: bytes, address: IpAddress | str | None
    ) -> KnownCaller:
        """Return the caller of a JWT that is not known, and remember it.

        The limit counts signatures: calls with one JWT that wait for keys together verify it once.
        """
        jwt = parse_token(token)
        issuer = _issuer_of(in_force, jwt.issuer, jwt.algorithm)
        check_claims(jwt.claims, issuer, self._now())
        key = await in_force.keys[issuer.name].find(jwt.key_id, jwt.algorithm)
        caller = in_force.jwts.find(digest)
        if caller is None:
            self._limiter.admit(address)
            verify_signature(jwt, key)
            proof = _JwtProof(jwt.issuer, jwt.algorithm, jwt.payload, key)
            caller = _judge_jwt(in_force, proof, self._now())
            in_force.jwts.add(digest, caller)
        return caller

    def _identify_certificate(self, pem: bytes, address: IpAddress | str | None) -> Principal:
        in_force, now = self._in_force, self._now()
        if (client_cas := self._client_cas()) != in_force.client_cas:
            in_force.certificates.clear()
            in_force.client_cas = client_cas
        digest = hashlib.sha256(pem).digest()
        caller = in_force.certificates.find(digest)
        if caller is None:
            caller = self._judge_certificate(in_force, read_certificate(pem), now)
            in_force.certificates.add(digest, caller)
        return caller.admit(address, now)

    def _judge_certificate(
        self, in_force: _InForce, certificate: ClientCertificate, now: float
    ) -> KnownCaller:
        def is_trusted(ca_file: str) -> bool:
            if not ca_file:
                return self._client_cas() == 1
            return in_force.authorities.verifies(ca_file, certificate, now)

        certificate.validity.check(now)
        identified = identify_certificate(in_force.config, certificate.names, is_trusted)
        return KnownCaller(in_force.acls, identified, AuthMethod.X509, certificate.validity, certificate)

    def _start(self, job: Coroutine[object, object, None]) -> asyncio.Task[None] | None:
        if self._group is not None:
            try:
                return self._group.create_task(job)
            except RuntimeError:  # the group is closing
                pass
        job.close()
        return None

    def keys_removed(self, issuer: JwtIssuer) -> None:
        """Forget the JWTs of an issuer, one of whose keys has left the set or has changed."""
        self._in_force.jwts.forget_issuer(issuer.name)
        self.version += 1
        self._start_judging()

    def keys_unreadable(self, issuer: JwtIssuer, problem: str) -> None:
        """Report that the keys of an issuer can't be read."""
        self._report(_unreadable(issuer, problem))


def _judge_jwt(in_force: _InForce, proof: _JwtProof, now: float) -> KnownCaller:
    """Return the caller of a JWT whose signature was verified; raises ``Unauthenticated``."""
    issuer = _issuer_of(in_force, proof.issuer, proof.algorithm)
    claims = read_object(proof.payload)
    validity = check_claims(claims, issuer, now)
    identified = identify_claims(in_force.config, issuer.name, claims)
    size = len(proof.payload)
    return KnownCaller(in_force.acls, identified, AuthMethod.JWT, validity, proof, issuer.name, size)


def _issuer_of(in_force: _InForce, url: str, algorithm: str) -> JwtIssuer:
    """Return the issuer of a JWT; raises ``Unauthenticated`` unless it accepts the algorithm."""
    issuer = in_force.issuers.get(url)
    if issuer is None:
        raise Unauthenticated(f"the access file has no issuer {shown(url)}")
    if algorithm not in issuer.algorithms:
        raise Unauthenticated(f"the issuer does not accept the algorithm {shown(algorithm)}")
    return issuer


def _bearer_token(authorization: tuple[str | bytes, ...]) -> str:
    """Return the one bearer token (RFC 6750) of a call; of several, a proxy may have checked another one."""
    if len(authorization) == 1 and isinstance(value := authorization[0], str):
        scheme, _, rest = value.partition(" ")
        if scheme.lower() == "bearer" and (token := rest.strip()):
            return token
    raise Unauthenticated(
        "the call's authorization is not exactly one value, or not Bearer and a token", fix=HOW_TO_SEND
    )


def _unreadable(issuer: JwtIssuer, problem: str) -> str:
    return f"the keys of issuer {shown(issuer.name)} can't be read: {problem}"
