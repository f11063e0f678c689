"""The settings of a server: one immutable value, validated before anything starts.

Each field is a setting: its type, bounds, default and meaning. Parts of the server get only the values that
they need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from collections.abc import Set as AbstractSet
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, PlainValidator

from lessor_server.domain.sealing_key import SealingKeyKind, SealingKeyPlace
from lessor_server.domain.secret import TokenHash
from lessor_server.domain.store_url import SQLITE, has_password
from lessor_server.domain.token_places import DEFAULT_DIRS, TokenPlaces
from lessor_server.settings import file_checks, parsers
from lessor_server.settings.audit_conflicts import find_collision
from lessor_server.settings.parsers import Address, Listener
from lessor_server.settings.sources import ConfigModel, Problem, SettingsError, load_file

TOKEN_VARIABLES: Final = ("LESSOR_ROOT_TOKEN", "LESSOR_TOKEN")
"""Variables that hold a token: the server's, and the client's, which may be set too."""

STAND_IN: Final = "a-token-that-is-not-kept"
"""Stands for a token of the environment when the settings are read again."""
STORE_VARIABLE: Final = "LESSOR_STORE_URL"
"""The variable that may hold the password of PostgreSQL."""

LOOPBACK: Final = Address(host="127.0.0.1", port=50051)

Boolean = Annotated[bool, PlainValidator(parsers.boolean)]
ConnectionSpan = Annotated[timedelta, PlainValidator(parsers.duration("1s", "24h"))]
ReadableFile = Annotated[Path, PlainValidator(parsers.readable_file)]
Items = BeforeValidator(parsers.items)


class Tls(ConfigModel):
    """The certificate and its key (PEM); with ``client_ca_file`` callers need a certificate too."""

    cert_file: ReadableFile
    key_file: ReadableFile
    client_ca_file: Annotated[Path, PlainValidator(parsers.authorities)] | None = None


class AccessSettings(ConfigModel):
    """Who may call."""

    file: ReadableFile | None = None
    """The access file; without one only the holder of the root token may call."""
    root_token: Boolean = True
    """Whether the root token is accepted."""


class AuditSettings(ConfigModel):
    """Where audit records are written; several sinks are possible, and without one there is no audit."""

    file: Annotated[Path, PlainValidator(parsers.log_file)] | None = None
    """A file, which is opened again on SIGHUP."""
    stdout: Boolean = False
    """Standard output; the log is on standard error."""
    socket: Annotated[Path, PlainValidator(parsers.socket_path)] | None = None
    """A unix stream socket, on which a collector listens."""
    sync: Boolean = False
    """Whether a record must be durable before the call goes on."""

    @property
    def is_on(self) -> bool:
        """Return whether there is a sink."""
        return self.stdout or self.file is not None or self.socket is not None


class AwsSettings(ConfigModel):
    """Limits on calls to AWS."""

    allowed_endpoints: Annotated[tuple[Annotated[str, PlainValidator(parsers.endpoint)], ...], Items] = ()
    """URLs allowed in addition to AWS's own, as ``scheme://host[:port]``."""
    ambient_mounts: Annotated[tuple[Annotated[str, PlainValidator(parsers.mount)], ...], Items] = ()
    """Mounts that may use the server's own credentials."""
    identity_token_dirs: (
        Annotated[tuple[Annotated[Path, PlainValidator(parsers.token_dir)], ...], Items] | None
    ) = None
    """Directories of web identity tokens; ``None``: those of Kubernetes."""
    rate: Annotated[float, PlainValidator(parsers.rate)] | None = None
    """Calls per second to one account and endpoint; ``None``: found automatically."""
    in_flight: Annotated[int, PlainValidator(parsers.count(1, 10_000))] = 64
    """Calls in flight to one account and endpoint."""


class Limits(ConfigModel):
    """Limits on connections and calls of callers."""

    connections: Annotated[int, PlainValidator(parsers.count(1, 1_000_000))] | None = None
    """Open connections; ``None``: half of the process's file descriptors."""
    streams_per_connection: Annotated[int, PlainValidator(parsers.count(1, 10_000))] = 100
    """Calls on one connection."""
    metadata_bytes: Annotated[int, PlainValidator(parsers.count(1 << 10, 1 << 20))] = 16 << 10
    """The metadata of one call."""
    connection_idle: ConnectionSpan = timedelta(minutes=15)
    """A connection without calls is closed after this time."""
    connection_age: ConnectionSpan = timedelta(hours=1)
    """A connection of this age accepts no new calls."""
    concurrent_calls: Annotated[int, PlainValidator(parsers.count(1, 1_000_000))] = 2_000
    """Calls of known callers, not counting unbounded streams."""
    calls_per_identity: Annotated[int, PlainValidator(parsers.count(1, 1_000_000))] = 200
    """Calls of one identity, not counting unbounded streams."""
    watches_per_identity: Annotated[int, PlainValidator(parsers.count(1, 1_000_000))] = 100
    """Unbounded streams of one identity."""
    rate_per_identity: Annotated[float, PlainValidator(parsers.rate)] | None = None
    """Calls per second of one identity, except root; bursts of twice as many. ``None``: no limit."""
    new_jwts_per_peer: Annotated[int, PlainValidator(parsers.count(1, 1_000_000))] = 20
    """JWTs per second of one peer that were not verified before."""
    new_jwts: Annotated[int, PlainValidator(parsers.count(1, 1_000_000))] = 200
    """JWTs per second of all peers that were not verified before."""


class Sealing(ConfigModel):
    """The sealing of secrets."""

    key: Annotated[SealingKeyPlace | None, BeforeValidator(parsers.sealing_key)] = None
    """Where the key-encryption key is; ``None``: in the file ``sealing-key`` of ``data_dir``."""
    accept_mismatch: Boolean = False
    """Start even if the sealing key is not the database's."""


class StoreSettings(ConfigModel):
    """Where the store is, and how to connect to it."""

    url: Annotated[str, PlainValidator(parsers.store_url)] = Field(default=SQLITE, repr=False)
    """``sqlite:``, which is the data directory, or the URI of a PostgreSQL database."""
    ca_file: Annotated[Path, PlainValidator(parsers.authorities)] | None = None
    """Authorities that may sign the certificate of PostgreSQL (PEM)."""
    password_file: ReadableFile | None = None
    """A file with the password of PostgreSQL, which is read at each connection."""
    migrate: Boolean | None = None
    """Whether to migrate an older database; ``None``: on SQLite, and an empty PostgreSQL database."""

    @property
    def is_shared(self) -> bool:
        """Return whether the store is PostgreSQL, which several servers may share."""
        return self.url != SQLITE

    def find_conflicts(self, given: AbstractSet[str]) -> Iterator[tuple[str, str, str]]:
        """Yield the problems of combinations of settings."""
        if not self.is_shared:
            for name in sorted(given & {"ca_file", "password_file"}):
                yield name, "is set, and the store is SQLite", "set store.url, or remove it"
        elif self.password_file is not None and has_password(self.url):
            yield "password_file", "is set, and store.url has a password", "remove one of the two"


class Log(ConfigModel):
    """The log's level and format."""

    level: Annotated[str, PlainValidator(parsers.choice("debug", "info", "warning", "error"))] = "info"
    """The lowest level that is logged."""
    format: Annotated[str, PlainValidator(parsers.choice("auto", "json", "console"))] = "auto"
    """The format of a line; auto: console at a terminal, else JSON."""


class MetricsSettings(ConfigModel):
    """The listener for metrics and probes: HTTP in the clear, without a token."""

    listen: Annotated[Address | None, PlainValidator(parsers.optional_address)] = None
    """Its address; ``None``, or an empty text: there is none."""


class HttpSettings(ConfigModel):
    """The listener for HTTP: Vault's API and the console, with the TLS of ``tls``."""

    listen: Annotated[Listener | None, PlainValidator(parsers.optional_listener)] = None
    """Its address; ``None``, or an empty text: there is none."""
    vault_api: Boolean = True
    """Whether Vault's API is served, below ``/v1/``."""
    console: Boolean = True
    """Whether the console is served."""
    hosts: Annotated[tuple[Annotated[str, PlainValidator(parsers.host_name)], ...], Items] = ()
    """Host names that are answered, besides the address and ``localhost``. The first is in links to here."""


class SettingsFile(ConfigModel):
    """All settings that a file or variables can hold."""

    listen: Annotated[tuple[Listener, ...], PlainValidator(parsers.listeners)] = (Listener(LOOPBACK),)
    """The addresses to listen on."""
    insecure_listen: Boolean = False
    """Listen beyond this machine without TLS."""
    data_dir: Annotated[Path, PlainValidator(parsers.folder)] = Path("lessor-data")
    """The data directory, created if it does not exist."""
    root_token: Annotated[TokenHash, PlainValidator(parsers.token)] | None = None
    """The root token; if neither it nor its file is set, one is created in ``data_dir``."""
    root_token_file: ReadableFile | None = None
    """A file with the root token."""
    reflection: Boolean = True
    """Whether the server serves gRPC reflection."""
    drain_grace: Annotated[timedelta, PlainValidator(parsers.duration("0s", "1h"))] = timedelta(seconds=10)
    """The time that calls in progress have to end when the server stops."""
    tls: Annotated[Tls | None, BeforeValidator(lambda given: None if given == {} else given)] = None
    """``None``, or an empty table in the file: no TLS."""
    access: AccessSettings = AccessSettings()
    audit: AuditSettings = AuditSettings()
    aws: AwsSettings = AwsSettings()
    limits: Limits = Limits()
    sealing: Sealing = Sealing()
    store: StoreSettings = StoreSettings()
    log: Log = Log()
    metrics: MetricsSettings = MetricsSettings()
    http: HttpSettings = HttpSettings()

    @property
    def exposed(self) -> bool:
        """Return whether tokens and credentials are sent over a network unencrypted."""
        return self.tls is None and any(not one.address.is_local for _, one in self._listeners)

    @property
    def _listeners(self) -> list[tuple[str, Listener]]:
        """Return each listener that takes tokens, with its setting."""
        found = [("listen", one) for one in self.listen]
        return [*found, ("http.listen", self.http.listen)] if self.http.listen else found

    def find_conflicts(self, given: AbstractSet[str]) -> Iterator[tuple[str, str, str]]:
        """Yield the problems of combinations of settings."""
        if self.tls and (problem := parsers.pair_problem(self.tls.cert_file, self.tls.key_file)):
            fix = "give a certificate (chain) and its own unencrypted key, both PEM"
            yield "tls.cert_file", problem, fix
        if self.store.is_shared:
            yield from self._find_unshared(given)
        if {"root_token", "root_token_file"} <= given:
            yield "root_token_file", "is set together with root_token", "set one of the two"
        if self.exposed and not self.insecure_listen and not given & {"tls.cert_file", "tls.key_file"}:
            setting, far = next(
                (setting, one.address) for setting, one in self._listeners if not one.address.is_local
            )
            yield (
                setting,
                f"{far} is neither loopback nor a unix socket, and there is no TLS",
                "set tls.cert_file and tls.key_file, or insecure_listen = true if a proxy terminates TLS",
            )
        for setting, one in self._listeners:
            if "tls.client_ca_file" not in given and one.client_auth == "require":
                problem = "has client_auth = require, and there is no authority of client certificates"
                yield setting, problem, "set tls.client_ca_file"
                break
        addresses = [str(one.address) for one in self.listen if one.address.port or one.address.path]
        if twice := next((one for one in addresses if addresses.count(one) > 1), None):
            yield "listen", f"has {twice} twice", "write it once"
        if self.http.listen and self.http.listen.address.port and str(self.http.listen.address) in addresses:
            yield "http.listen", "is also an address of listen", "give each an address of its own"
        if not self.access.root_token and "access.file" not in given:
            yield "access.root_token", "is false without access.file: nobody could call", "set access.file"
        yield from self._find_audit_conflicts()

    def _find_unshared(self, given: AbstractSet[str]) -> Iterator[tuple[str, str, str]]:
        """Yield each secret that servers of one database must share, and that has no default for that."""
        problem = "is not set, and servers that share a PostgreSQL database must share it"
        if self.sealing.key is None:
            yield "sealing.key", problem, "set it to file:PATH, env:NAME or awskms:KEY_ARN, the same for all"
        if self.access.root_token and not given & {"root_token", "root_token_file"}:
            yield "root_token_file", problem, "set it or root_token, or access.root_token = false"

    def _find_audit_conflicts(self) -> Iterator[tuple[str, str, str]]:
        """Yield the problem of each audit sink whose place is used for something else."""
        sockets = [("listen", Path(one.address.path)) for one in self.listen if one.address.path]
        named = [*sockets, *self._named_files()]
        for setting, path in (("audit.file", self.audit.file), ("audit.socket", self.audit.socket)):
            if path is not None and (use := find_collision(path, named, self.data_dir)):
                yield setting, f"{path} is also used by {use}", "give the audit a path of its own"
        if self.audit.file is not None and self.audit.file == self.audit.socket:
            yield "audit.socket", "is also audit.file", "give each a path of its own"

    def _named_files(self) -> list[tuple[str, Path | None]]:
        """Return each file that the settings name for the server to read, with its setting."""
        key = self.sealing.key
        return [
            ("root_token_file", self.root_token_file),
            ("sealing.key", Path(key.name) if key and key.kind is SealingKeyKind.FILE else None),
            ("tls.cert_file", self.tls.cert_file if self.tls else None),
            ("tls.key_file", self.tls.key_file if self.tls else None),
            ("tls.client_ca_file", self.tls.client_ca_file if self.tls else None),
            ("store.ca_file", self.store.ca_file),
            ("store.password_file", self.store.password_file),
            ("access.file", self.access.file),
        ]


class Settings(SettingsFile):
    """All settings of one server, with what loading adds."""

    file: Path | None = None
    """The settings file, if there is one."""
    worker: int = 0
    """Which of several workers this process is, from 1; 0 if it alone serves its ports."""
    warnings: tuple[str, ...] = ()
    """Warnings for the operator; the server starts nevertheless."""

    @property
    def token_places(self) -> TokenPlaces:
        """Return the allowed places of web identity tokens; files that the settings name are excluded."""
        files = [path for setting, path in self._named_files() if setting != "access.file"]
        named = [one for one in (self.file, *files) if one is not None]
        dirs = self.aws.identity_token_dirs
        return TokenPlaces(
            dirs=DEFAULT_DIRS if dirs is None else tuple(map(str, dirs)),
            enforced=dirs is not None,
            data_dir=str(self.data_dir.absolute()),
            private_files=tuple(str(one.absolute()) for one in named),
        )


def load(file: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings of ``file``, if one is given; those of ``environ`` override it.

    Raises:
        SettingsError: With every problem of both.
    """
    read = load_file(SettingsFile, file, environ)
    if file is not None and read.audit.file is not None and file.absolute() == read.audit.file.absolute():
        problem = "is the settings file itself"
        raise SettingsError((Problem("", "audit.file", problem, "give the audit a path of its own"),))
    return Settings.model_construct(**dict(read), file=file, warnings=_warnings(file, read, environ))


def _warnings(file: Path | None, settings: SettingsFile, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return a warning for each secret file of the operator's that every user of the machine can read.

    A group may read them: a service gets root's secrets that way.
    """
    secrets = {
        settings.root_token_file,
        settings.tls.key_file if settings.tls else None,
        settings.store.password_file,
        file if settings.root_token and TOKEN_VARIABLES[0] not in environ else None,
        file if has_password(settings.store.url) and STORE_VARIABLE not in environ else None,
    }
    readable = sorted(
        str(path) for path in secrets if path is not None and file_checks.is_readable_by_all(path)
    )
    return tuple(
        f"{path} holds a secret, and every user can read it; run chmod o-r {path}" for path in readable
    )


def forget_tokens(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Remove tokens and passwords from the environment, so that no child process inherits them.

    ``/proc/PID/environ`` still has the environment of the process's start. Returns what stands for them when
    the settings are read again: a token's value is not kept.
    """
    kept = {name: STAND_IN for name in TOKEN_VARIABLES if environ.pop(name, None) is not None}
    url = environ.pop(STORE_VARIABLE, None)
    return kept if url is None else kept | {STORE_VARIABLE: url}
