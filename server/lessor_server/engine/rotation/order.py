"""What an attempt on a rotation is asked for, and what it works with."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from lessor_server.domain.events import BY_CLOCK
from lessor_server.domain.rotation import Rotation
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.ports import Observer, Sealer, Store
from lessor_server.engine.supervisor import Supervisor


class Goal(Enum):
    """What an attempt is for."""

    DUE = "due"
    """Do what is due."""
    ROTATE = "rotate"
    """Rotate now."""
    FIRST = "first"
    """Rotate now if there is no key yet, and do what is due."""
    ALIGN = "align"
    """See only that the next rotation of a root is due when its config says."""
    END = "end"
    """Delete the keys of a static role that is deleted, and forget the row."""


@dataclass(frozen=True, slots=True)
class Order:
    """What an attempt is asked for, and by whom; ``new`` is the row to store where there is none."""

    aim: Goal = Goal.DUE
    delete_other_key: bool = False
    new: Rotation | None = None
    change: Callable[[Rotation], Rotation] | None = None
    by: str = BY_CLOCK


@dataclass(frozen=True, slots=True)
class RotationDeps:
    """What every attempt works with."""

    store: Store
    roots: Roots
    sealer: Sealer
    notify: Observer
    rng: random.Random
    supervisor: Supervisor
