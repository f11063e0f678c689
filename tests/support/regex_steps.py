"""Counts the steps of a regular expression on a text, as a matcher that backtracks takes them.

It walks the syntax tree of Python's own parser and takes the same steps as the matcher in C, which has no
counter. It supports only the constructs in the project's patterns; another construct is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

MANY = 64
"""A repeat that may take more than this counts as one without an end."""
TOO_MANY = 100_000
"""Nothing is counted past this: steps that double with each character would never end."""
_CATEGORIES = {
    op.CATEGORY_DIGIT: str.isdigit,
    op.CATEGORY_SPACE: str.isspace,
    op.CATEGORY_NOT_SPACE: lambda letter: not letter.isspace(),
    op.CATEGORY_WORD: lambda letter: letter.isalnum() or letter == "_",
}
_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)


class Steps:
    """One pattern, and how many characters it has looked at."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        """Read ``pattern``."""
        self.tree = list(parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE))
        self._caseless = bool(pattern.flags & re.IGNORECASE)
        self._text = ""
        self.count = 0

    def fullmatch(self, text: str) -> int:
        """Return the steps that it takes to match the whole of ``text``, or to find that it does not."""
        self._text, self.count = text, 0
        with suppress(OverflowError):
            any(end == len(text) for end in self._ends(self.tree, 0, 0))
        return self.count

    def search(self, text: str) -> int:
        """Return the steps that it takes to look for every match in ``text``."""
        self._text, self.count = text, 0
        at = 0
        with suppress(OverflowError):
            while at <= len(text):
                end = next(self._ends(self.tree, 0, at), at)
                at = max(end, at + 1)
        return self.count

    def _ends(self, nodes: Any, index: int, at: int) -> Iterator[int]:
        """Yield the ends of matches of the nodes from ``index`` on, in the order in which they are tried."""
        if index == len(nodes):
            yield at
            return
        for end in self._node(nodes[index], at):
            yield from self._ends(nodes, index + 1, end)

    def _node(self, node: Any, at: int) -> Iterator[int]:
        kind, value = node
        self.count += 1
        if self.count > TOO_MANY:
            raise OverflowError
        if self._takes_one(node):
            if at < len(self._text) and self._takes(node, self._text[at]):
                yield at + 1
        elif kind in _REPEATS:
            yield from self._repeat(kind, value, at)
        elif kind is op.SUBPATTERN:
            was, self._caseless = self._caseless, self._caseless or bool(value[1] & re.IGNORECASE)
            yield from self._ends(value[3], 0, at)
            self._caseless = was
        elif kind is op.BRANCH:
            for option in value[1]:
                yield from self._ends(option, 0, at)
        elif kind in (op.ASSERT, op.ASSERT_NOT):
            if self._asserts(value, at) is (kind is op.ASSERT):
                yield at
        elif kind is op.AT:
            yield from self._at(value, at)
        else:
            raise NotImplementedError(kind)

    def _asserts(self, value: Any, at: int) -> bool:
        direction, nodes = value
        start = at if direction > 0 else at - 1  # all that look behind look at one character
        return start >= 0 and any(True for _ in self._ends(nodes, 0, start))

    def _at(self, place: Any, at: int) -> Iterator[int]:
        word = _CATEGORIES[op.CATEGORY_WORD]
        around = [0 <= index < len(self._text) and word(self._text[index]) for index in (at - 1, at)]
        holds = {
            op.AT_BEGINNING: at == 0,
            op.AT_END: at == len(self._text),
            op.AT_BOUNDARY: around[0] != around[1],
        }
        if holds[place]:
            yield at

    def _repeat(self, kind: Any, value: Any, at: int) -> Iterator[int]:
        low, high, nodes = value
        if kind is op.POSSESSIVE_REPEAT:
            yield from list(self._repeat(op.MAX_REPEAT, value, at))[:1]
        elif len(nodes) == 1 and self._takes_one(nodes[0]):
            most = 0
            while (
                most < high and at + most < len(self._text) and self._takes(nodes[0], self._text[at + most])
            ):
                most += 1
                self.count += 1
            counts = range(low, most + 1)
            for taken in counts if kind is op.MIN_REPEAT else reversed(counts):
                self.count += 1
                yield at + taken
        else:
            yield from self._groups(value, at, 0)

    def _groups(self, value: Any, at: int, done: int) -> Iterator[int]:
        """Yield the ends of a repeated group, the longest first."""
        low, high, nodes = value
        if done < high:
            for end in self._ends(nodes, 0, at):
                if end > at:
                    yield from self._groups(value, end, done + 1)
        if done >= low:
            yield at

    @staticmethod
    def _takes_one(node: Any) -> bool:
        return node[0] in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN)

    def _takes(self, node: Any, letter: str) -> bool:
        if self._caseless and letter.lower() != letter.upper():
            return any(takes(node, one) for one in (letter.lower(), letter.upper()))
        return takes(node, letter)


def takes(node: Any, letter: str) -> bool:
    """Return whether a node for one character matches ``letter``."""
    kind, value = node
    match kind:
        case op.LITERAL:
            return bool(ord(letter) == value)
        case op.NOT_LITERAL:
            return bool(ord(letter) != value)
        case op.ANY:
            return True
        case op.RANGE:
            return bool(value[0] <= ord(letter) <= value[1])
        case op.CATEGORY:
            return bool(_CATEGORIES[value](letter))
        case op.IN:
            negated = value[0][0] is op.NEGATE
            return any(takes(part, letter) for part in value[negated:]) is not negated
    raise NotImplementedError(kind)


def sample(nodes: Any) -> str:
    """Return a short text that the nodes match."""
    return "".join(_sample(node) for node in nodes)


def _sample(node: Any) -> str:
    kind, value = node
    if kind in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
        return letters(node)[0]
    if kind in _REPEATS:
        return sample(value[2]) * max(int(value[0]), 1)
    if kind is op.SUBPATTERN:
        return sample(value[3])
    return sample(value[1][0]) if kind is op.BRANCH else ""


def letters(node: Any) -> str:
    """Return the first and the last of some common characters that a node matches."""
    usual = "aA0_-./: =+*%,@'\"{}\t\x01~!"
    for kind, value in [node] if node[0] is not op.IN else node[1]:
        usual += {op.LITERAL: chr, op.RANGE: lambda bounds: chr(bounds[0])}.get(kind, lambda _: "")(value)
    fitting = "".join(letter for letter in usual if takes(node, letter))
    return fitting[:1] + fitting[-1:]


def attacks(nodes: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Yield (what comes first, what is repeated) for each place of a pattern that takes any number."""
    for index, (kind, value) in enumerate(nodes):
        reached = before + sample(nodes[:index])
        if kind in _REPEATS and value[1] > MANY:
            inner = list(value[2])
            yield from (
                (reached, pump)
                for pump in {sample(inner), sample(nodes[:index]), *_pumps(nodes[: index + 2])}
                if pump
            )
            yield from attacks(inner, reached)
        elif kind in _REPEATS:
            yield from attacks(list(value[2]), reached)
        elif kind is op.SUBPATTERN:
            yield from attacks(list(value[3]), reached)
        elif kind is op.BRANCH:
            for option in value[1]:
                yield from attacks(list(option), reached)
        elif kind in (op.ASSERT, op.ASSERT_NOT):
            yield from attacks(list(value[1]), reached)


def _pumps(nodes: Any) -> set[str]:
    """Return texts to repeat: what the nodes before a repeat, the repeat itself and what follows it take."""
    found = {sample(nodes), sample(nodes[:-1])}
    for node in nodes:
        kind, value = node
        found |= {_sample(node)}
        if kind in _REPEATS:
            found |= _pumps(list(value[2]))
        elif kind is op.SUBPATTERN:
            found |= _pumps(list(value[3]))
        elif kind is op.BRANCH:
            found |= {sample(option) for option in value[1]}
        elif kind in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
            found |= set(letters(node))
    return found - {""}
