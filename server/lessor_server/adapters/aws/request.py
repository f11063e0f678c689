"""What one operation of a service is: how a call becomes its parameters, and its answer a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Params = dict[str, Any]
Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One operation of one service: how its parameters are made and its answer is read."""

    service: str
    method: str
    params: Callable[[Any], Params]
    read: Callable[[Answer], object]


def nothing(_: Answer) -> None:
    """Read an answer of which nothing is needed."""
    return


def epoch_us(instant: Any) -> int:
    """Return a date of botocore's in microseconds since the epoch."""
    return int(instant.timestamp() * 1_000_000)
