"""Reads an answer without a parser if it is flat: one structure of plain texts, as those of most calls.

That takes a third of the time. What matches is well-formed, and a parser reads the same from it, as the tests
compare. Whatever else there is in a body, even an entity or an attribute, is left to the parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple
from xml.etree.ElementTree import Element

MAX_BYTES: Final = 8192
"""A longer answer is a list, or a policy."""
_SPACE: Final = r"[ \t\r\n]*"
_TEXT: Final = r"[ -%'-;=?-~]"
"""Printable ASCII, without the characters that have a meaning in XML."""
_FLAT: Final = re.compile(
    (
        rf'(?:<\?xml version="1\.0"(?: encoding="UTF-8")?\?>{_SPACE})?'
        rf'<([A-Za-z]+)Response xmlns="https://(?:iam|sts)\.amazonaws\.com/doc/[0-9-]+/">{_SPACE}'
        rf"(?:<\1Result>{_SPACE}<([A-Za-z]+)>{_SPACE}((?:<([A-Za-z]+)>{_TEXT}*</\4>{_SPACE})+)</\2>{_SPACE}"
        rf"</\1Result>{_SPACE})?"
        rf"<ResponseMetadata>{_SPACE}<RequestId>({_TEXT}+)</RequestId>{_SPACE}</ResponseMetadata>{_SPACE}"
        rf"</\1Response>{_SPACE}"
    ).encode()
)
_LEAF: Final = re.compile(rf"<([A-Za-z]+)>({_TEXT}*)</")


class FlatNode:
    """A structure with such methods of an element as answers are read by; no tag has a namespace."""

    __slots__ = ("_children",)

    text: Final = None

    def __init__(self, children: Mapping[str, str | FlatNode]) -> None:
        """Have these children by name, each a text or a structure."""
        self._children = children

    def __iter__(self) -> Iterator[Element | FlatNode]:
        """Return the children."""
        return (child for name in self._children for child in self.findall(name))

    def find(self, name: str) -> Element | FlatNode | None:
        """Return the child of that name."""
        return next(iter(self.findall(name)), None)

    def findall(self, name: str) -> list[Element | FlatNode]:
        """Return the child of that name, in a list as an element does."""
        child = self._children.get(name)
        if not isinstance(child, str):
            return [] if child is None else [child]
        leaf = Element(name)
        leaf.text = child
        return [leaf]


class FlatAnswer(NamedTuple):
    """The action that is answered, its result if it has one, and the request's id."""

    action: str
    result: FlatNode | None
    request_id: str

    def answers(self, action: str, *, with_result: bool) -> bool:
        """Return whether it is an answer to ``action``, and has the result that it should have."""
        return self.action == action and not (with_result and self.result is None)


def read_flat(body: bytes) -> FlatAnswer | None:
    """Return what is in a body; None if it is not flat."""
    found = _FLAT.fullmatch(body) if len(body) <= MAX_BYTES else None
    if found is None:
        return None
    action, name, leaves, _, request_id = found.groups()
    result = None
    if name is not None:
        pairs = _LEAF.findall(leaves.decode())
        texts = dict(pairs)
        if len(texts) < len(pairs):
            return None  # several of one name are a list
        result = FlatNode({name.decode(): FlatNode(texts)})
    return FlatAnswer(action.decode(), result, request_id.decode())
