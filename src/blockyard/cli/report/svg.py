"""Plots as inline SVG: few shapes, themed by the page's own colours, and no library that a reader would have to load.

Sizes are in units of the view box; colours are CSS variables of the page, so a plot follows light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 720, 200
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 10, 34

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axis:
    """What a range of values is called, and how its ticks are written."""

    begin: float
    end: float
    label: str


def nice_ticks(begin: float, end: float, most: int = 6) -> list[float]:
    """Return round numbers between two values.

    >>> nice_ticks(0, 97)
    [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    if not end > begin:
        return [begin]
    step = 10.0 ** math.floor(math.log10((end - begin) / most))
    step *= next(factor for factor in (1, 2, 5, 10) if (end - begin) / (step * factor) <= most)
    first = math.ceil(begin / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(end / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Return a number as short as it can be read.

    >>> number(1234567), number(4321), number(0.05), number(40.0), number(0.0)
    ('1.23 M', '4,321', '0.05', '40', '0')
    """
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == ' k' else limit):.3g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def lines(series: Sequence[tuple[str, Floats]], x: Axis, y_label: str) -> str:
    """Draw one line a series over evenly spaced `x`, each filled below; the first names the colour 1, and so on."""
    top = max((float(values.max()) for _, values in series if len(values)), default=0.0) or 1.0
    y = Axis(0.0, top, y_label)
    shapes = []
    for n, (name, values) in enumerate(series):
        xs = np.linspace(x.begin, x.end, len(values) + 1)[:-1] + (x.end - x.begin) / max(len(values), 1) / 2
        points = " ".join(f"{_x(a, x):.1f},{_y(b, y):.1f}" for a, b in zip(xs, values, strict=True))
        shapes.append(f'<polyline class="line c{n % 8}" points="{points}"><title>{escape(name)}</title></polyline>')
    return _frame("".join(shapes), x, y)


def bars(counts: Floats, edges: Floats, x_label: str, color: int, *, log: bool) -> str:
    """Draw a histogram; with `log` the edges are powers and are drawn evenly."""
    scale = np.log10(edges) if log else edges
    x, y = Axis(float(scale[0]), float(scale[-1]), x_label), Axis(0.0, float(counts.max()) or 1.0, "blocks")
    shapes = []
    for count, a, b, low, high in zip(counts, scale[:-1], scale[1:], edges[:-1], edges[1:], strict=True):
        if count:
            left, right, top = _x(a, x), _x(b, x), _y(count, y)
            text = f"{number(low)} to {number(high)} s: {int(count):,} blocks"
            place = f'x="{left:.1f}" y="{top:.1f}" height="{HEIGHT - BOTTOM - top:.1f}"'
            wide = f'width="{max(right - left - 0.5, 0.5):.1f}"'
            shapes.append(f'<rect class="bar c{color % 8}" {place} {wide}><title>{text}</title></rect>')
    return _frame("".join(shapes), x, y, powers=log)


def strips(rows: Sequence[tuple[str, Floats]], x: Axis) -> str:
    """Draw a row of cells for each name, darker where its value is nearer to 1."""
    height = 14
    shapes = []
    for n, (name, values) in enumerate(rows):
        top = n * (height + 3)
        shapes.append(f'<text class="name" x="{WIDTH * 0.26:.0f}" y="{top + 11}">{escape(_shortened(name))}</text>')
        left, wide = WIDTH * 0.27, WIDTH * 0.73 / max(len(values), 1)
        for at, value in enumerate(values):
            if value > 0:
                shapes.append(
                    f'<rect class="cell" fill-opacity="{min(value, 1.0):.2f}" x="{left + at * wide:.1f}" y="{top}"'
                    f' width="{wide + 0.2:.1f}" height="{height}"/>'
                )
    bottom = len(rows) * (height + 3) + 14
    ends = f'<text class="tick" x="{WIDTH * 0.27:.0f}" y="{bottom}">{escape(x.label)}: {number(x.begin)}</text>'
    ends += f'<text class="tick end" x="{WIDTH}" y="{bottom}">{number(x.end)}</text>'
    return f'<svg viewBox="0 0 {WIDTH} {bottom + 6}" role="img">{"".join(shapes)}{ends}</svg>'


def heat(values: Floats, label: str) -> str:
    """Draw an array of shape (rows, columns) as cells, from the least value to the largest; NaN is left out."""
    rows, columns = values.shape
    size = min(WIDTH / 2 / columns, 260 / rows)
    least, most = float(np.nanmin(values)), float(np.nanmax(values))
    shapes = []
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        strength = 0.08 + 0.92 * ((value - least) / (most - least) if most > least else 0.5)
        shapes.append(
            f'<rect class="cell" fill-opacity="{strength:.2f}" x="{column * size:.1f}" y="{row * size:.1f}"'
            f' width="{size:.2f}" height="{size:.2f}"><title>({row}, {column}): {number(float(value))} s</title></rect>'
        )
    width, height = columns * size, rows * size
    text = f'<text class="tick" x="0" y="{height + 16:.0f}">{escape(label)}: {number(least)} to {number(most)} s</text>'
    box = f"0 0 {max(width, 260):.0f} {height + 22:.0f}"
    return f'<svg class="heat" viewBox="{box}" role="img">{"".join(shapes)}{text}</svg>'


def _frame(shapes: str, x: Axis, y: Axis, *, powers: bool = False) -> str:
    marks = []
    for tick in _powers(x) if powers else nice_ticks(x.begin, x.end):
        text = number(10.0**tick) if powers else number(tick)
        marks.append(f'<text class="tick middle" x="{_x(tick, x):.1f}" y="{HEIGHT - BOTTOM + 14}">{text}</text>')
    for tick in nice_ticks(y.begin, y.end, 4):
        at = _y(tick, y)
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        marks.append(f'<text class="tick end" x="{LEFT - 6}" y="{at + 4:.1f}">{number(tick)}</text>')
    marks.append(f'<text class="label middle" x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 4}">{escape(x.label)}</text>')
    marks.append(f'<text class="label" x="2" y="{TOP + 4}">{escape(y.label)}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(marks)}{shapes}</svg>'


def _powers(axis: Axis) -> list[float]:
    """Return the logarithms of 1, 2 and 5 times the powers of ten on an axis; of the powers alone where it is long."""
    factors = (1.0, 2.0, 5.0) if axis.end - axis.begin < 3 else (1.0,)
    found = [n + math.log10(factor) for n in range(math.floor(axis.begin), math.ceil(axis.end)) for factor in factors]
    return [tick for tick in found if axis.begin <= tick <= axis.end]


def _x(value: float, axis: Axis) -> float:
    span = axis.end - axis.begin or 1.0
    return LEFT + (value - axis.begin) / span * (WIDTH - LEFT - RIGHT)


def _y(value: float, axis: Axis) -> float:
    span = axis.end - axis.begin or 1.0
    return HEIGHT - BOTTOM - (value - axis.begin) / span * (HEIGHT - BOTTOM - TOP - 8)


def _shortened(name: str, most: int = 30) -> str:
    return name if len(name) <= most else "..." + name[-most + 3 :]
