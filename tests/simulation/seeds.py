"""The seeds in several processes. The one that hands them out does not import the engine: half a second."""

from __future__ import annotations

import gc
import logging
import traceback
import warnings
from functools import partial

from tests.simulation.options import draw
from tests.simulation.progress import Lines, Progress, follow
from tests.simulation.tally import Tally
from tests.simulation.workers import Workers

REPLAYED_EACH = 100
"""One in so many seeds is run twice, and its two traces must be the same."""


def seeds(first: int, count: int) -> Tally:
    """Run ``count`` seeds; some of them twice."""
    tally = Tally()
    for seed in range(first, first + count):
        try:
            tally += _one(seed)
        except Exception:  # noqa: BLE001 - an error of the simulator is a fault of its seed
            tally += Tally(
                1, faults=(f"seed {seed}: the run raised\n{traceback.format_exc()}{_again(seed)}",)
            )
    return tally


def _one(seed: int) -> Tally:
    from tests.simulation.run import run  # here, as the process that hands seeds out needs none of the engine

    result = run(draw(seed))
    faults = []
    if result.breaches:
        faults.append(f"seed {seed}: {result.breaches[0]}\n{result.story}\n{_again(seed)}")
    if seed % REPLAYED_EACH == 0 and run(draw(seed)).digest != result.digest:
        faults.append(f"seed {seed}: a second run left another trace\n{_again(seed)}")
    replicas = result.options.replicas
    return Tally(1, replicas == 2, replicas == 3, result.effects, result.seconds, tuple(faults))


def _again(seed: int) -> str:
    return f"to repeat it: python -m tests.simulation --seed {seed}"


def prove_seeds(workers: Workers, progress: Progress, lines: Lines) -> Tally:
    """Run the seeds that remain; return the result of all."""
    return follow(workers.run([partial(seeds, *chunk) for chunk in progress.remaining()]), progress, lines)


def prepare() -> None:
    """Hide the errors of intended deaths, and collect garbage only between runs."""
    import tests.simulation.prove  # noqa: F401 - what is imported now is never searched for garbage

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    gc.collect()
    gc.freeze()
    gc.disable()
