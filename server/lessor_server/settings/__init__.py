"""What an operator can set: one frozen value, checked whole before anything starts.

A setting ``a.b`` stands in the TOML file as ``b`` of table ``[a]`` and in the environment as
``LESSOR_A_B``, which wins. Parts are given the values they need, never this object.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from lessor_server.domain.secret import TokenHash
from lessor_server.domain.token_places import DEFAULT_DIRS, TokenPlaces
from lessor_server.settings import access, parsers
from lessor_server.settings.parsers import Address
from lessor_server.settings.sources import Problem, RawSettings, SettingsError

__all__ = [
    "Address",
    "Aws",
    "Limits",
    "Log",
    "Problem",
    "Sealing",
    "Settings",
    "SettingsError",
    "Tls",
    "load",
]

TOKEN_VARIABLES: Final = ("LESSOR_ROOT_TOKEN", "LESSOR_TOKEN")
"""Variables that hold a token: the server's, and the client's, which may be set where a server runs."""

LOOPBACK: Final = Address(host="127.0.0.1", port=50051)


@dataclass(frozen=True, slots=True)
class Tls:
    """Where the certificate and its key are (PEM); with ``client_ca_file`` callers must show one too."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class AwsSettings:
    """How AWS may be called.

    ``allowed_endpoints`` are URLs beside AWS's own, as ``scheme://host[:port]``; ``ambient_mounts`` may
    use the credentials of the server's surroundings; ``identity_token_dirs`` are where web identity tokens
    may lie, ``None`` where Kubernetes puts them; ``rate`` is in calls per second, ``None`` where
    the pacer finds it; ``in_flight`` is how many calls may wait for an answer at a time.
    """

    allowed_endpoints: tuple[str, ...] = ()
    ambient_mounts: tuple[str, ...] = ()
    identity_token_dirs: tuple[Path, ...] | None = None
    rate: float | None = None
    in_flight: int = 64


@dataclass(frozen=True, slots=True)
class Sealing:
    """How secrets are sealed; ``accept_mismatch`` starts with a key that is not that of the database."""

    accept_mismatch: bool = False


@dataclass(frozen=True, slots=True)
class Log:
    """How much is logged (``level``) and how it looks (``format``: auto, json or console)."""

    level: str = "info"
    format: str = "auto"


@dataclass(frozen=True, slots=True)
class Limits:
    """What callers may use of the server at the same time.

    ``connections`` is half of the process's file descriptors where it is None. ``streams_per_connection``
    and ``metadata_bytes`` (of one call) are what HTTP/2 allows each caller. An idle connection is closed
    after ``connection_idle``; one of ``connection_age`` takes no new calls.
    """

    connections: int | None = None
    streams_per_connection: int = 100
    metadata_bytes: int = 16 << 10
    connection_idle: timedelta = timedelta(minutes=15)
    connection_age: timedelta = timedelta(hours=1)
    concurrent_calls: int = 2_000


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one server. Without a root token or a file of it, one is created in ``data_dir``.

    ``drain_grace`` is how long calls under way may take to end when the server stops; ``file`` is where the
    settings were read from. ``warnings`` name what an operator should check although the server starts.
    """

    listen: Address = LOOPBACK
    insecure_listen: bool = False
    data_dir: Path = Path("lessor-data")
    root_token: TokenHash | None = None
    root_token_file: Path | None = None
    reflection: bool = True
    drain_grace: timedelta = timedelta(seconds=10)
    tls: Tls | None = None
    aws: AwsSettings = field(default_factory=AwsSettings)
    limits: Limits = field(default_factory=Limits)
    sealing: Sealing = field(default_factory=Sealing)
    log: Log = field(default_factory=Log)
    warnings: tuple[str, ...] = ()
    file: Path | None = None

    @property
    def exposed(self) -> bool:
        """Return whether tokens and credentials cross a network in the clear."""
        return self.tls is None and not self.listen.is_local

    @property
    def token_places(self) -> TokenPlaces:
        """Return where web identity tokens may be: never beside a file that the settings name."""
        tls = (self.tls.cert_file, self.tls.key_file, self.tls.client_ca_file) if self.tls else ()
        named = [one for one in (self.file, self.root_token_file, *tls) if one is not None]
        dirs = self.aws.identity_token_dirs
        return TokenPlaces(
            dirs=DEFAULT_DIRS if dirs is None else tuple(map(str, dirs)),
            enforced=dirs is not None,
            data_dir=str(self.data_dir.absolute()),
            private_files=tuple(str(one.absolute()) for one in named),
        )


def load(file: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings of ``file``, if there is one, under those of ``environ``.

    Raises:
        SettingsError: With every problem of both.
    """
    given = RawSettings.read(file, environ)
    default = Settings()
    settings = Settings(
        listen=given.take("listen", parsers.address, default.listen),
        insecure_listen=given.take("insecure_listen", parsers.boolean, default.insecure_listen),
        data_dir=given.take("data_dir", parsers.folder, default.data_dir),
        root_token=given.take("root_token", parsers.token, default.root_token),
        root_token_file=given.take("root_token_file", parsers.readable_file, default.root_token_file),
        reflection=given.take("reflection", parsers.boolean, default.reflection),
        drain_grace=given.take("drain_grace", parsers.grace, default.drain_grace),
        tls=_tls(given),
        aws=_aws(given, default.aws),
        limits=_limits(given, default.limits),
        sealing=Sealing(given.take("sealing.accept_mismatch", parsers.boolean, default=False)),
        log=_log(given, default.log),
        file=file,
    )
    _check_combinations(given, settings)
    given.refuse_unknown()
    given.raise_faults()
    return replace(settings, warnings=_warnings(file, settings))


def _warnings(file: Path | None, settings: Settings) -> tuple[str, ...]:
    """Return a line for each brought file of a secret that every user of the machine can read.

    A group may read them: that is how a service gets a secret that root keeps.
    """
    secrets = {
        settings.root_token_file,
        settings.tls.key_file if settings.tls else None,
        file if settings.root_token else None,
    }
    readable = sorted(str(path) for path in secrets if path is not None and access.is_readable_by_all(path))
    return tuple(
        f"{path} holds a secret, and every user can read it: run chmod o-r {path}" for path in readable
    )


def forget_tokens(environ: MutableMapping[str, str]) -> None:
    """Remove the tokens from the environment once the settings are read, before anything inherits it.

    The kernel keeps the environment that the process began with in ``/proc/PID/environ``.
    """
    for name in TOKEN_VARIABLES:
        environ.pop(name, None)


def _tls(given: RawSettings) -> Tls | None:
    """Read the table ``tls``: a certificate and its key go together, and fit each other."""
    cert = given.take("tls.cert_file", parsers.readable_file, None)
    key = given.take("tls.key_file", parsers.readable_file, None)
    client_ca = given.take("tls.client_ca_file", parsers.authorities, None)
    for name, other in (("tls.cert_file", "tls.key_file"), ("tls.key_file", "tls.cert_file")):
        if given.has(name) and not given.has(other):
            given.problem(name, f"is set without {other}", "set both or neither")
    if given.has("tls.client_ca_file") and not given.has("tls.cert_file") and not given.has("tls.key_file"):
        given.problem("tls.client_ca_file", "is set without tls.cert_file and tls.key_file", "set all three")
    if cert is None or key is None:
        return None
    if problem := parsers.pair_problem(cert, key):
        given.problem(
            "tls.cert_file", problem, "give a certificate (chain) and its own unencrypted key, both PEM"
        )
    return Tls(cert, key, client_ca)


def _aws(given: RawSettings, default: AwsSettings) -> AwsSettings:
    """Read the table ``aws``."""
    return AwsSettings(
        allowed_endpoints=given.take("aws.allowed_endpoints", parsers.endpoints, default.allowed_endpoints),
        ambient_mounts=given.take("aws.ambient_mounts", parsers.mounts, default.ambient_mounts),
        identity_token_dirs=given.take(
            "aws.identity_token_dirs", parsers.folders, default.identity_token_dirs
        ),
        rate=given.take("aws.rate", parsers.rate, default.rate),
        in_flight=given.take("aws.in_flight", parsers.in_flight, default.in_flight),
    )


def _limits(given: RawSettings, default: Limits) -> Limits:
    """Read the table ``limits``."""

    def count(name: str, default: int, least: int, most: int) -> int:
        return given.take(f"limits.{name}", partial(parsers.count, least=least, most=most), default)

    def span(name: str, default: timedelta) -> timedelta:
        return given.take(f"limits.{name}", parsers.connection_span, default)

    return Limits(
        connections=given.take(
            "limits.connections", partial(parsers.count, least=1, most=1_000_000), default.connections
        ),
        streams_per_connection=count("streams_per_connection", default.streams_per_connection, 1, 10_000),
        metadata_bytes=count("metadata_bytes", default.metadata_bytes, 1 << 10, 1 << 20),
        connection_idle=span("connection_idle", default.connection_idle),
        connection_age=span("connection_age", default.connection_age),
        concurrent_calls=count("concurrent_calls", default.concurrent_calls, 1, 1_000_000),
    )


def _log(given: RawSettings, default: Log) -> Log:
    """Read the table ``log``."""
    return Log(
        level=given.take("log.level", parsers.level, default.level),
        format=given.take("log.format", parsers.log_format, default.format),
    )


def _check_combinations(given: RawSettings, settings: Settings) -> None:
    """Check combinations of settings."""
    if given.has("root_token") and given.has("root_token_file"):
        given.problem("root_token_file", "is set together with root_token", "set one of the two")
    meant_tls = given.has("tls.cert_file") or given.has("tls.key_file")
    if settings.exposed and not settings.insecure_listen and not meant_tls:
        given.problem(
            "listen",
            f"{settings.listen} is neither loopback nor a unix socket, and there is no TLS",
            "set tls.cert_file and tls.key_file, or insecure_listen = true if a proxy terminates TLS",
        )
