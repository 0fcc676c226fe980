"""Token heat maps: a text colored by surprise, stronger where the loss is higher."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from nextword.base.terminal import signed
from nextword.explanation.trace import Position
from nextword.rendering.formatting import chance, escape, quoted

HOTTEST_NATS = 7.0
"""A mistake from here on (a chance below 1 in 1,100) has the strongest color."""


class Scheme(NamedTuple):
    """Colors of one color scheme, as red, green and blue from 0 to 255."""

    cold: tuple[int, int, int]
    """Behind a piece that was certain: a page's paper."""
    hot: tuple[int, int, int]
    """Behind one that surprised most."""
    ink: tuple[int, int, int]
    """Of the letters. On every color between cold and hot it keeps WCAG's contrast of 4.5."""


LIGHT = Scheme(cold=(251, 250, 247), hot=(234, 138, 65), ink=(34, 37, 43))
DARK = Scheme(cold=(22, 24, 29), hot=(162, 73, 11), ink=(240, 238, 232))
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


def heat_colors(nats: float, scheme: Scheme) -> tuple[str, str]:
    """Return the colors of a piece in one scheme: behind the letters, and of them."""
    share = heat(nats)
    behind = [
        int(cold + share * (hot - cold) + 0.5)
        for cold, hot in zip(scheme.cold, scheme.hot, strict=True)
    ]
    return _hex(behind), _hex(scheme.ink)


def _hex(color: Iterable[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in color)


def heat_style(nats: float) -> str:
    """Return the CSS of one piece.

    Letters and what is behind them are both said, for a notebook's theme is not known. A browser
    from before 2024 knows no `light-dark` and keeps to the light colors.
    """
    (behind, ink), (dark, dark_ink) = heat_colors(nats, LIGHT), heat_colors(nats, DARK)
    return (
        f"background:{behind};background:light-dark({behind},{dark});"
        f"color:{ink};color:light-dark({ink},{dark_ink})"
    )


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
