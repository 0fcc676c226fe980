"""Line charts: −log p with a point on it, and losses over steps; for the terminal and as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nextword.rendering.formatting import escape

WIDTH, HEIGHT = 720.0, 300.0
HIGH = 0.75
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 16.0, 14.0, 44.0


def log_curve_text(probability: float, *, rows: int = 9, columns: int = 51) -> list[str]:
    """Draw −ln p over p from 0 to 1 with one point marked.

    Args:
        probability: where the point stands.
        rows: of the drawing; the highest is 5 nats or the point, if that is higher.
        columns: of the drawing.
    """
    most = max(5.0, -math.log(max(probability, 1e-300)))
    grid = [[" "] * columns for _ in range(rows)]
    for column in range(columns):
        p = max(column / (columns - 1), 0.25 / (columns - 1))
        row = round(-math.log(p) / most * (rows - 1))
        if row < rows:
            grid[rows - 1 - row][column] = "·"
    column = round(probability * (columns - 1))
    row = min(round(-math.log(max(probability, 1e-300)) / most * (rows - 1)), rows - 1)
    grid[rows - 1 - row][column] = "●"
    lines = ["−ln p, nats"]
    for number, cells in enumerate(grid):
        value = most * (rows - 1 - number) / (rows - 1)
        lines.append(f"{value:5.1f} │{''.join(cells)}".rstrip())
    lines.append("      └" + "─" * columns)
    lines.append("       0" + "probability of what came".center(columns - 2) + "1")
    return lines


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    points: tuple[tuple[float, float], ...]
    kind: str = "main"
    """Its CSS class: main, soft or rule."""


class _Frame:
    """Maps values to places in a drawing."""

    def __init__(
        self, across: tuple[float, float], up: tuple[float, float], log_across: bool
    ) -> None:
        self.log_across = log_across
        self.left, self.right = (self._across(value) for value in across)
        self.low, self.high = up
        if self.high <= self.low:
            self.high = self.low + 1.0
        if self.right <= self.left:
            self.right = self.left + 1.0

    def _across(self, value: float) -> float:
        return math.log2(value) if self.log_across else value

    def x(self, value: float) -> float:
        share = (self._across(value) - self.left) / (self.right - self.left)
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)


def chart_svg(
    lines: Sequence[Line],
    *,
    title: str,
    across: str,
    up: str,
    rules: Sequence[tuple[str, float]] = (),
    marks: Sequence[tuple[float, float]] = (),
    high: float | None = None,
    low: float = 0.0,
    log_across: bool = False,
) -> str:
    """Draw lines over a common axis.

    Args:
        lines: at least one with a point.
        title: read to those who do not see it.
        across: name of the horizontal axis.
        up: name of the vertical axis.
        rules: level lines, each with its name; one without a name is drawn alone.
        marks: points drawn as discs.
        high: the top of the vertical axis; default: the greatest value.
        low: its foot.
        log_across: give each doubling the same room.
    """
    points = [point for line in lines for point in line.points] + list(marks)
    top = high or max([value for _, value in points] + [value for _, value in rules])
    frame = _Frame((min(x for x, _ in points), max(x for x, _ in points)), (low, top), log_across)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>',
        *_axes(frame, across, up),
    ]
    for name, value in rules:
        if low <= value <= top:
            parts.append(_rule(frame, name, value))
    parts += [_polyline(frame, line) for line in lines]
    parts += [
        f'<circle class="mark" cx="{frame.x(x):.1f}" cy="{frame.y(min(y, top)):.1f}" r="4.5"/>'
        for x, y in marks
    ]
    return "".join([*parts, "</svg>"])


STYLE = (
    "svg { background: #fbfaf7; color-scheme: light dark }"
    "text { font: 12px system-ui, sans-serif; fill: #5f636b } .rule-name { font-size: 11px }"
    ".axis, .rule, .grid { fill: none; stroke: #5f636b } .grid { stroke: #dddbd4 }"
    ".rule { stroke-dasharray: 2 4 } .line { fill: none; stroke: #b5450b; stroke-width: 2.2 }"
    ".mark { fill: #22252b }"
    "@media (prefers-color-scheme: dark) { svg { background: #16181d } text { fill: #a9adb5 }"
    ".axis, .rule { stroke: #a9adb5 } .grid { stroke: #33363d } .line { stroke: #f08a45 }"
    ".mark { fill: #f0eee8 } }"
)
"""Of a chart that stands in no page."""


def standalone(svg: str) -> str:
    """Make a chart a file of its own, with its colors inside."""
    size = f'width="{WIDTH:g}" height="{HEIGHT:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
    return svg.replace("<svg ", head, 1).replace("<title>", f"<style>{STYLE}</style><title>", 1)


def _axes(frame: _Frame, across: str, up: str) -> list[str]:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = [f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>']
    for value in nice_steps(frame.low, frame.high):
        y = frame.y(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">')
        parts.append(f"{value:g}</text>")
    first, last = frame.left, frame.right
    ticks = (
        [2.0**power for power in range(math.ceil(first), math.floor(last) + 1)]
        if frame.log_across
        else nice_steps(first, last)
    )
    for value in ticks:
        parts.append(
            f'<text class="tick" x="{frame.x(value):.1f}" y="{bottom + 16}" '
            f'text-anchor="middle">{value:,.6g}</text>'
        )
    middle = (_LEFT + right) / 2
    parts.append(f'<text class="name" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">')
    parts.append(f"{escape(across)}</text>")
    parts.append(
        f'<text class="name" transform="translate(13 {(_TOP + bottom) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(up)}</text>'
    )
    return parts


def _rule(frame: _Frame, name: str, value: float) -> str:
    """Draw a level line; its name stands where a falling curve does not: high right, low left."""
    y, right = frame.y(value), WIDTH - _RIGHT
    high = value > frame.low + HIGH * (frame.high - frame.low)
    place, anchor = (right - 4, "end") if high else (_LEFT + 6, "start")
    words = (
        f'<text class="rule-name" x="{place}" y="{y - 4:.1f}" text-anchor="{anchor}">'
        f"{escape(name)}</text>"
        if name
        else ""
    )
    return f'<path class="rule" d="M{_LEFT} {y:.1f}H{right}"/>{words}'


def _polyline(frame: _Frame, line: Line) -> str:
    places = " ".join(
        f"{frame.x(x):.1f},{frame.y(min(max(y, frame.low), frame.high)):.1f}"
        for x, y in line.points
    )
    name = f"<title>{escape(line.name)}</title>"
    return f'<polyline class="line {line.kind}" points="{places}">{name}</polyline>'


def nice_steps(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers between two values, at most about so many."""
    if high <= low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def log_curve_svg(probability: float) -> str:
    """Draw −ln p over p with one point marked."""
    most = max(5.0, 1.05 * -math.log(max(probability, 1e-300)))
    places = [math.exp(-most * (1 - share / 60)) for share in range(61)]
    points = tuple((p, -math.log(p)) for p in places)
    return chart_svg(
        [Line("−ln p", points)],
        title=f"The curve of minus log p; at p = {probability:.4g} it stands at "
        f"{-math.log(max(probability, 1e-300)):.2f} nats",
        across="probability p of what came",
        up="mistake −ln p, nats",
        marks=[(max(probability, points[0][0]), -math.log(max(probability, 1e-300)))],
        high=most,
    )
