"""``python -m tests.simulation`` runs the whole proof, and with ``--seed S`` one run with its journal."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tests.simulation.options import draw
from tests.simulation.progress import ROOT, Lines, Progress, tree_version
from tests.simulation.seeds import prepare, prove_seeds
from tests.simulation.tally import Tally
from tests.simulation.workers import Workers

if TYPE_CHECKING:
    from tests.simulation.prove import Kill

FRESH_SEEDS = 1_000
STOPPED = 130
"""The exit code after Ctrl-C, as a shell gives it."""


def main() -> int:
    """Run the proof, print the result, and return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="where these seeds begin")
    parser.add_argument("--fresh", type=int, default=FRESH_SEEDS, help="how many seeds to run beside them")
    parser.add_argument("--seeds-only", action="store_true", help="run the seeds and nothing else")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="how many processes to use")
    parser.add_argument("--seed", type=int, help="run this seed alone and tell its story")
    options = parser.parse_args()
    return _one(options.seed) if options.seed is not None else _all(options)


def _one(seed: int) -> int:
    from tests.simulation.run import run
    from tests.simulation.shrink import report, shrunk

    result = run(draw(seed))
    print(result.options)
    print(f"{result.effects} effects, {result.seconds / 3600:.1f} virtual hours, trace {result.digest}")
    if not result.breaches:
        print("every invariant held")
        return 0
    print(report(result))
    print(f"\nmade smaller: {report(shrunk(result))}")
    return 1


def _progress(options: argparse.Namespace) -> Progress:
    """Return the progress of a range of seeds and of one that begins elsewhere each time, by the clock."""
    ranges = (options.first, options.seeds), (int(time.time()) * FRESH_SEEDS, options.fresh)
    name = f"seeds-{options.first}-{options.seeds}-{options.fresh}.jsonl"
    progress = Progress(ROOT / "build" / "simulation" / name, tree_version(), ranges)
    for what, (first, count) in zip(("seeds", "fresh seeds"), progress.ranges, strict=True):
        if count:
            again = f"--first {first} --seeds {count} --fresh 0 --seeds-only"
            print(f"{what:<22}{first} to {first + count - 1}; only these: {again}", flush=True)
    if progress.resumed:
        print(f"{'done before':<22}{progress.resumed:>10}", flush=True)
        _print_found(progress.tally.faults)
    return progress


def _all(options: argparse.Namespace) -> int:
    lines = Lines(time.monotonic, functools.partial(print, flush=True))
    singles, pairs = Tally(), Tally()
    kills: list[Kill] = []
    progress = _progress(options)
    try:
        with Workers(options.processes, prepare) as workers:
            by_seeds = prove_seeds(workers, progress, lines)
            if not options.seeds_only:
                from tests.simulation.prove import prove_deaths, prove_mutants, prove_pairs

                singles, pairs = prove_deaths(workers, lines), prove_pairs(workers, lines)
                kills = prove_mutants(workers, lines)
    except KeyboardInterrupt:
        done = f"{progress.tally.runs:,} of {progress.total:,} seeds are done"
        print(f"\nstopped: {done}; the same command goes on from there, unless the code changes")
        return STOPPED
    progress.finish()
    _print(by_seeds, singles, pairs, kills)
    print(f"{'minutes':<22}{lines.seconds / 60:>10.1f}")
    _print_found(singles.faults + pairs.faults)
    survivors = [kill.name for kill in kills if not kill.by]
    for name in survivors:
        print(f"\nSURVIVED {name}")
    return 1 if by_seeds.faults or singles.faults or pairs.faults or survivors else 0


def _print_found(faults: Iterable[str]) -> None:
    for fault in faults:
        print(f"\nFOUND {fault}", flush=True)


def _print(by_seeds: Tally, singles: Tally, pairs: Tally, kills: list[Kill]) -> None:
    for kill in kills:
        print(f"  {kill.name:<42}{kill.by or 'SURVIVED'}")
    whole = by_seeds + singles + pairs
    print(f"{'seeds run':<22}{by_seeds.runs:>10}")
    print(f"{'  with 2 replicas':<22}{by_seeds.two:>10}")
    print(f"{'  with 3 replicas':<22}{by_seeds.three:>10}")
    print(f"{'effects met':<22}{whole.effects:>10}")
    print(f"{'single deaths':<22}{singles.runs:>10}")
    print(f"{'pairs of deaths':<22}{pairs.runs:>10}")
    print(f"{'mutants killed':<22}{sum(bool(kill.by) for kill in kills):>7} of {len(kills)}")
    print(f"{'virtual hours':<22}{whole.seconds / 3600:>10.0f}")
    print(f"{'leaks and breaches':<22}{len(whole.faults):>10}")


if __name__ == "__main__":
    sys.exit(main())
