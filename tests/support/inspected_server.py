"""Runs the server as ``lessor server`` does, and reports which live objects contain a text.

``python -m tests.support.inspected_server``: each line of standard input is a JSON list of texts, each as
``masked`` writes it, so that looking for it makes no copy. The answer is a JSON list: what holds each text.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from collections.abc import Sequence
from typing import Final

from google.protobuf.message import Message

from lessor_server.commands.server import run_server
from lessor_server.settings.model import load

_MASK: Final = bytes(byte ^ 0x55 for byte in range(256))


def masked(text: str) -> str:
    """Return a text in a masked form, which can be searched for without creating a copy of the text."""
    return text.encode().translate(_MASK).hex()


def holders(needles: Sequence[bytes]) -> list[list[str]]:
    """Return for each masked text the types of the objects that contain it."""
    found: list[list[str]] = [[] for _ in needles]
    gc.unfreeze()  # the server keeps the SDK's models out of collections
    gc.collect()  # what nothing refers to is not live
    waiting = gc.get_objects()
    seen = {id(item) for item in waiting}
    for item in waiting:  # grows on the way: strings and the like are not in the collector's list
        content = _content(item).translate(_MASK)
        for needle, holding in zip(needles, found, strict=True):
            if content and needle in content:
                holding.append(_described(item))
        for inner in gc.get_referents(item):
            if id(inner) not in seen:
                seen.add(id(inner))
                waiting.append(inner)
    return found


def _content(item: object) -> bytes:
    match item:
        case str():
            return item.encode("utf-8", "surrogatepass")
        case bytes() | bytearray():
            return bytes(item)
        case Message():
            return item.SerializeToString()
        case _:
            return b""


def _described(item: object) -> str:
    """Return a type, and the types of what refers to it."""
    owners = {type(owner).__qualname__ for owner in gc.get_referrers(item)} - {"list"}
    return f"{type(item).__qualname__} of {', '.join(sorted(owners))}"


def _answer() -> None:
    for line in sys.stdin:
        sys.stdout.write(json.dumps(holders([bytes.fromhex(text) for text in json.loads(line)])) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    threading.Thread(target=_answer, daemon=True).start()
    run_server(load(None, os.environ), None)
