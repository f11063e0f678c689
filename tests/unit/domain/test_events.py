"""Checks that no event has a secret."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import get_type_hints

import pytest

from lessor_server.domain.events import Event

KINDS = sorted(Event.__subclasses__(), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_event_is_frozen_and_has_only_texts_and_numbers(kind: type[Event]) -> None:
    assert is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    hints = get_type_hints(kind)
    for field in fields(kind):
        assert hints[field.name] in (str, int, float, bool, tuple[str, ...])
        assert not {"secret", "token", "password"} & set(field.name.split("_"))
    assert kind.__doc__


def test_there_are_events() -> None:
    """So that the test above checks something."""
    assert len(KINDS) > 10
