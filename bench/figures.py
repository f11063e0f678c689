"""Figures: what was measured, beside what it must be; how they are printed and saved."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

RATIO: Final = "×"
"""The unit of what was measured beside a peer of the same run: only such figures of two runs compare."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; ``must`` and ``aim`` bound its ``score``.

    ``name`` is the same in every run. ``seen`` has the figures behind the score, the peer's too.
    """

    name: str
    score: float
    unit: str = RATIO
    must: float | None = None
    aim: float | None = None
    more_is_better: bool = True
    seen: str = ""

    @property
    def verdict(self) -> str:
        """Return ``aim``, ``must`` or ``MISSED``, by the better of the bounds that it keeps."""
        if self.must is None:
            return ""
        if self._keeps(self.aim):
            return "aim"
        return "must" if self._keeps(self.must) else "MISSED"

    def _keeps(self, bound: float | None) -> bool:
        if bound is None:
            return False
        return self.score >= bound if self.more_is_better else self.score <= bound

    def line(self) -> str:
        """Return the figure as one line, or two if it shows what is behind it."""
        sign = "≥" if self.more_is_better else "≤"
        bounds = [
            f"{name} {sign} {bound:g}" for name, bound in (("must", self.must), ("aim", self.aim)) if bound
        ]
        first = f"  {self.name:<58}{_shown(self.score):>10} {self.unit:<8}"
        line = f"{first}{', '.join(bounds):<26}{self.verdict}".rstrip()
        return f"{line}\n      {self.seen}" if self.seen else line


def _shown(score: float) -> str:
    return f"{score:,.0f}" if abs(score) >= 100 else f"{score:.3g}"


def save(figures: Iterable[Figure], machine: str, path: Path) -> None:
    """Write figures as JSON, with the machine that they were measured on."""
    body = {"machine": machine, "figures": [asdict(figure) for figure in figures]}
    path.write_text(json.dumps(body, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> list[Figure]:
    """Read figures that ``save`` wrote."""
    return [Figure(**one) for one in json.loads(path.read_text(encoding="utf-8"))["figures"]]
