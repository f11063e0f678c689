"""Renders the console's pages from its templates, in which every value is escaped."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from jinja2 import Environment, FunctionLoader, StrictUndefined

from lessor import values
from lessor.v1 import lease_pb2, role_pb2, system_pb2
from lessor_server.http_edge.console import answers
from lessor_server.http_edge.console.forms import ControlKind
from lessor_server.services.system import HELD

_FILES: Final = resources.files("lessor_server.http_edge.console")
NAVIGATION: Final = (
    ("Engines", "/engines"),
    ("Roles", "/roles"),
    ("Issue", "/issue"),
    ("Leases", "/leases"),
    ("Stuck", "/stuck"),
    ("Static roles", "/static-roles"),
    ("Events", "/events"),
    ("Who am I", "/whoami"),
)
_STATIC_TYPES: Final = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_TYPE_NAMES: Final = {
    role_pb2.Role.UNSPECIFIED: "unknown",
    role_pb2.Role.IAM_USER: "IAM user",
    role_pb2.Role.ASSUMED_ROLE: "assumed role",
    role_pb2.Role.FEDERATION_TOKEN: "federation token",
    role_pb2.Role.SESSION_TOKEN: "session token",
}
_SOON: Final = 0.2
"""The share of its life at which a lease is shown as ending soon."""


class PageTemplates:
    """All templates, compiled, and the files that they refer to."""

    def __init__(self) -> None:
        """Read and compile every template: none is read while the server serves."""
        self._templates = Environment(
            loader=FunctionLoader(_read_template),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "span": span_text,
            "left": left_text,
            "moment": moment_text,
            "iso": iso_text,
            "document": document_text,
            "state": state_name,
            "kind": type_name,
            "sentence": sentence,
            "shell": shlex.quote,
        }
        self._templates.globals |= {
            "link": answers.page_link,
            "lease_link": answers.lease_link,
            "navigation": NAVIGATION,
            "ControlKind": ControlKind,
            "holds": expiry_holds,
            "other_warnings": other_warnings,
            "life": life,
            "in_order": in_order,
        }
        for one in (_FILES / "templates").iterdir():
            self._templates.get_template(one.name)
        self.static = {
            name: ((_FILES / "static" / name).read_bytes(), kind) for name, kind in _STATIC_TYPES.items()
        }

    def render(self, template: str, *, failed: bool = False, **shown: object) -> str:
        """Return a page; ``failed``: it shows an error."""
        return self._templates.get_template(template).render(failed=failed, **shown)


def span_text(value: Duration | timedelta) -> str:
    """Return a duration as people write it: ``1h30m``."""
    return values.written(value.ToTimedelta() if isinstance(value, Duration) else value)


def left_text(value: Duration) -> str:
    """Return the time that is left, in its two largest units, as the script counts it down."""
    seconds = value.seconds
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours >= 48:
        return f"{hours // 24}d{hours % 24}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{seconds % 60}s" if minutes else f"{seconds}s"


def moment_text(value: Timestamp) -> str:
    """Return an instant for people, in UTC."""
    return f"{value.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"


def iso_text(value: Timestamp) -> str:
    """Return an instant for programs, RFC 3339."""
    return f"{value.ToDatetime(tzinfo=UTC):%Y-%m-%dT%H:%M:%SZ}"


def document_text(value: Struct) -> str:
    """Return a policy as JSON over several lines."""
    return values.policy_text(MessageToDict(value), indent=2)


def sentence(text: str) -> str:
    """Return a text of an error or a warning as a sentence: with a capital letter and a full stop."""
    end = "" if not text or text[-1] in ".!?" else "."
    return f"{text[:1].upper()}{text[1:]}{end}"


def state_name(lease: lease_pb2.Lease) -> str:
    """Return the state of a lease by its name."""
    return lease_pb2.Lease.State.Name(lease.state)


def type_name(value: role_pb2.Role.CredentialType.ValueType) -> str:
    """Return the name of a credential type for people."""
    return _TYPE_NAMES[value]


def expiry_holds(info: system_pb2.GetInfoResponse) -> list[str]:
    """Return why expiry is held: an operator's hold, or a clock that is not trusted."""
    return [one.removeprefix(HELD).lstrip(": ") for one in info.warnings if one.startswith(HELD)]


def other_warnings(info: system_pb2.GetInfoResponse) -> list[str]:
    """Return the server's other warnings."""
    return [one for one in info.warnings if not one.startswith(HELD)]


def life(lease: lease_pb2.Lease, now: Timestamp) -> tuple[int, str] | None:
    """Return how much of its life a live lease has left, in percent, and ``soon`` near its end."""
    if lease.state != lease_pb2.Lease.ACTIVE or not lease.HasField("expire_time"):
        return None
    begin = lease.last_renewal_time if lease.HasField("last_renewal_time") else lease.issue_time
    whole = lease.expire_time.ToMicroseconds() - begin.ToMicroseconds()
    left = lease.expire_time.ToMicroseconds() - now.ToMicroseconds()
    share = min(max(left / whole, 0.0), 1.0) if whole > 0 else 0.0
    return round(share * 100), "soon" if share < _SOON else ""


def in_order(lease: lease_pb2.Lease) -> datetime:
    """Return when a lease last changed, to sort by."""
    found: datetime = max(lease.issue_time, lease.last_renewal_time, key=Timestamp.ToNanoseconds).ToDatetime()
    return found


def _read_template(name: str) -> str:
    return (_FILES / "templates" / name).read_text(encoding="utf-8")
