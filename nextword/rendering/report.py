"""A run on one page: a single HTML file that asks nothing of the network.

Each section is a pure function of the report; `report_page` puts them together.
"""

import json
import math
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, NamedTuple

from nextword.base.terminal import visible
from nextword.explanation.report import Report
from nextword.loss.bits import bits
from nextword.rendering.attention import attention_section
from nextword.rendering.audit import audit_html
from nextword.rendering.benchmarks import benchmarks_html
from nextword.rendering.curve import Line, chart_svg
from nextword.rendering.formatting import among, chance, counted, escape, figure, quoted, tail
from nextword.rendering.heat import DARK, HOTTEST_NATS, LIGHT, heat_html
from nextword.rendering.ruler import ruler_html, sentence
from nextword.rendering.scroll import scrolling

CLOSE = 0.06
"""Level lines nearer to each other than this share of the drawing are named together."""


class Section(NamedTuple):
    """One part of the page."""

    anchor: str
    title: str
    draw: Callable[[Report], str]
    of_all: bool = True
    """Whether it is of every model, or only of one whose loss is that of a text."""
    of_hidden: str = ""
    """Its title where hidden pieces were asked for, if another."""


def report_page(report: Report) -> str:
    """Return the whole page."""
    name = escape(report.run)
    shown = [part for part in SECTIONS if part.of_all or not report.scores.at_hidden]
    if report.scores.at_hidden:
        shown = [part._replace(title=part.of_hidden or part.title) for part in shown]
    drawn = [(part, html) for part in shown if (html := part.draw(report))]
    links = " ".join(f'<a href="#{part.anchor}">{part.title}</a>' for part, _ in drawn)
    body = "".join(
        f'<section id="{part.anchor}"><h2>{part.title}</h2>{html}</section>' for part, html in drawn
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">"
        f'<link rel="icon" href="data:,"><title>{name}: how it learned</title>'
        f"<style>{_resource('page.css')}{_resource('attention.css')}</style></head><body>"
        f'<a class="skip" href="#main">To the content</a><header class="top"><h1>{name}: how it '
        f"learned</h1>{_lead(report)}<nav>{links}</nav></header>"
        f'<main id="main">{body}</main><footer class="soft"><p>Written by nextword '
        f"{escape(report.facts['versions']['nextword'])}. Every number on this page comes from "
        "this run.</p></footer>"
        f'<script type="application/json" id="replay-data">{_replay_data(report)}</script>'
        f"<script>{_resource('attention.js')}{_resource('page.js')}</script></body></html>\n"
    )


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _replay_data(report: Report) -> str:
    """Return the replay as JSON that cannot end the element it stands in."""
    data = {
        **report.replay.as_dict(),
        "hottest": HOTTEST_NATS,
        "schemes": [LIGHT._asdict(), DARK._asdict()],
    }
    data["pins"] = [
        {
            **pin,
            "text": visible(pin["text"]),
            "pieces": list(map(visible, pin["pieces"])),
            "shown": list(map(quoted, pin["pieces"])),
        }
        for pin in data["pins"]
    ]
    for moment in data["moments"]:
        for one in moment["pins"]:
            one["likeliest"] = list(map(quoted, one["likeliest"]))
            del one["others"]  # the live page has room for them
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


def _lead(report: Report) -> str:
    facts, scores = report.facts, report.scores
    corpus, plan = facts["corpus"], facts["plan"]
    tokens = report.step * plan["rows"] * plan["context"]
    size = f" ({corpus['bytes']:,} bytes)" if corpus.get("bytes") else ""
    values = scores.as_dict()
    per_byte = values["bits_per_byte"]
    loss, doubt = scores.nats_per_token, values["perplexity"]
    hidden = scores.at_hidden
    tiles = [
        (
            f"{loss:.3f}",
            f"nats a {'hidden ' if hidden else ''}piece: the loss on text it never saw",
        ),
        (f"{doubt:.2f}", "equally likely pieces would leave it as unsure") if doubt else None,
        (f"{per_byte:.3f}", "bits a byte; the plain file takes 8") if per_byte else None,
        (f"{values['top1_accuracy']:.0%}", "of the pieces were its first guess"),
    ]
    what = "pieces of a text were hidden" if hidden else "piece of text comes next"
    asked = "" if hidden else " and was asked for each"
    why = scores.withheld[:1].upper() + scores.withheld[1:]
    figures = "".join(f"<li><b>{tile[0]}</b>{tile[1]}</li>" for tile in tiles if tile)
    return (
        f'<p class="lead">A network of {facts["parameters"]:,} weights read '
        f"{escape(corpus['corpus'])}, {counted(corpus['documents'], 'text')}{size}, and learned "
        f"one thing: to say which {what}. Nobody labeled anything: the text "
        f"itself holds every answer. In {report.step:,} steps it read {tokens:,} pieces{asked}. "
        f"Then it was judged on {scores.tokens:,} {'hidden ' if hidden else ''}pieces of text it "
        f'had never seen.</p><ul class="figures">{figures}</ul>'
        + (
            f'<p class="verdict">{escape(sentence(report.ruler))}</p>'
            if report.ruler
            else f'<p class="verdict">Not given: perplexity, bits a byte. {escape(why)}.</p>'
        )
    )


def _learning(report: Report) -> str:
    """Draw loss over steps with the ruler's lines, all in one unit."""
    ruler = report.ruler
    if ruler is None:
        scale, unit = 1.0, "nats a hidden piece"
        rules = [("blind guess", math.log(report.vocabulary["entries"]))]
    else:
        scale = bits(1.0) * (ruler.tokens / ruler.num_bytes if ruler.num_bytes else 1.0)
        unit = ruler.unit
        rules = [
            (mark.name, ruler.value(mark))
            for mark in ruler.marks
            if mark.kind in ("guess", "count", "pack", "floor")
        ]
    what = "each next piece" if ruler else "the hidden pieces"
    others = "guessing, counting and compressors" if ruler else "a blind guesser would"
    lines = [
        Line("training text", tuple((float(s), loss * scale) for s, loss in report.curve), "main")
    ]
    held = tuple((float(step), loss * scale) for step, loss in report.evaluations)
    if len(held) > 1:
        lines.append(Line("text held out", held, "held"))
    top = 1.05 * max(value for _, value in rules)
    drawn = chart_svg(
        lines,
        title=f"The loss over the steps of training, in {unit}, beside other ways to guess",
        across="steps of training (each doubling has the same room)",
        up=unit,
        rules=named_together(rules, CLOSE * top),
        marks=held,
        high=top,
        log_across=True,
    )
    return (
        f"<p>At every step the network read some text, guessed {what}, and the mistake "
        "(minus the logarithm of the probability it had given to what really came) was averaged: "
        "the loss. Every weight was then moved a little in the direction that lowers it. "
        f"The loss began at {report.curve[0][1]:.2f} nats; a blind guess among "
        f"{report.vocabulary['entries']:,} pieces is "
        f"ln {report.vocabulary['entries']:,} = {math.log(report.vocabulary['entries']):.2f}.</p>"
        + scrolling(
            f"{drawn}<figcaption>Line: loss on the text it learned from. Points: on text held "
            f"out. Dotted: what {others} need for the same held-out text. "
            f"1 nat a piece is {scale:.4f} {unit} here.</figcaption>",
            "The loss over the steps of training",
            "figure",
        )
    )


def named_together(rules: list[tuple[str, float]], gap: float) -> list[tuple[str, float]]:
    """Give level lines that lie too close for two names one name, at the highest of them."""
    groups: list[list[tuple[str, float]]] = []
    for name, value in sorted(rules, key=lambda rule: rule[1]):
        if groups and value - groups[-1][-1][1] < gap:
            groups[-1].append((name, value))
        else:
            groups.append([(name, value)])
    return [
        (", ".join(f"{name} {value:.2f}" for name, value in reversed(group)), group[-1][1])
        for group in groups
    ] + [("", value) for group in groups for _, value in group[:-1]]


def _ruler(report: Report) -> str:
    assert report.ruler is not None  # the section is left out where there is none
    return (
        "<p>A loss alone says little. Here the same held-out text is written down by others: by "
        "blind guessing, by counting, by the compressors everyone has. Fewer bits is better, for "
        "who predicts well needs few.</p>"
        + ruler_html(report.ruler)
        + benchmarks_html(report.benchmarks)
    )


def _replay(report: Report) -> str:
    pins = report.replay.pins
    last = len(report.replay.steps) - 1
    options = "".join(
        f'<option value="{number}">{escape(tail(pin.text, 60))} ({pin.source})</option>'
        for number, pin in enumerate(pins)
    )
    heads = ("piece", "P", "−ln P", "likeliest then", "its P")
    numbers = ("P", "−ln P", "its P")
    head = "".join(
        f'<th class="number">{word}</th>' if word in numbers else f"<th>{word}</th>"
        for word in heads
    )
    rows = f'<table><thead><tr>{head}</tr></thead><tbody id="replay-rows"></tbody></table>'
    return (
        "<p>The same sentences were judged again and again while it learned. Move the slider "
        "from step 0 on: pieces lose their color as the network comes to expect them. P is the "
        "probability it gave to the piece the text says; −ln P is the mistake.</p>"
        '<div><div class="controls"><label>Sentence <select>'
        f'{options}</select></label><label>Step <input type="range" min="0" max="{last}" '
        f'value="{last}" step="1"></label><button type="button">Play</button></div>'
        '<p aria-live="polite">Step <b id="replay-step"></b>: loss <b id="replay-loss"></b> nats '
        'a piece</p><p class="heat" id="replay-text"></p>'
        f"{scrolling(rows, 'The sentence piece by piece at this step')}</div>"
        f"<noscript><p>The slider needs JavaScript.</p></noscript>"
    )


def _heat(report: Report) -> str:
    texts = "".join(
        f"<h3>{among_words(text.perplexity)}, {text.nats_per_token:.2f} nats a piece</h3>"
        f"{heat_html(text.positions, f'said-{number}')}"
        f'<output class="said" id="said-{number}"></output>'
        for number, text in enumerate(report.texts)
    )
    return (
        "<p>Parts of texts it never saw, each judged as if a text began there; the stronger a "
        "piece's color, the more it surprised. Point at one, or go from piece to piece with the "
        "arrow keys, to see its numbers.</p>" + texts
    )


def among_words(perplexity: float) -> str:
    """Begin a heading with the perplexity in words."""
    words = among(perplexity)
    return words[0].upper() + words[1:]


def _samples(report: Report) -> str:
    written = "".join(
        f'<div class="sample"><b>step {sample.step:,}</b>{escape(sample.text)}</div>'
        for sample in report.samples
    )
    if report.scores.at_hidden:
        return (
            "<p>Every sixth piece of a held-out text was hidden. In brackets: what the network "
            "named at that step, and where it was wrong, what the text says.</p>" + written
        )
    return (
        "<p>Writing is guessing, over and over: a piece is drawn by the probabilities, read as if "
        "it had always stood there, and the next one is guessed.</p>" + written
    )


def _context(report: Report) -> str:
    # A logarithm has no place for 0 pieces read; the words below say how that went.
    ranges = sorted(report.scores.by_context.items())
    by_context = [entry for entry in ranges if entry[0]]
    nothing = dict(ranges).get(0)
    first = f" With nothing read it was {nothing[0] / nothing[1]:.2f}." if nothing else ""
    points = tuple((float(upto), nats / count) for upto, (nats, count) in by_context)
    drawn = chart_svg(
        [Line("loss", points)],
        title="Loss by how many pieces the network had read before",
        across="pieces read before (up to; each doubling has the same room)",
        up="loss, nats a piece",
        marks=points,
        log_across=True,
    )
    return (
        "<p>Each text gives a lesson for every context length: one piece read, two, three … "
        f"Here is the loss by how much had been read.{first}</p>"
        + scrolling(drawn, "The loss by how much had been read", "figure")
    )


def _hardest(report: Report) -> str:
    places = "".join(
        f'<tr><td class="text">{escape(tail(position.context, 70))}</td>'
        f'<td class="piece-cell">{escape(quoted(position.piece))}</td>'
        f'<td class="number">{chance(position.probability)}</td>'
        f'<td class="number">{position.nats:.2f}</td>'
        f'<td class="piece-cell">{escape(quoted(position.candidates[0].piece))}</td></tr>'
        for position in report.hardest
    )
    pieces = "".join(
        f'<tr><td class="piece-cell">{escape(quoted(piece.piece))}</td>'
        f'<td class="number">{piece.met}</td><td class="number">{piece.nats:.2f}</td></tr>'
        for piece in report.hard_pieces
    )
    return (
        f"<p>The greatest surprises among {report.judged_tokens:,} pieces of held-out text.</p>"
        + scrolling(
            "<table><thead><tr><th>after</th><th>came</th>"
            '<th class="number">P</th><th class="number">−ln P</th>'
            f"<th>it expected</th></tr></thead><tbody>{places}</tbody></table>",
            "The greatest surprises",
        )
        + (
            "<p>Pieces met at least five times, by their average mistake:</p>"
            + scrolling(
                '<table><thead><tr><th>piece</th><th class="number">met</th>'
                '<th class="number">average −ln P</th></tr></thead>'
                f"<tbody>{pieces}</tbody></table>",
                "The hardest pieces",
            )
            if pieces
            else ""
        )
    )


def _audit(report: Report) -> str:
    taken = report.audit
    return (
        f"<p>After {escape(quoted(tail(taken.context, 60)))} the text says "
        f"{escape(quoted(taken.target.piece))}. How the network came to the probability it gave, "
        f"and what a step of training would do about it:</p>{audit_html(taken)}"
    )


def _vocabulary(report: Report) -> str:
    known = report.vocabulary
    ratio = known["bytes_per_token"]
    longest = "".join(f"<span>{escape(quoted(piece))}</span> " for piece in known["longest"])
    scripts = ", ".join(f"{name} {value:.2f}" for name, value in known["scripts"].items())
    return (
        f"<p>All it can read or say are {known['entries']:,} pieces ({escape(known['kind'])}); "
        f"{known['words']:,} of them are a space and a word, {known['parts']:,} letters or parts "
        "of words."
        + (f" A piece stands for {ratio:.2f} bytes of this text on average." if ratio else "")
        + (f" By script: {escape(scripts)}." if len(known["scripts"]) > 1 else "")
        + f'</p><p>The longest pieces:</p><div class="pieces">{longest}</div>'
    )


def _settings(report: Report) -> str:
    facts = report.facts
    tables: list[tuple[str, Mapping[str, Any]]] = [
        ("Network", facts["shape"]),
        ("Plan", facts["plan"]),
        ("Versions", facts["versions"]),
        ("Hardware", facts["hardware"]),
    ]
    drawn = "".join(
        f"<details><summary>{name}</summary>{scrolling(_table_of(values), name)}</details>"
        for name, values in tables
    )
    return (
        f"<p>Training took {report.seconds:,.0f} s; one token costs "
        f"{figure(facts['flops_per_token'] / 1e6)} million operations. It read "
        f"{escape(', '.join(facts['paths']) or 'the built-in corpus')}. All that was asked, as a "
        "recipe that with the same text makes this run again:</p>"
        f"<details><summary>Recipe</summary>{scrolling(escape(report.settings), 'Recipe', 'pre')}"
        f"</details>{drawn}"
    )


def _table_of(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{escape(str(key))}</th><td>{escape(str(value))}</td></tr>"
        for key, value in values.items()
    )
    return f"<table><tbody>{rows}</tbody></table>"


SECTIONS = (
    Section("learning", "How the mistake fell", _learning),
    Section("ruler", "Is that good?", _ruler, of_all=False),
    Section("replay", "The same sentence, step by step", _replay),
    Section("surprise", "What surprised it", _heat),
    Section("audit", "One prediction, taken apart", _audit),
    Section("attention", "Where its heads look", lambda it: attention_section(it.attention)),
    Section(
        *("writing", "What it wrote on the way", _samples),
        of_hidden="What it filled in on the way",
    ),
    Section("context", "How much context helps", _context, of_all=False),
    Section("hardest", "What was hardest", _hardest),
    Section("vocabulary", "All the pieces it knows", _vocabulary),
    Section("settings", "How to make it again", _settings),
)
