"""A text colored by surprise: the darker a piece, the less the model expected it."""

import math
from collections.abc import Iterable
from html import escape

from nextword.explanation.render.words import chance, signed
from nextword.explanation.trace import Position

HOTTEST_NATS = 7.0
"""A mistake from here on (a chance below 1 in 1,100) has the strongest color."""
_ANSI_STEPS = (None, 230, 229, 223, 216, 209, 202)
"""Backgrounds of the 256-color palette, from none to strong orange."""


def heat(nats: float) -> float:
    """Map a mistake to 0 … 1; by its root, for else half a nat would not be seen."""
    return math.sqrt(min(max(nats / HOTTEST_NATS, 0.0), 1.0))


def heat_ansi(pieces: Iterable[tuple[str, float]]) -> str:
    """Color a text for a terminal.

    Args:
        pieces: text and mistake in nats of each.
    """
    parts = []
    for text, nats in pieces:
        color = _ANSI_STEPS[round(heat(nats) * (len(_ANSI_STEPS) - 1))]
        lines = signed(text).replace("⏎", "⏎\n")
        parts.append(lines if color is None else f"\x1b[38;5;16;48;5;{color}m{lines}\x1b[0m")
    return "".join(parts)


def heat_style(nats: float) -> str:
    """Return the CSS of one piece."""
    return f"background:rgba(230,110,20,{0.8 * heat(nats):.3f})"


def heat_html(positions: Iterable[Position]) -> str:
    """Color a text as HTML; each piece says its numbers on hover, on focus and to a reader."""
    spans = []
    for position in positions:
        likeliest = position.candidates[0]
        words = (
            f"{signed(position.piece)}: P {chance(position.probability)}, mistake "
            f"{position.nats:.2f} nats = {position.bits:.2f} bits, rank {position.rank:,}; "
            f"likeliest was {signed(likeliest.piece)} with {chance(likeliest.probability)}"
        )
        text = escape(signed(position.piece)).replace("⏎", "⏎<br>")
        spans.append(
            f'<span class="piece" tabindex="0" style="{heat_style(position.nats)}" '
            f'title="{escape(words)}">{text}</span>'
        )
    return f'<p class="heat">{"".join(spans)}</p>'
