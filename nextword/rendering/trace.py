"""A judged text: as lines for a terminal, and as HTML."""

import math
import sys

from nextword.base.terminal import signed
from nextword.explanation.trace import ZERO_NATS, Position, Trace
from nextword.loss.bits import bits
from nextword.rendering.formatting import (
    among,
    chance,
    counted,
    escape,
    figure,
    one_line,
    quoted,
    table,
    tail,
)
from nextword.rendering.heat import heat_ansi, heat_html
from nextword.rendering.scroll import scrolling

_SHOWN_TERMS = 12
_CONTEXT, _SHORTEST = 24, 4
"""Characters of what stands before a piece that are shown."""


def describe_trace(
    trace: Trace, *, top: int = 0, color: bool = False, width: int | None = None
) -> str:
    """Say position by position what the text gave and the model thought, then what it comes to.

    Args:
        trace: the judged text.
        top: list so many candidates under each position; 0 for none.
        color: write the text colored by surprise, for a terminal that can.
        width: columns there are; None: as many as it takes.
    """
    text = quoted(one_line(trace.text, 70))
    name = signed(trace.model)
    how = [
        f"{name} read {text} piece by piece. At each place the text itself",
        "says what comes next (the target); the model has read only what stands before.",
    ]
    if trace.both_sides:
        how = [
            f"{name} read {text} once for each piece, with that one hidden. The text itself",
            "says what was hidden (the target); the model has read all others, before and after.",
        ]
    lines = [
        *how,
        "",
        "P        the probability that it gave the target, before it saw it",
        "−ln P    the mistake, in nats: 0 where it was certain and right; in bits: nats ÷ 0.693",
        f"rank     the target's place among all {trace.entries:,} pieces, the likeliest first",
        "unsure   the mistake it had to expect, in nats, whatever came (entropy)",
        "",
    ]
    if color:
        lines += [heat_ansi((place.piece, place.nats) for place in trace.positions), ""]
    lines += _rows(trace, top, width)
    return "\n".join([*lines, "", *summary(trace)])


def _rows(trace: Trace, top: int, width: int | None) -> list[str]:
    drawn = _drawn(trace, _CONTEXT)
    if width is not None and (more := max(map(len, drawn)) - width) > 0:
        shorter = max(_CONTEXT - more, _SHORTEST)  # less of what stands before
        drawn = _drawn(trace, shorter)
        if max(map(len, drawn)) > width:
            drawn = _drawn(trace, shorter, bits=False)  # which are nats in another unit
    if not top:
        return drawn
    lines = [drawn[0]]
    for position, row in zip(trace.positions, drawn[1:], strict=True):
        lines.append(row)
        for guess in position.candidates[:top]:
            bar = "█" * round(24 * guess.probability)
            sign, likely = "✓" if guess.id == position.id else " ", chance(guess.probability)
            lines.append(f"      {sign} {quoted(guess.piece):<18}{likely:>9}  {bar}".rstrip())
    return lines


def _drawn(trace: Trace, before: int, *, bits: bool = True) -> list[str]:
    rows = [["", "after", "target", "P", "−ln P", "bits", "rank", "unsure", "likeliest", ""]]
    rows += [_cells(position, before) for position in trace.positions]
    heads, *cells = rows if bits else [[*row[:5], *row[6:]] for row in rows]
    return table(heads, cells, frozenset({1, 2, len(heads) - 2}))


def _cells(position: Position, before: int = _CONTEXT) -> list[str]:
    likeliest = position.candidates[0]
    right = likeliest.id == position.id
    first = "(the beginning)" if before == _CONTEXT else "(begin)"
    return [
        str(position.number),
        quoted(tail(position.context, before)) if position.number > 1 else first,
        quoted(position.piece),
        chance(position.probability),
        f"{position.nats:.4f}",
        f"{position.bits:.4f}",
        f"{position.rank:,}",
        f"{position.entropy:.4f}",
        "the target" if right else quoted(likeliest.piece),
        "" if right else chance(likeliest.probability),
    ]


def summary(trace: Trace) -> list[str]:
    """Put the sum of the logs beside the product, and say the average in other units."""
    count, nats = len(trace.positions), trace.nats
    shown = [position.nats for position in trace.positions[:_SHOWN_TERMS]]
    terms = " + ".join(f"{value:.4f}" for value in shown)
    factors = " × ".join(chance(p.probability) for p in trace.positions[:_SHOWN_TERMS])
    more = " …" if count > _SHOWN_TERMS else ""
    if trace.both_sides:
        return [
            f"sum         {terms}{more} = {nats:.4f} nats",
            "            Minus this is the pseudo-log-likelihood. It is not the text's: each",
            "            piece was guessed with all others in sight, those after it too.",
            f"average     {nats:.4f} ÷ {counted(count, 'piece')} = {trace.nats_per_token:.4f} nats "
            "a hidden piece: this is the loss",
        ]
    lines = [
        f"sum         {terms}{more} = {nats:.4f} nats = {bits(nats):.4f} bits",
        f"product     {factors}{more} = {_product(trace)}",
        *_why_logs(trace),
        f"average     {nats:.4f} ÷ {counted(count, 'piece')} = {trace.nats_per_token:.4f} nats a "
        "piece: this is the loss,",
        f"            {among(trace.perplexity)} (e^{trace.nats_per_token:.4f}; its name is "
        "perplexity)",
    ]
    if trace.word_perplexity is not None:
        lines.append(
            f"per word    {nats:.4f} ÷ {counted(trace.words, 'word')} = "
            f"{nats / trace.words:.4f} nats: {among(trace.word_perplexity, 'words')}"
        )
    if trace.bits_per_byte is not None:
        lines.append(
            f"per byte    {bits(nats):.4f} bits ÷ {counted(trace.num_bytes, 'byte')} = "
            f"{trace.bits_per_byte:.4f} bits a byte, where the plain file takes 8"
        )
    else:
        lines.append(f"per byte    withheld: {trace.withheld}")
    return lines


def _product(trace: Trace) -> str:
    if trace.underflows_at is not None:
        return "0.0"
    if trace.product < sys.float_info.min:
        return f"about 10^{-trace.nats / math.log(10):.0f}"
    return figure(trace.product)


def _why_logs(trace: Trace) -> list[str]:
    """Say why logs are added where probabilities could be multiplied."""
    if trace.underflows_at is not None:
        return [
            f"            from piece {trace.underflows_at} on the product is too small for a "
            "computer's number and has",
            "            become 0.0: everything it knew is lost. The sum of the logs goes on, and "
            "that is why logs are used.",
        ]
    repeats = math.ceil(ZERO_NATS / trace.nats) if trace.nats > 0.01 else None
    if repeats is None:
        return []
    return [
        "            −ln of it is the sum above: two ways to say one thing. But multiplied on, "
        f"over a text {repeats:,} times",
        "            as long, it would be too small for a computer's number and become 0.0. The "
        "sum of logs would not.",
    ]


def trace_html(trace: Trace) -> str:
    """Draw a judged text as a fragment of a page: colored text, table, sums."""
    heads = ("no.", "after", "target", "P", "−ln P", "bits", "rank", "unsure", "likeliest", "its P")
    cells = "".join(
        "<tr>"
        + "".join(
            f'<td class="{"text" if number in (1, 2, 8) else "number"}">{escape(cell)}</td>'
            for number, cell in enumerate(_cells(position))
        )
        + "</tr>"
        for position in trace.positions
    )
    head = "".join(f"<th>{escape(word)}</th>" for word in heads)
    drawn = f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>"
    sums = escape("\n".join(summary(trace)))
    return (
        f'<div class="nextword-trace">{heat_html(trace.positions)}'
        f"{scrolling(drawn, 'Each piece and how it was judged')}"
        f"{scrolling(sums, 'The mistakes added up', 'pre')}</div>"
    )
