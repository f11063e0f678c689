"""``python -m bench.check``, ``make bench-check``: compares a run's ratios with those of the last release.

Milliseconds differ from machine to machine; a ratio to a peer of the same run does so little.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bench.figures import RATIO, Figure, load

RELEASED: Final = Path("bench") / "results.json"
"""The figures of the last release (``python -m bench --save bench/results.json``)."""
RUN: Final = Path("build") / "bench.json"
"""The figures of the last run that was not quick."""
MAX_WORSE: Final = 0.15


def pair(released: Iterable[Figure], run: Iterable[Figure]) -> list[tuple[Figure, Figure]]:
    """Return the ratios that both have: a row may be new, or may not have been run."""
    now = {figure.name: figure for figure in run if figure.unit == RATIO}
    return [(before, now[before.name]) for before in released if before.name in now]


def compare(pairs: Iterable[tuple[Figure, Figure]]) -> list[str]:
    """Return a line for each ratio that is over 15 % worse in the run, the second, than released."""
    return [
        f"{after.name}: {after.score:.2f} {RATIO}, released with {before.score:.2f}: {worse:.0%} worse"
        for before, after in pairs
        if (worse := _worse(before, after)) > MAX_WORSE
    ]


def _worse(before: Figure, after: Figure) -> float:
    """Return by what part ``after`` is worse: 0.5 is half the rate, or one and a half times the cost."""
    if before.score <= 0:
        return 0.0
    change = after.score / before.score - 1
    return -change if before.more_is_better else change


def main() -> int:
    """Compare the last run with the last release; return 1 if a ratio is worse, or none can be compared."""
    for path, fix in ((RELEASED, f"make one: python -m bench --save {RELEASED}"), (RUN, "run make bench")):
        if not path.exists():
            print(f"{path} is missing: {fix}")
            return 1
    pairs = pair(load(RELEASED), load(RUN))
    problems = compare(pairs)
    print("\n".join(problems) or f"of {len(pairs)} ratios none is over {MAX_WORSE:.0%} worse than released")
    return 1 if problems or not pairs else 0


if __name__ == "__main__":
    sys.exit(main())
