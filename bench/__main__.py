"""``python -m bench``: measure what a credential costs and print it; ``--quick`` for a first look."""

from __future__ import annotations

import argparse

from bench.measure import FULL, QUICK, measure
from bench.report import report
from bench.setting import standing


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds, about 15 s")
    size = QUICK if parser.parse_args().quick else FULL
    with standing() as setting:
        print(report(measure(setting, size)))


if __name__ == "__main__":
    main()
