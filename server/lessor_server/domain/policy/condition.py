"""The condition operators of policies, and the values that IAM accepts for them.

Source: "IAM JSON policy elements: Condition operators" in the IAM User Guide. When a policy is written, IAM
verifies the operators, and of values only dates ("The policy failed legacy parsing"). Other values that can't
match cause warnings, by "IAM policy validation check reference" there.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

_COMPARISONS: Final = (
    "Equals",
    "NotEquals",
    "LessThan",
    "LessThanEquals",
    "GreaterThan",
    "GreaterThanEquals",
)
_FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "String": (
        "Equals",
        "NotEquals",
        "EqualsIgnoreCase",
        "NotEqualsIgnoreCase",
        "Like",
        "NotLike",
    ),
    "Numeric": _COMPARISONS,
    "Date": _COMPARISONS,
    "Arn": ("Equals", "NotEquals", "Like", "NotLike"),
    "Bool": ("",),
    "Binary": ("Equals",),
    "IpAddress": ("",),
    "Null": ("",),
}
_OPERATORS: Final = {f"{name}{rest}": name for name, rests in _FAMILIES.items() for rest in rests} | {
    "NotIpAddress": "IpAddress"
}
_QUANTIFIER: Final = re.compile(r"(?:ForAnyValue:|ForAllValues:)?(.*)", re.DOTALL)

_DATE: Final = re.compile(
    r"(?P<year>-?[0-9]{1,9})(?:-(?P<month>[0-9]{1,2})(?:-(?P<day>[0-9]{1,2}))?)?"
    r"(?:t(?:(?P<hour>[0-9]{1,2})(?::(?P<minute>[0-9]{1,2})(?::(?P<second>[0-9]{1,2})"
    r"(?:\.(?P<fraction>[0-9]{1,9}))?)?)?(?:z|[+-](?P<zone_hour>[0-9]{2})(?::(?P<zone_minute>[0-9]{2}))?)?)?)?"
)
_BOUNDS: Final = {
    "year": (-292_275_054, 292_278_993),
    "month": (1, 12),
    "day": (1, 31),
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 59),
    "zone_hour": (0, 23),
    "zone_minute": (0, 59),
}
_EPOCH: Final = re.compile(r"([0-9]{1,19})(?:\.[0-9]+)?")
_MAX_EPOCH: Final = 2**63 - 1
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")


def family(operator: str) -> str:
    """Return the family of an operator (String, Numeric, Date, …, Null); empty if IAM has none."""
    found = _QUANTIFIER.fullmatch(operator)
    name = found[1] if found else operator
    kind = _OPERATORS.get(name.removesuffix("IfExists"), "")
    return "" if kind == "Null" and name != kind else kind


def is_date(text: str) -> bool:
    """Return whether IAM accepts ``text`` for a Date operator: an ISO 8601 date, or seconds since 1970."""
    epoch = _EPOCH.fullmatch(text)
    if epoch is not None:
        return int(epoch[1]) <= _MAX_EPOCH
    found = _DATE.fullmatch(text.lower())
    return found is not None and all(
        low <= int(found[field]) <= high for field, (low, high) in _BOUNDS.items() if found[field]
    )


def cannot_match(kind: str, text: str) -> str:
    """If a value cannot match for an operator of family ``kind``, return what it should be; else empty."""
    match kind:
        case "Numeric" if not _NUMBER.fullmatch(text):
            return "a number"
        case "Bool" | "Null" if text.lower() not in ("true", "false") and "${" not in text:
            return '"true" or "false"'
        case "IpAddress" if not _is_network(text):
            return "an IP address or a range, as 203.0.113.0/24"
        case "Arn" if not text.startswith("arn:") and not set("*?$") & set(text):
            return "an ARN"
        case _:
            return ""


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
