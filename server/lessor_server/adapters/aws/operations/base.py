"""Operations: how a call is converted to parameters, and its answer to a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

PRINTABLE: Final = re.compile(r"[!-~]{1,65536}")
"""The characters of names, paths, ARNs, ids, markers, secrets and tokens: ASCII without spaces."""
ACCESS_KEY_ID: Final = re.compile(r"[A-Za-z0-9_]{16,128}")
"""IAM and STS API Reference, AccessKey and Credentials."""
ACCOUNT: Final = re.compile(r"[0-9]{12}")
ARN: Final = re.compile(r"arn:aws[a-z-]{0,30}:[!-~]{1,2000}")

Params = dict[str, Any]
Answer = Mapping[str, Any]


def is_of_any(_call: object, _answer: Answer) -> bool:
    """Accept an answer that names nothing of its call."""
    return True


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of a service by AWS's name, with the functions for its parameters and its answer.

    ``is_of`` returns whether an answer names what its call named: the key of another user must reach nobody,
    however a connection, a proxy or an endpoint has mixed up two answers.
    """

    service: str
    action: str
    params: Callable[[Any], Params]
    read: Callable[[Answer], object]
    is_of: Callable[[Any, Answer], bool] = is_of_any


class WrongField(ValueError):
    """A field of an answer is missing or invalid; the text does not contain it."""

    def __init__(self, name: str) -> None:
        """Name the field."""
        super().__init__(f"the field {name} is missing or wrong")


def read_text(answer: Answer, name: str, pattern: re.Pattern[str] = PRINTABLE) -> str:
    """Return a text of an answer; raise ``WrongField`` unless it matches ``pattern`` completely.

    The SDK returns a list instead of a text if an element occurs twice.
    """
    value = answer.get(name)
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise WrongField(name)
    return value


def nothing(_: Answer) -> None:
    """Ignore an answer."""
    return


def epoch_us(instant: Any) -> int:
    """Return botocore's date in microseconds since the epoch; it must be between 1970 and 2200."""
    if not 1970 < instant.year < 2200:
        raise ValueError(instant.year)
    return int(instant.timestamp() * 1_000_000)
