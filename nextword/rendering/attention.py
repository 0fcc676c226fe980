"""Attention maps, as text for a terminal and as one page that needs no network."""

import html
import json
from importlib import resources
from typing import Any

import numpy as np

from nextword.base.terminal import signed
from nextword.explanation.attention import AttentionMaps
from nextword.rendering.formatting import escape, quoted, table

SHADES = " ·░▒▓█"
MOST_COLUMNS = 60
"""Of a map in a terminal, two characters each."""


def describe_heads(maps: AttentionMaps) -> str:
    """Say of each head where it looks."""
    rows = []
    for head in maps.heads():
        start, end, share = head.strongest
        strongest = (
            f"{quoted(maps.pieces[start])} → {quoted(maps.pieces[end])} {share:.0%}"
            if share
            else "none beside these"
        )
        rows.append(
            [
                f"{head.layer}.{head.head}",
                f"{head.before:.0%}",
                f"{head.itself:.0%}",
                f"{head.first:.0%}",
                f"{head.bits:.2f}",
                strongest,
            ]
        )
    names = ["head", "before", "itself", "begin", "bits", "looks most from → at"]
    layers, heads = maps.weights.shape[:2]
    return "\n".join(
        [
            f"{maps.model}: {layers} layers of {heads} heads, at {len(maps.pieces) - 1} pieces. Of "
            "what each head looks at, how much is",
            "the piece before, the piece itself, the beginning of the text; and over how many it "
            "spreads (entropy).",
            "",
            *table(names, rows, frozenset({5})),
        ]
    )


def describe_map(maps: AttentionMaps, layer: int, head: int) -> str:
    """Draw one head's map: a row for each piece, a column for each that it looks at."""
    rows = maps.weights[layer - 1, head - 1]
    shown = min(len(maps.pieces), MOST_COLUMNS)
    numbers = "".join(f"{place:>2}" if place % 2 == 0 else "  " for place in range(shown))
    width = max(len(quoted(piece)) for piece in maps.pieces)
    lines = [f"{maps.model}, layer {layer}, head {head}", "", " " * (width + 4) + numbers]
    for place, piece in enumerate(maps.pieces):
        shades = "".join(SHADES[_shade(weight)] * 2 for weight in rows[place, :shown])
        lines.append(f"{place:>3} {quoted(piece):<{width}}{shades}".rstrip())
    steps = "  ".join(
        f"{sign} from {_least(number):.0%}" for number, sign in enumerate(SHADES) if number
    )
    return "\n".join([*lines, "", f"columns are the pieces by number;  {steps}"])


def _shade(weight: float) -> int:
    """Return which of the shades; they part by the square, for most weights are small."""
    return min(len(SHADES) - 1, int(float(weight) ** 0.5 * len(SHADES)))


def _least(shade: int) -> float:
    return (shade / len(SHADES)) ** 2


def attention_page(maps: AttentionMaps) -> str:
    """Return a page with every head's map, one of them large, and its lines between two columns."""
    title = f"{escape(maps.model)}: where its heads look"
    style, own, script = map(_resource, ("page.css", "attention.css", "attention.js"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">"
        f'<link rel="icon" href="data:,"><title>{title}</title><style>{style}{own}</style>'
        f'</head><body><a class="skip" href="#main">To the content</a><header class="top">'
        f"<h1>{title}</h1><p>{HOW_TO_READ}</p></header>"
        f'<main id="main"><h2>All heads</h2>{attention_parts(2)}</main>'
        f'<script type="application/json" id="data">{attention_data(maps)}</script>'
        f"<script>{script}{_SHOW}</script></body></html>\n"
    )


HOW_TO_READ = (
    "At each piece of the text (a row) a head spreads one whole of attention over the pieces that "
    "it may look at (columns). Choose a head; point at a piece, or reach it by Tab, to see where "
    "it looks."
)
_SHOW = (
    'showAttention(document.querySelector(".attention"), '
    'JSON.parse(document.getElementById("data").textContent));'
)


def attention_parts(level: int) -> str:
    """Return the elements that `attention.js` fills, under headings of a level."""
    return (
        '<div class="attention"><div class="heads" role="group" '
        f'aria-label="heads, a row for each layer"></div><h{level} class="chosen">One head'
        f'</h{level}><p class="said" aria-live="polite"></p><div class="two"><div class="scroll '
        'lines" tabindex="0" role="region" aria-label="lines from each piece to what it looks at">'
        '</div><div class="scroll map" tabindex="0" role="region" aria-label="the map as a table">'
        "</div></div></div>"
    )


def attention_section(maps: AttentionMaps | None) -> str:
    """Return the maps as a part of a larger page; nothing where there are none."""
    if maps is None:
        return ""
    data = f'<script type="application/json" id="attention-data">{attention_data(maps)}</script>'
    reads = f"Here while it reads {escape(quoted(maps.text))}."
    return f"<p>{HOW_TO_READ} {reads}</p>{attention_parts(3)}{data}"


def attention_data(maps: AttentionMaps) -> str:
    """Return what `attention.js` shows, as JSON that cannot end the element it stands in."""
    return json.dumps(attention_values(maps)).replace("<", "\\u003c")


def attention_values(maps: AttentionMaps) -> dict[str, Any]:
    """Return what `attention.js` shows: pieces as they can be seen, and weights to four digits."""
    weights = np.round(maps.weights.astype(np.float64), 4).tolist()
    return {"pieces": list(map(_seen, maps.pieces)), "weights": weights}


def _seen(piece: str) -> str:
    """Write a piece such that it can be seen, for as a heading it stands alone."""
    return signed(piece) if piece.strip() else signed(piece).replace(" ", "␣") or "␣"


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def attention_html(maps: AttentionMaps) -> str:
    """Return the page in a frame, for a notebook."""
    page = html.escape(attention_page(maps))
    return f'<iframe srcdoc="{page}" style="width:100%;height:640px;border:0"></iframe>'
