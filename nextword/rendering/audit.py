"""One prediction taken apart: as a page of text for a terminal, and as HTML."""

import math
from typing import NamedTuple

from nextword.explanation.audit import Audit, Entry
from nextword.rendering.curve import log_curve_svg, log_curve_text
from nextword.rendering.formatting import chance, escape, figure, quoted, table, tail
from nextword.rendering.scroll import scrolling

HALF_WRONG = 0.0001
"""A probability at which the two losses are compared: very sure, and wrong."""


class Part(NamedTuple):
    """One stop on the way through a prediction."""

    title: str
    lines: list[str]


def describe_audit(audit: Audit) -> str:
    """Say all of it, from pieces to the step of training."""
    context = quoted(tail(audit.context, 60))
    if audit.both_sides:
        context += f" and before {quoted(audit.after[:40])}"
    lines = [
        f"One prediction of {audit.model}, taken apart: after {context} "
        f"the text says {quoted(audit.target.piece)}."
        if audit.context
        else f"One prediction of {audit.model}, taken apart: a text begins with "
        f"{quoted(audit.target.piece)}."
    ]
    for number, part in enumerate(parts(audit), start=1):
        lines += ["", f"{number}. {part.title}", "", *(f"   {line}" for line in part.lines)]
        if part.title == _MISTAKE:
            drawn = log_curve_text(audit.target.probability)
            lines += ["", *(f"   {line}" for line in drawn)]
    return "\n".join(line.rstrip() for line in lines)


_MISTAKE = "The mistake: −log of the right one's probability"


def parts(audit: Audit) -> list[Part]:
    """Return the stops, in their order."""
    return [
        Part("Pieces and ids: all that the model reads", _pieces(audit)),
        Part("Logits, exponentials, probabilities (softmax)", _softmax(audit)),
        Part(_MISTAKE, _mistake(audit)),
        Part("Why not squared error?", _squared(audit)),
        Part("What training would change: p − y", _gradient(audit)),
        Part("One step of gradient descent on this sentence alone", _step(audit)),
    ]


def _pieces(audit: Audit) -> list[str]:
    cells = [
        ("[" + quoted(piece) + "]" if number == audit.place else quoted(piece), str(id_))
        for number, (piece, id_) in enumerate(audit.pieces, start=1)
    ]
    lines = ["The text is cut into pieces of the vocabulary; each has a number, its id:", ""]
    row_pieces, row_ids, width = "", "", 0
    for piece, id_ in cells:
        width = max(len(piece), len(id_)) + 2
        if len(row_pieces) + width > 90:
            lines += [row_pieces, row_ids]
            row_pieces = row_ids = ""
        row_pieces, row_ids = row_pieces + piece.ljust(width), row_ids + id_.ljust(width)
    lines += [row_pieces, row_ids, ""]
    lines.append(
        f"Asked here is piece {audit.place}, {quoted(audit.target.piece)}; the model has read "
        + ("all the others." if audit.both_sides else "only what stands before it.")
    )
    return lines


def _softmax(audit: Audit) -> list[str]:
    shown = _shown(audit)
    power = "e^logit" if not audit.shift else f"e^(logit − {audit.shift:.4f})"
    rows = [
        [
            quoted(entry.piece) + (" ←" if entry.id == audit.target.id else ""),
            f"{entry.logit:.4f}",
            figure(entry.exponential),
            chance(entry.probability),
        ]
        for entry in shown
    ]
    others = audit.others_exponential
    rest = audit.entries - len(shown)
    rows += [
        [f"the other {rest:,}", "", figure(others), chance(others / audit.total)],
        ["sum", "", figure(audit.total), f"{audit.probability_sum:.10g}"],
    ]
    first, second = shown[0], shown[1] if len(shown) > 1 else shown[0]
    lines = [
        f"The model gave each of its {audit.entries:,} pieces a score, the logit. e (2.718…) to "
        "the power of it is",
        "positive whatever the score; divided by the sum it is a probability, and all of them "
        "make 1.",
    ]
    if audit.shift:
        lines.append(
            "(The greatest logit was taken from all first, lest e^logit be too large to write; it "
            "changes no probability.)"
        )
    lines += ["", *table(["piece", "logit", power, "P"], rows, frozenset({0})), ""]
    ratio = f"P({quoted(first.piece)}) ÷ P({quoted(second.piece)})"
    power = f"e^({first.logit:.4f} − {second.logit:.4f})"
    if second.probability:
        power = f"{figure(first.probability / second.probability)} = {power}"
    return [*lines, f"Only differences of logits count: {ratio} = {power}.", _least(audit)]


def _least(audit: Audit) -> str:
    piece = quoted(audit.least.piece)
    if audit.least.probability == 0.0:
        return (
            f"None is zero: the least likely, {piece}, has about 10^{audit.least_log10:.0f}, too "
            "small for a computer's number, and so it is written as 0."
        )
    return f"None is zero: the least likely, {piece}, still has {audit.least.probability:.1e}."


def _shown(audit: Audit) -> list[Entry]:
    known = {entry.id for entry in audit.likeliest}
    return [*audit.likeliest, *([] if audit.target.id in known else [audit.target])]


def _mistake(audit: Audit) -> list[str]:
    p = audit.target.probability
    rows = [
        ["p = 1 (certain and right)", "0.0000", "0.0000", "0.0000"],
        [
            f"p = {chance(p)} (here)",
            f"{audit.nats:.4f}",
            f"{audit.bits:.4f}",
            f"{audit.digits:.4f}",
        ],
        _logs(f"p = 1 ÷ {audit.entries:,} (a blind guess)", 1 / audit.entries),
    ]
    return [
        f"−ln {chance(p)} = {audit.nats:.4f} nats: what this prediction adds to the loss "
        "(cross-entropy).",
        "The log may be taken in any base, which only changes the unit; the log of 1 is 0 in each:",
        "",
        *table(["", "−ln p, nats", "−log2 p, bits", "−log10 p, digits"], rows, frozenset({0})),
    ]


def _logs(name: str, p: float) -> list[str]:
    return [name, f"{-math.log(p):.4f}", f"{-math.log2(p):.4f}", f"{-math.log10(p):.4f}"]


def _squared(audit: Audit) -> list[str]:
    p, tiny = audit.target.probability, HALF_WRONG
    rows = [
        [
            f"here, p = {chance(p)}",
            f"{audit.nats:.4f}",
            f"{audit.target.gradient:+.4f}",
            f"{audit.squared_error:.4f}",
            f"{audit.squared_error_gradient:+.4f}",
        ],
        [
            f"sure of one other, p = {tiny}",
            f"{-math.log(tiny):.4f}",
            f"{tiny - 1:+.4f}",
            f"{2 * (1 - tiny) ** 2:.4f}",
            f"{-4 * tiny * (1 - tiny) ** 2:+.4f}",
        ],
    ]
    heads = ["", "cross-entropy", "its pull", "squared error", "its pull"]
    return [
        "Squared error adds up (p − y)² over all pieces, where y is 1 for the right one and 0 for "
        "the others.",
        "It is never above 2, however sure and wrong the model was, and its pull on the right",
        "logit then dies away: with p near 0 nothing is learned. Cross-entropy grows without end,",
        "pulls hardest just there, and adds up over a text as the bits it takes to write it down.",
        "(For a number, such as a price, there is no such list of pieces, and squared error is "
        "the one to use.)",
        "",
        *table(heads, rows, frozenset({0})),
    ]


def _gradient(audit: Audit) -> list[str]:
    rows = [
        [
            quoted(entry.piece),
            chance(entry.probability),
            "1" if entry.id == audit.target.id else "0",
            f"{entry.gradient:+.4f}",
            ("push up by " if entry.gradient < 0 else "push down by ")
            + chance(abs(entry.gradient)),
        ]
        for entry in _shown(audit)
    ]
    return [
        "How the mistake would change with each logit (its gradient) is simply probability minus "
        "answer:",
        "",
        *table(["piece", "p", "y", "p − y", "gradient descent would"], rows, frozenset({0, 4})),
        "",
        "All pushes together make 0: what the right one gains, the others lose.",
    ]


def _step(audit: Audit) -> list[str]:
    step = audit.step
    gap = abs(step.change - step.predicted) / abs(step.predicted) if step.predicted else 0.0
    return [
        f"On a copy of the model each of its {step.weights:,} weights was moved once against its "
        "gradient",
        f"(times the rate {figure(step.rate)}; the squares of all gradients add up to "
        f"{figure(step.squared_gradient)}).",
        "",
        f"loss of the sentence before   {step.before:.6f} nats a piece",
        f"predicted change              {step.predicted:+.6f}   (−rate × squares: the slope alone)",
        f"change that came              {step.change:+.6f}   ({gap:.1%} away: the slope bends on "
        "the way)",
        f"loss of the sentence after    {step.after:.6f}",
        f"P({quoted(audit.target.piece)}) went from {chance(step.probability_before)} to "
        f"{chance(step.probability_after)}. Training is this, over and over, on other texts.",
    ]


def audit_html(audit: Audit) -> str:
    """Draw the audit as a fragment of a page."""
    sections = []
    for number, part in enumerate(parts(audit), start=1):
        drawn = ""
        if part.title == _MISTAKE:
            curve = log_curve_svg(audit.target.probability)
            drawn = scrolling(curve, "The curve of minus log p", "figure")
        title = f"<h3>{number}. {escape(part.title)}</h3>"
        sections.append(f"<section>{title}{_blocks(part)}{drawn}</section>")
    return f'<div class="nextword-audit">{"".join(sections)}</div>'


def _blocks(part: Part) -> str:
    """Turn lines into paragraphs, and what is laid out in columns into preformatted text."""
    blocks: list[list[str]] = [[]]
    for line in part.lines:
        if line:
            blocks[-1].append(line)
        else:
            blocks.append([])
    return "".join(
        scrolling(escape("\n".join(block)), f"{part.title}, laid out in columns", "pre")
        if any("  " in line for line in block)
        else f"<p>{escape(' '.join(block))}</p>"
        for block in blocks
        if block
    )
