"""Shrinks a broken run: options are removed while the same invariant still breaks."""

from __future__ import annotations

from tests.simulation.options import smaller
from tests.simulation.run import Result, run

MAX_RUNS = 300


def shrunk(broken: Result) -> Result:
    """Return the smallest run found that breaks the same invariant."""
    runs = 0
    found = True
    while found and runs < MAX_RUNS:
        found = False
        for options in smaller(broken.options):
            runs += 1
            tried = run(options)
            if tried.broken == broken.broken:
                broken, found = tried, True
                break
    return broken


def report(result: Result) -> str:
    """Return the report of a broken run: the invariant, the options and the journal."""
    breach = result.breaches[0]
    head = f"seed {result.options.seed}: {breach.invariant} at {breach.at:.3f} s: {breach.text}"
    return f"{head}\n  {result.options}\n{result.story}"
