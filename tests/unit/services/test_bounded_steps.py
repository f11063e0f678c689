"""What a request costs grows no faster than its size, for each field of each request, and has a bound.

Steps are lines of Python that run, counted and never timed. What runs in C is bounded by the request's size
(``services/parsing.py``) and by ``tests/unit/test_patterns.py``.
"""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf.message import Message

from lessor_server.domain.errors.base import Invalid, LessorError
from lessor_server.services import parsing
from tests.support.engine_world import world
from tests.support.served import Served
from tests.support.sized_requests import METHODS, TEXT_SIZES, inputs
from tests.support.virtual_loop import virtual

MAX_STEPS = 60_000
"""So many lines take about 20 ms here; the loop may stand still for 50 ms."""
SLACK = 1_500
"""Steps by which two requests may differ because one is refused earlier than the other."""


async def steps(served: Served, method: str, request: Message) -> int:
    """Return how many lines of Python run while a request is parsed and served."""
    data = request.SerializeToString()
    count = 0

    def trace(_frame: Any, event: str, _arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        await served(method, parsing.parse(type(request), data))
    except LessorError:
        pass
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("method", sorted(METHODS))
@virtual
async def test_the_steps_of_a_request_grow_with_its_size_and_have_a_bound(method: str) -> None:
    """Twice the size is at most two and a half times the steps."""
    too_many = []
    async with world() as w:
        served = Served(w)
        for name, sized, sizes in inputs(METHODS[method]):
            counts = [await steps(served, method, sized(size)) for size in sizes]
            steep = any(more > 2.5 * less + SLACK for less, more in pairwise(counts[:-1]))
            if steep or max(counts) > MAX_STEPS:
                too_many.append(f"{name}: {counts}")
    assert too_many == []


IGNORED = {
    "config.account": "output only",
    "config.etag": "only has to match",
    "role.etag": "only has to match",
    "static_role.access_key": "output only",
}
"""Fields that are not stored."""


@pytest.mark.parametrize("method", sorted(METHODS))
@virtual
async def test_each_text_of_a_request_has_a_maximum_below_2048(method: str) -> None:
    taken = []
    async with world() as w:
        served = Served(w)
        for name, sized, sizes in inputs(METHODS[method]):
            path = name.partition(": ")[0]
            if sizes != TEXT_SIZES or path in IGNORED:
                continue
            try:
                await served(method, sized(2048))
            except Invalid as error:
                refused = [re.sub(r"\[.*?\]", "", violation.field) for violation in error.violations]
                if path not in refused:
                    taken.append(f"{name}: {refused}")
            else:
                taken.append(name)
    assert taken == []


def test_each_text_and_list_of_a_request_has_an_input() -> None:
    """The generator reaches texts, lists, masks and the fields of repeated messages."""
    paths = {name.partition(":")[0] for name, _, _ in inputs(METHODS["ConfigService.SetRoot"])}
    assert {"mount", "config.username_template", "config.assume_chain.role_arn", "update_mask"} <= paths
    assert {"config.assume_chain", "config.sts_fallback_endpoints"} <= paths
