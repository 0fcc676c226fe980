"""Charts: points where they belong, averages that stay, names that do not collide."""

import math
import re

from nextword.explanation.report import smoothed
from nextword.rendering.curve import Line, chart_svg
from nextword.rendering.report import named_together


def test_neighbors_are_averaged_and_the_average_stays():
    points = [(step, math.exp(-step / 50)) for step in range(1, 2001)]
    kept = smoothed(*zip(*points, strict=True))
    assert len(kept) <= 300
    assert kept[0] == points[0]
    assert smoothed(*zip(*points[:10], strict=True)) == tuple(points[:10])
    steps = [step for step, _ in kept]
    assert steps == sorted(set(steps))


def test_lines_too_close_for_two_names_get_one():
    rules = [("a", 1.0), ("b", 1.01), ("c", 2.0)]
    assert named_together(rules, 0.1) == [("b 1.01, a 1.00", 1.01), ("c 2.00", 2.0), ("", 1.0)]


def test_a_chart_puts_values_where_they_belong():
    drawn = chart_svg(
        [Line("x", ((0.0, 0.0), (10.0, 5.0)))], title="t<", across="a", up="b", high=5.0
    )
    first, last = re.search(r'points="(\S+) (\S+)"', drawn).groups()
    assert first == "56.0,256.0"
    assert last == "704.0,14.0"
    assert "t&lt;" in drawn
