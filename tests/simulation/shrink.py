"""Makes a broken run smaller: options are taken away for as long as the same invariant still breaks."""

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


def told(result: Result) -> str:
    """Return a broken run as a person reads it: what broke, with which options, and the story."""
    breach = result.breaches[0]
    head = f"seed {result.options.seed}: {breach.invariant} at {breach.at:.3f} s: {breach.text}"
    return f"{head}\n  {result.options}\n{result.story}"
