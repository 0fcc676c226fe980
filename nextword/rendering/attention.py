"""Attention maps, as text for a terminal and as one page that needs no network."""

import html
import json
from importlib import resources

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
    data = {
        "pieces": [signed(piece) for piece in maps.pieces],
        "weights": np.round(maps.weights, 4).tolist(),
    }
    held = json.dumps(data).replace("<", "\\u003c")
    title = f"{escape(maps.model)}: where its heads look"
    style, script = (
        resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
        for name in ("page.css", "attention.js")
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">"
        f'<link rel="icon" href="data:,"><title>{title}</title><style>{style}{_STYLE}</style>'
        f'</head><body><a class="skip" href="#main">To the content</a><header class="top">'
        f"<h1>{title}</h1><p>At each piece of the text (a row) a head spreads one whole of "
        "attention over the pieces that it may look at (columns). Choose a head; point at a piece, "
        "or reach it by Tab, to see where it looks.</p></header>"
        '<main id="main"><h2>All heads</h2><div id="heads" role="group" '
        'aria-label="heads, a row for each layer"></div><h2 id="chosen">One head</h2>'
        '<p id="said" aria-live="polite"></p><div class="two"><div class="scroll" tabindex="0" '
        'role="region" aria-label="lines from each piece to what it looks at" id="lines"></div>'
        '<div class="scroll" tabindex="0" role="region" aria-label="the map as a table" id="map">'
        "</div></div></main>"
        f'<script type="application/json" id="data">{held}</script><script>{script}</script>'
        "</body></html>\n"
    )


def attention_html(maps: AttentionMaps) -> str:
    """Return the page in a frame, for a notebook."""
    page = html.escape(attention_page(maps))
    return f'<iframe srcdoc="{page}" style="width:100%;height:640px;border:0"></iframe>'


_STYLE = """
#heads { display: flex; flex-direction: column; gap: .5rem; overflow-x: auto; padding: 3px; }
#heads div { display: flex; gap: .5rem; align-items: center; }
#heads span { font: 13px system-ui, sans-serif; color: var(--soft); width: 4.5rem; flex: none; }
#heads button { padding: 3px; border: 1px solid var(--line); border-radius: 6px; cursor: pointer;
  background: var(--card); line-height: 0; }
#heads button[aria-pressed=true] { border-color: var(--accent);
  box-shadow: 0 0 0 2px var(--accent); }
#heads canvas { width: 72px; height: 72px; image-rendering: pixelated; }
.two { display: grid; grid-template-columns: minmax(22rem, 1fr) 2fr; gap: 1.5rem;
  align-items: start; }
@media (max-width: 50rem) { .two { grid-template-columns: 1fr; } }
#lines svg { font: 13px ui-monospace, Menlo, Consolas, monospace; display: block; }
#lines text { fill: var(--ink); white-space: pre; }
#lines g[tabindex] { cursor: pointer; }
#lines line { stroke: var(--accent); }
#map table { font-size: 12px; border-collapse: separate; border-spacing: 1px; margin: 0; }
#map td, #map th { padding: 0; border: 0; white-space: pre; }
#map thead th { writing-mode: vertical-rl; transform: rotate(180deg); font-weight: 400;
  padding-top: .3rem; vertical-align: bottom; text-align: left; }
#map tbody th { font-weight: 400; padding-right: .4rem; text-align: right; }
#map td { width: 14px; min-width: 14px; height: 16px; }
"""
