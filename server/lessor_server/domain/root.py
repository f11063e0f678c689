"""A mount's root: the credentials and endpoints of Lessor's own calls to AWS."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from lessor_server.domain import durations, schedule, user_names
from lessor_server.domain.aws import arn, partition
from lessor_server.domain.aws.partition import IAM, MAX_ENDPOINT, STS, aws_host, corrected
from lessor_server.domain.errors.base import Violation, shown, too_long
from lessor_server.domain.policy.policy import JsonValue
from lessor_server.domain.role import external_id_violations
from lessor_server.domain.schedule import NEVER, Schedule
from lessor_server.domain.secret import Secret
from lessor_server.domain.token_places import TokenPlaces

MAX_RETRIES: Final = 10
MAX_CHAIN: Final = 5
MAX_FALLBACKS: Final = 20
MAX_REGION: Final = 32
MAX_TOKEN_PATH: Final = 1_000
MAX_AUDIENCE: Final = 255
"""The maximum length of a client id (IAM API Reference, clientIDType)."""
DEFAULT_PLACES: Final = TokenPlaces()

_LOOPBACK: Final = re.compile(r"127(?:\.[0-9]{1,3}){3}|::1|localhost")
_REGION: Final = re.compile(r"[a-z]{2,5}(?:-[a-z]+)+-[0-9]{1,2}")
_ACCESS_KEY: Final = re.compile(r"[A-Za-z0-9_]{16,128}")
_TEMPORARY: Final = "ASIA"
"""The prefix of the ids of STS's temporary keys (IAM User Guide, "IAM identifiers")."""
_SECRET_KEY: Final = re.compile(r"[!-~]{1,256}")


@dataclass(frozen=True, slots=True)
class Hop:
    """One role of an assume chain, and the external id that its trust policy requires (or none)."""

    role_arn: str
    external_id: str = ""


@dataclass(frozen=True, slots=True)
class RootConfig:
    """Hold a root as set; an empty text or ``None`` is unset: the default of AWS or the SDK applies.

    Spans are whole seconds. Without keys the server's own credentials are used.
    """

    access_key: str = ""
    secret_key: Secret = field(default_factory=Secret)
    region: str = ""
    iam_endpoint: str = ""
    sts_endpoint: str = ""
    sts_region: str = ""
    sts_fallback_endpoints: tuple[str, ...] = ()
    sts_fallback_regions: tuple[str, ...] = ()
    max_retries: int | None = None
    username_template: str = ""
    assume_chain: tuple[Hop, ...] = ()
    identity_token_file: str = ""
    identity_token_audience: str = ""
    rotation_period: timedelta | None = None
    rotation_schedule: str = ""
    rotation_window: timedelta | None = None
    etag: str = ""

    @property
    def is_ambient(self) -> bool:
        """Return whether this root uses the server's own credentials."""
        return not self.access_key and not self.identity_token_file

    @property
    def rotation(self) -> Schedule:
        """Return the schedule of the access key's rotation; never, if there is no key."""
        if not self.access_key:
            return NEVER
        return Schedule(self.rotation_period, self.rotation_schedule, self.rotation_window)


@dataclass(frozen=True, slots=True)
class Root:
    """Hold a mount's root in use; ``account`` is empty until AWS has reported it.

    ``version`` counts from 1 and grows with every change of ``config``.
    """

    mount: str
    version: int
    account: str
    config: RootConfig


@dataclass(frozen=True, slots=True)
class StoredRoot:
    """Hold a mount's root as stored: ``sealed`` is its sealed config."""

    mount: str
    sealed: bytes
    account: str
    version: int
    etag: str


def root_context(mount: str) -> str:
    """Return the context that a mount's root is sealed with."""
    return f"roots/{mount}"


def to_plain(config: RootConfig) -> dict[str, JsonValue]:
    """Return ``config`` as JSON values to be sealed, with the secret, without the etag."""
    kept = (one.name for one in fields(config) if one.name != "etag")
    return {name: _to_json(getattr(config, name)) for name in kept}


def from_plain(plain: Mapping[str, JsonValue], etag: str) -> RootConfig:
    """Return the config that ``to_plain`` wrote; ignore fields of a later version."""
    known = {one.name for one in fields(RootConfig)}
    values: dict[str, Any] = {name: value for name, value in plain.items() if name in known}
    values["secret_key"] = Secret(values.get("secret_key", ""))
    values["assume_chain"] = tuple(Hop(**hop) for hop in values.get("assume_chain", ()))
    for name in ("sts_fallback_endpoints", "sts_fallback_regions"):
        values[name] = tuple(values.get(name, ()))
    for name in ("rotation_period", "rotation_window"):
        seconds = values.get(name)
        values[name] = None if seconds is None else timedelta(seconds=seconds)
    return RootConfig(**values, etag=etag)


def _to_json(value: object) -> JsonValue:
    match value:
        case Secret():
            return value.reveal()
        case timedelta():
            return value // durations.SECOND
        case tuple():
            return [_to_json(item) for item in value]
        case Hop(role_arn, external_id):
            return {"role_arn": role_arn, "external_id": external_id}
        case None | str() | int():
            return value
    message = f"{type(value).__name__} is not part of a root"
    raise TypeError(message)


def violations(
    config: RootConfig,
    allowed_endpoints: Iterable[str],
    *,
    ambient: bool,
    token_places: TokenPlaces = DEFAULT_PLACES,
) -> list[Violation]:
    """Return every violation of ``config``; field paths begin at it.

    ``allowed_endpoints`` are further URLs that the operator trusts; with ``ambient`` the mount may
    use the server's own credentials.
    """
    found = _key_violations(config, ambient=ambient)
    found += _region_violations(config)
    found += _endpoint_violations(config, allowed_endpoints)
    if config.max_retries is not None and not 0 <= config.max_retries <= MAX_RETRIES:
        problem = f"{config.max_retries} is out of range"
        found.append(Violation("max_retries", problem, f"give 0 to {MAX_RETRIES}"))
    found += user_names.template_violations("username_template", config.username_template)
    found += chain_violations(config.assume_chain)
    found += _identity_token_violations(config, allowed_endpoints, token_places)
    found += _rotation_violations(config)
    return found


def _rotation_violations(config: RootConfig) -> list[Violation]:
    given = Schedule(config.rotation_period, config.rotation_schedule, config.rotation_window)
    found = schedule.violations(given)
    if not config.access_key:
        fix = "leave it out: such a root renews itself; or give the access_key of an IAM user"
        found += [
            Violation(path, "needs an access_key that is stored", fix)
            for path in ("rotation_period", "rotation_schedule")
            if getattr(config, path)
        ]
    return found


def _key_violations(config: RootConfig, *, ambient: bool) -> list[Violation]:
    found = []
    if config.access_key and not config.secret_key:
        found.append(Violation("secret_key", "is missing", "give it with its access_key"))
    if config.secret_key and not config.access_key:
        found.append(Violation("access_key", "is missing", "give it with its secret_key"))
    if config.access_key and not _ACCESS_KEY.fullmatch(config.access_key):
        # Not shown: it may be a secret key, sent by mistake.
        fix = "give 16 to 128 letters and digits, as AWS showed it"
        found.append(Violation("access_key", "is not a valid access key id", fix))
    if config.access_key.startswith(_TEMPORARY):
        problem = f"begins with {_TEMPORARY}: it is temporary, and there is no field for its session token"
        fix = "give the key of an IAM user, which begins with AKIA, or use the server's own credentials"
        found.append(Violation("access_key", problem, fix))
    if config.secret_key and not _SECRET_KEY.fullmatch(config.secret_key.reveal()):
        fix = "give it as AWS showed it, without spaces or line ends"
        found.append(Violation("secret_key", "is not a valid secret access key", fix))
    has_keys = bool(config.access_key or config.secret_key)
    if not has_keys and not config.identity_token_file and not ambient:
        fix = "give access_key and secret_key, or name the mount in the setting aws.ambient_mounts"
        found.append(Violation("access_key", "is missing", fix))
    return found


def _region_violations(config: RootConfig) -> list[Violation]:
    regions = [("region", config.region), ("sts_region", config.sts_region)]
    found = [
        Violation(path, f"{shown(region)} is not a valid region", "write it as us-east-1")
        for path, region in regions
        if region and not _is_region(region)
    ]
    found += [
        Violation(
            f"sts_fallback_regions[{index}]",
            f"{shown(region)} is not a valid region",
            "write it as us-east-1",
        )
        for index, region in enumerate(config.sts_fallback_regions[:MAX_FALLBACKS])
        if not _is_region(region)
    ]
    return found


def _is_region(text: str) -> bool:
    return len(text) <= MAX_REGION and _REGION.fullmatch(text) is not None


def _endpoint_violations(config: RootConfig, allowed_endpoints: Iterable[str]) -> list[Violation]:
    allowed = {url.rstrip("/") for url in allowed_endpoints}
    single = (("iam_endpoint", config.iam_endpoint), ("sts_endpoint", config.sts_endpoint))
    endpoints = [(path, url) for path, url in single if url]
    for index, url in enumerate(config.sts_fallback_endpoints[:MAX_FALLBACKS]):
        endpoints.append((f"sts_fallback_endpoints[{index}]", url))
    found = [
        Violation(path, f"{shown(url)} is neither AWS's nor allowed", _endpoint_fix(url))
        for path, url in endpoints
        if len(url) > MAX_ENDPOINT or (url.rstrip("/") not in allowed and not is_aws_endpoint(url))
    ]
    counts = len(config.sts_fallback_endpoints), len(config.sts_fallback_regions)
    for path, count in zip(("sts_fallback_endpoints", "sts_fallback_regions"), counts, strict=True):
        if count > MAX_FALLBACKS:
            found.append(Violation(path, f"has {count} items", f"give at most {MAX_FALLBACKS}"))
    if counts[0] != counts[1]:
        problem = f"has {counts[1]} regions for {counts[0]} endpoints"
        found.append(Violation("sts_fallback_regions", problem, "give one region for each endpoint"))
    return found + _place_violations(config)


def _endpoint_fix(url: str) -> str:
    right = corrected(url) if len(url) <= MAX_ENDPOINT else ""
    if right:
        return f"write {right}: AWS has that region under this suffix"
    return "give an https URL of AWS, or list it in the setting aws.allowed_endpoints"


def _place_violations(config: RootConfig) -> list[Violation]:
    """Return conflicts between regions and AWS's hosts, for which AWS would refuse each signature."""
    found = _iam_host_violations(config.iam_endpoint)
    pairs = [("sts_endpoint", config.sts_endpoint, "sts_region", config.sts_region)]
    fallbacks = zip(config.sts_fallback_endpoints, config.sts_fallback_regions, strict=False)
    for index, (url, region) in enumerate(fallbacks):
        pairs.append((f"sts_fallback_endpoints[{index}]", url, f"sts_fallback_regions[{index}]", region))
    for path, url, region_path, region in pairs:
        host = aws_host(url)
        if host is not None and host.service != STS:
            found.append(Violation(path, f"{shown(url)} is a host of IAM", "give STS's, or leave it out"))
        elif host is not None and region and region != host.signing_region:
            problem = f"is {region}, and {path} accepts only signatures for {host.signing_region}"
            found.append(Violation(region_path, problem, f"write {host.signing_region}"))
    return found + _partition_violations(config)


def _iam_host_violations(url: str) -> list[Violation]:
    host = aws_host(url)
    if host is None:
        return []
    if host.service != IAM:
        return [Violation("iam_endpoint", f"{shown(url)} is a host of STS", "give IAM's, or leave it out")]
    if host.region and host.region != host.signing_region:
        problem = f"names {host.region}, and IAM of {host.partition.name} is only in {host.signing_region}"
        return [Violation("iam_endpoint", problem, "leave it out, or give the host of AWS's reference")]
    return []


def _partitions(config: RootConfig) -> dict[str, str]:
    """Return the partition of each region and AWS host in the fields, by path."""
    regions = {"region": config.region, "sts_region": config.sts_region}
    urls = {"iam_endpoint": config.iam_endpoint, "sts_endpoint": config.sts_endpoint}
    urls |= {f"sts_fallback_endpoints[{n}]": url for n, url in enumerate(config.sts_fallback_endpoints)}
    named = {path: partition.of_region(region).name for path, region in regions.items() if region}
    return named | {path: host.partition.name for path, url in urls.items() if (host := aws_host(url))}


def _partition_violations(config: RootConfig) -> list[Violation]:
    (first, name), *others = [*_partitions(config).items()] or [("", "")]
    fix = "use one AWS partition in all fields"
    return [
        Violation(path, f"is in the partition {other}, and {first} in {name}", fix)
        for path, other in others
        if other != name
    ]


def partition_of(root: Root) -> str:
    """Return the name of a root's partition, or an empty text if it is not known yet."""
    named = _partitions(root.config)
    return next(iter(named.values()), "") or root.account.rpartition(":")[0]


def is_aws_endpoint(url: str) -> bool:
    """Return whether ``url`` is https and only a host, of IAM or STS."""
    return aws_host(url) is not None


def may_take_token(url: str, allowed_endpoints: Iterable[str]) -> bool:
    """Return whether a web identity token may be sent to ``url``: AWS's own hosts, or an allowed loopback.

    The operator's list alone is not enough: the process at that address could use the token with AWS.
    What is sent to a loopback address does not leave the machine (RFC 6890, table 4; RFC 6761, 6.3).
    """
    if is_aws_endpoint(url):
        return True
    if url.rstrip("/") not in {one.rstrip("/") for one in allowed_endpoints}:
        return False  # not parsed: a caller's text may be no valid URL
    return _LOOPBACK.fullmatch(urlsplit(url).hostname or "") is not None


def chain_violations(chain: tuple[Hop, ...]) -> list[Violation]:
    """Return every violation of a chain of roles to assume, under the path ``assume_chain``."""
    found = []
    if len(chain) > MAX_CHAIN:
        found.append(Violation("assume_chain", f"has {len(chain)} roles", f"give at most {MAX_CHAIN}"))
    for index, hop in enumerate(chain[:MAX_CHAIN]):
        path = f"assume_chain[{index}]"
        if not arn.is_role(hop.role_arn):
            problem = f"{shown(hop.role_arn)} is not the ARN of an IAM role"
            fix = "write arn:aws:iam::123456789012:role/name"
            found.append(Violation(f"{path}.role_arn", problem, fix))
        found += external_id_violations(f"{path}.external_id", hop.external_id)
    return found


def _identity_token_violations(
    config: RootConfig, allowed_endpoints: Iterable[str], places: TokenPlaces
) -> list[Violation]:
    path = "identity_token_file"
    if not config.identity_token_file:
        if config.identity_token_audience:
            return [Violation("identity_token_audience", f"needs {path}", f"give {path}, or leave it out")]
        return []
    found = []
    if len(config.identity_token_file) > MAX_TOKEN_PATH:
        found.append(too_long(path, config.identity_token_file, MAX_TOKEN_PATH))
    elif not (config.identity_token_file.startswith("/") and config.identity_token_file.isprintable()):
        problem = f"{shown(config.identity_token_file)} is not an absolute path"
        found.append(Violation(path, problem, "begin it with /, and leave control characters out"))
    elif not places.may_be_set(config.identity_token_file):  # links are checked at each read
        fix = "name a file below one of that setting's directories, and outside the data directory"
        found.append(Violation(path, "is not in the setting aws.identity_token_dirs", fix))
    if len(config.identity_token_audience) > MAX_AUDIENCE:
        found.append(too_long("identity_token_audience", config.identity_token_audience, MAX_AUDIENCE))
    if config.access_key or config.secret_key:
        found.append(Violation(path, "can't be combined with access_key", "leave one of the two out"))
    if not config.assume_chain:
        fix = "name in assume_chain the role that the token may assume"
        found.append(Violation("assume_chain", f"is needed with {path}", fix))
    if config.assume_chain and config.assume_chain[0].external_id:
        problem = f"can't be combined with {path}: AWS accepts none with a token"
        found.append(Violation("assume_chain[0].external_id", problem, "leave it out"))
    urls = [url for url in (config.sts_endpoint, *config.sts_fallback_endpoints[:MAX_FALLBACKS]) if url]
    if not all(may_take_token(url, allowed_endpoints) for url in urls):
        problem = "would send the token to a host that is not AWS's"
        found.append(Violation(path, problem, "leave it out, or give endpoints of AWS"))
    return found
