"""What one operation of a service is: how a call becomes its parameters, and its answer a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

PRINTABLE: Final = re.compile(r"[!-~]{1,65536}")
"""What names, paths, ARNs, ids, markers, secrets and tokens are made of: ASCII, without spaces."""
ACCESS_KEY_ID: Final = re.compile(r"[A-Za-z0-9_]{16,128}")
"""IAM and STS API Reference, AccessKey and Credentials."""
ACCOUNT: Final = re.compile(r"[0-9]{12}")
ARN: Final = re.compile(r"arn:aws[a-z-]{0,30}:[!-~]{1,2000}")

Params = dict[str, Any]
Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one service: how its parameters are made and its answer is read."""

    service: str
    method: str
    params: Callable[[Any], Params]
    read: Callable[[Answer], object]


class WrongField(ValueError):
    """A field of an answer is missing, or is not what AWS writes there; its content is not repeated."""

    def __init__(self, name: str) -> None:
        """Name the field."""
        super().__init__(f"the field {name} is missing or wrong")


def read_text(answer: Answer, name: str, pattern: re.Pattern[str] = PRINTABLE) -> str:
    """Return a text of an answer, or raise ``WrongField`` unless it is all of ``pattern``.

    The SDK returns a list in the place of a text where an element stands twice.
    """
    value = answer.get(name)
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise WrongField(name)
    return value


def nothing(_: Answer) -> None:
    """Read an answer of which nothing is needed."""
    return


def epoch_us(instant: Any) -> int:
    """Return a date of botocore's in microseconds since the epoch; it must lie between 1970 and 2200."""
    if not 1970 < instant.year < 2200:
        raise ValueError(instant.year)
    return int(instant.timestamp() * 1_000_000)
