"""Line plots as SVG, with a logarithmic x axis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 44, 48, 64
_COLOURS = ("#1f6feb", "#d1242f", "#57606a", "#8250df")

Points = Sequence[tuple[float, float]]


def plot(title: str, x_label: str, y_label: str, series: Mapping[str, Points], note: str = "") -> str:
    """Return an SVG of lines by name, each through points with x > 0; y begins at 0."""
    points = [point for line in series.values() for point in line]
    decades = _decades([x for x, _ in points])
    ticks = _ticks(max(y for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        along = (math.log10(x) - decades[0]) / (decades[-1] - decades[0])
        left = _LEFT + along * (_WIDTH - _LEFT - _RIGHT)
        return left, _HEIGHT - _BOTTOM - y / ticks[-1] * (_HEIGHT - _TOP - _BOTTOM)

    drawn = [_text(_WIDTH / 2, 22, title, "middle", size=15)]
    for decade in decades:
        x, y = place(10**decade, 0)
        drawn += [_rule(x, _TOP, x, y), _text(x, y + 18, f"{10**decade:,}", "middle")]
    for tick in ticks:
        x, y = place(10 ** decades[0], tick)
        drawn += [_rule(x, y, _WIDTH - _RIGHT, y), _text(x - 8, y + 4, f"{tick:,.10g}", "end")]
    drawn.append(_text(_WIDTH / 2, _HEIGHT - 26, x_label, "middle"))
    drawn.append(_text(16, _TOP - 12, y_label, "start"))
    for index, (name, line) in enumerate(series.items()):
        drawn += _line(name, [place(x, y) for x, y in line], index)
    if note:
        drawn.append(_text(_WIDTH / 2, _HEIGHT - 8, note, "middle", size=11))
    body = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">'
        f'\n<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _decades(xs: Sequence[float]) -> list[int]:
    """Return the decades of the axis; a point a little beyond the last is drawn in the margin."""
    low = math.floor(math.log10(min(xs)))
    return list(range(low, max(math.ceil(math.log10(max(xs)) - 0.05), low + 1) + 1))


def _ticks(top: float) -> list[float]:
    """Return four to ten even steps from 0 that reach ``top``."""
    step = 10 ** math.floor(math.log10(top)) if top > 0 else 1.0
    while top / step < 4:
        step /= 2
    return [step * number for number in range(math.ceil(top / step) + 1)]


def _line(name: str, places: Sequence[tuple[float, float]], index: int) -> Iterator[str]:
    colour = _COLOURS[index % len(_COLOURS)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for x, y in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    left = _LEFT + 12 + 130 * index
    yield _text(left, _TOP + 16, name, "start", colour=colour)


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#d8dee4"/>'


def _text(x: float, y: float, text: str, anchor: str, *, size: int = 12, colour: str = "#24292f") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f"<text {place}>{escape(text)}</text>"
