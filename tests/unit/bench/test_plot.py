"""A plot is SVG with a line for each series."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from bench.plot import plot

_SVG = "{http://www.w3.org/2000/svg}"


def test_each_series_is_a_line_and_a_name() -> None:
    drawn = plot(
        "Rate", "leases", "a second", {"A & B": [(1000, 5), (100_000, 10)], "C": [(1000, 4)]}, "C ends"
    )
    root = ET.fromstring(drawn)
    lines = [one.attrib["points"].split() for one in root.iter(f"{_SVG}polyline")]
    assert [len(line) for line in lines] == [2, 1]
    texts = [one.text for one in root.iter(f"{_SVG}text")]
    assert {"Rate", "leases", "a second", "A & B", "C", "C ends", "1,000", "100,000"} <= set(texts)


def test_x_is_logarithmic_and_y_begins_at_zero() -> None:
    root = ET.fromstring(plot("", "", "", {"": [(10, 0), (100, 5), (1000, 10)]}))
    line = next(one.attrib["points"] for one in root.iter(f"{_SVG}polyline"))
    (x1, y1), (x2, y2), (x3, y3) = (map(float, point.split(",")) for point in line.split())
    assert abs((x2 - x1) - (x3 - x2)) < 0.2
    assert abs((y1 - y2) - (y2 - y3)) < 0.2
