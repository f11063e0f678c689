"""``python -m bench [ROW…]``: measure what Lessor costs, each figure beside its peer in the same run.

``python -m bench million`` runs the rows of a million leases, which take long, and draws the plots.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench import h2load, issue, million, openbao, revoke, timers
from bench.check import RUN
from bench.children import BenchError
from bench.figures import Figure, save
from bench.world import FULL, QUICK, Size, World, report_progress, standing

Measure = Callable[[World, Size], Iterator[Figure]]
H2LOAD, OPENBAO = (h2load.is_there, h2load.MISSING), (openbao.is_there, openbao.MISSING)
MILLION = "million"
QUICK_RUN = RUN.with_name("bench-quick.json")
FAILURES = (BenchError, grpc.RpcError, subprocess.SubprocessError, OSError)
"""What ends a row, and not the run."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row: how it is measured, and what that needs."""

    measure: Measure
    needs: Sequence[tuple[Callable[[], bool], str]] = (H2LOAD,)

    def missing(self) -> str:
        """Return what is missing for it, or an empty text."""
        return "; ".join(fix for is_there, fix in self.needs if not is_there())


ROWS = {
    "wheel": Row(timers.wheel, ()),
    "rates": Row(issue.rates, (H2LOAD, OPENBAO)),
    "paced": Row(issue.paced, (H2LOAD, OPENBAO)),
    "renewals": Row(issue.renewals, (H2LOAD, OPENBAO)),
    "full-role": Row(issue.full_role),
    "audited": Row(issue.audited),
    "http": Row(issue.http),
    "split": Row(issue.split),
    "storm": Row(revoke.storm),
    "large": Row(issue.large, (H2LOAD, OPENBAO)),
    "prefix": Row(revoke.prefix, (H2LOAD, OPENBAO)),
}
"""The rows in their order: small stores come first, and the last ends the peer."""
LONG_ROWS = {
    "growth": Row(million.growth, (H2LOAD, OPENBAO)),
    "starts": Row(million.starts, (H2LOAD,)),
}


def main() -> int:
    """Measure; return 1 if a row failed, which a missing tool is not."""
    given = _parser().parse_args()
    known = ROWS | LONG_ROWS
    names = [name for one in given.rows for name in (LONG_ROWS if one == MILLION else [one])] or list(ROWS)
    if unknown := [name for name in names if name not in known]:
        print(f"there is no row {unknown[0]}: choose of {', '.join(known)}, or {MILLION}")
        return 2
    print(f"medians of {(QUICK if given.quick else FULL).rounds} rounds; {machine()}")
    with standing() as world:
        measured = {name: run(world, QUICK if given.quick else FULL, name, known[name]) for name in names}
    figures = [figure for found in measured.values() for figure in found or ()]
    path = Path(given.save or (QUICK_RUN if given.quick else RUN))
    path.parent.mkdir(parents=True, exist_ok=True)
    save(figures, machine(), path)
    return 1 if None in measured.values() else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "rows", nargs="*", help=f"{', '.join(ROWS)}; {', '.join(LONG_ROWS)}, both by {MILLION}"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and two rounds, for a first look")
    parser.add_argument("--save", metavar="FILE", help=f"where the figures are written; else {RUN}")
    return parser


def run(world: World, size: Size, name: str, row: Row) -> list[Figure] | None:
    """Measure a row and print it; None if it failed."""
    print(f"\n{name}", flush=True)
    if missing := row.missing():
        print(f"  skipped: {missing}", flush=True)
        return []
    figures: list[Figure] = []
    start = time.monotonic()
    try:
        for figure in row.measure(world, size):
            print(figure.line(), flush=True)
            figures.append(figure)
    except FAILURES as error:
        print(f"  failed: {error}", flush=True)
        return None
    report_progress(f"{name} took {time.monotonic() - start:.0f} s")
    return figures


def machine() -> str:
    """Return what this machine is, as far as figures depend on it."""
    python = f"Python {platform.python_version()} of {sys.base_prefix}"
    return f"{os.cpu_count()} cores, {platform.machine()}, {python}"


if __name__ == "__main__":
    sys.exit(main())
