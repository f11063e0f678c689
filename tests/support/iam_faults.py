"""Faults between a caller and the model: which call they meet, whether AWS acts, what the caller sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from tests.support.iam_rules import Answer


class Kind(Enum):
    """The kinds of faults of a call."""

    DELAY = "delay"
    """After ``seconds`` the call takes effect and is answered, even if its caller has disconnected."""
    REFUSE = "refuse"
    """No effect; answered with ``status``, ``code`` and ``message``, AccessDenied by default."""
    THROTTLE = "throttle"
    """No effect; Throttling, 400 (CommonErrors)."""
    ERROR_BEFORE = "error_before"
    """No effect; ``status`` (by default 500) with InternalFailure, or ServiceUnavailable for 503."""
    ERROR_AFTER = "error_after"
    """Takes effect; answered as ERROR_BEFORE."""
    LOSE = "lose"
    """Takes effect; the connection is cut without an answer."""
    RESET = "reset"
    """Takes effect; the connection is reset without an answer."""
    DROP = "drop"
    """No effect; the connection is cut."""
    HANG = "hang"
    """No effect; never answered."""
    HANG_AFTER = "hang_after"
    """Takes effect; never answered."""
    GARBAGE = "garbage"
    """No effect; answered with ``status`` (by default 200) and HTML, as a captive proxy does."""
    REDIRECT = "redirect"
    """No effect; answered with ``status`` (by default 302) and the URL in ``message`` as its Location."""


class Ending(Enum):
    """The outcomes for a caller: an answer, a closed connection, no answer, HTML, or a redirect."""

    ANSWER = "answer"
    CUT = "cut"
    RESET = "reset"
    SILENCE = "silence"
    HTML = "html"
    REDIRECT = "redirect"


@dataclass(frozen=True, slots=True)
class Fault:
    """Holds one rule: which calls (``*`` is every action, an empty ``user`` any user) and what happens.

    ``nth`` is the first matching call that it meets, counted from when it was added, 1 being the next; None
    means each from now on. ``times`` is how many it meets then; None means 1 where ``nth`` is given, else
    no end. Statuses, codes and messages that are not given are AWS's usual ones.
    """

    kind: Kind
    action: str = "*"
    user: str = ""
    nth: int | None = None
    times: int | None = None
    seconds: float = 0.0
    status: int = 0
    code: str = ""
    message: str = ""

    @staticmethod
    def of(rule: Mapping[str, object]) -> Fault:
        """Read a rule from JSON; ValueError or TypeError if it is not valid."""
        fields = {name: value for name, value in rule.items() if name != "kind"}
        return Fault(kind=Kind(rule.get("kind")), **fields)  # type: ignore[arg-type]

    def meets(self, count: int) -> bool:
        """Return whether the rule applies to the ``count``-th call that it matches, counted from 1."""
        first = self.nth or 1
        times = self.times or (1 if self.nth else None)
        return count >= first and (times is None or count < first + times)

    def outcome(self, effect: Callable[[], Answer]) -> tuple[Ending, Answer]:
        """Say what the caller sees, and let ``effect`` happen where this fault lets it happen.

        The delay of DELAY is the caller's to wait out, before this is called.
        """
        answer = effect() if self.kind in _EFFECTIVE else self._error()
        if self.kind is Kind.ERROR_AFTER:
            answer = self._error()
        return _ENDINGS.get(self.kind, Ending.ANSWER), answer

    def _error(self) -> Answer:
        if self.kind is Kind.THROTTLE:
            return Answer(400, "Throttling", "Rate exceeded")
        if self.kind is Kind.REFUSE:
            message = self.message or "User is not authorized to perform this action"
            return Answer(self.status or 403, self.code or "AccessDenied", message)
        if self.kind in (Kind.GARBAGE, Kind.REDIRECT):
            usual = 200 if self.kind is Kind.GARBAGE else 302
            return Answer(self.status or usual, message=self.message)
        status = self.status or 500
        named = "ServiceUnavailable" if status == 503 else "InternalFailure"
        return Answer(status, self.code or named, self.message or "The request processing has failed.")


_EFFECTIVE = {Kind.DELAY, Kind.ERROR_AFTER, Kind.LOSE, Kind.RESET, Kind.HANG_AFTER}
_ENDINGS = {
    Kind.LOSE: Ending.CUT,
    Kind.RESET: Ending.RESET,
    Kind.DROP: Ending.CUT,
    Kind.HANG: Ending.SILENCE,
    Kind.HANG_AFTER: Ending.SILENCE,
    Kind.GARBAGE: Ending.HTML,
    Kind.REDIRECT: Ending.REDIRECT,
}


class Faults:
    """The rules in the order in which they were added, each with the number of calls that it has matched."""

    def __init__(self) -> None:
        """Start without a rule."""
        self._rules: list[Fault] = []
        self._counts: list[int] = []

    def add(self, fault: Fault) -> None:
        """Add a rule; it counts calls from now on."""
        self._rules.append(fault)
        self._counts.append(0)

    def clear(self) -> None:
        """Forget all rules."""
        self._rules.clear()
        self._counts.clear()

    def take(self, action: str, user: str = "") -> Fault | None:
        """Count one call for every rule that matches it, and return the first rule that applies to it."""
        found: Fault | None = None
        for index, rule in enumerate(self._rules):
            if rule.action not in ("*", action) or rule.user not in ("", user):
                continue
            self._counts[index] += 1
            if found is None and rule.meets(self._counts[index]):
                found = rule
        return found
