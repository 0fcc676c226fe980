"""A text colored by surprise: the darker a piece, the less the model expected it."""

import math
from collections.abc import Iterable
from html import escape

from nextword.explanation.render.words import chance, quoted, signed
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


def heat_html(positions: Iterable[Position], said: str = "") -> str:
    """Color a text as HTML; each piece says its numbers on hover, on focus and to a reader.

    Args:
        positions: of the text.
        said: id of the element in which a page's script repeats the numbers of the piece in focus;
            the script lets arrows go from piece to piece.
    """
    spans = []
    for number, position in enumerate(positions):
        text = escape(signed(position.piece)).replace("⏎", "⏎<br>")
        told = f'tabindex="{-1 if number else 0}" title="{escape(_numbers(position))}"'
        spans.append(
            f'<span class="piece" style="{heat_style(position.nats)}" {told}>{text}</span>'
        )
    place = f' data-said="{said}"' if said else ""
    return f'<p class="heat"{place}>{"".join(spans)}</p>'


def _numbers(position: Position) -> str:
    likeliest = position.candidates[0]
    return (
        f"{quoted(position.piece)}: P {chance(position.probability)}, mistake "
        f"{position.nats:.2f} nats = {position.bits:.2f} bits, rank {position.rank:,}; likeliest "
        f"was {quoted(likeliest.piece)} with {chance(likeliest.probability)}"
    )
