"""Ways of dividing a network among cards, as a table for a terminal."""

import textwrap
from collections.abc import Sequence

from nextword.explanation.layouts import Layout
from nextword.explanation.step_time import Fleet
from nextword.model.shape import Shape
from nextword.rendering.formatting import counted, table
from nextword.rendering.progress import duration

FAINT, PLAIN = "\x1b[2m", "\x1b[0m"
WIDTH = 80
BUSY_TOKENS = 8192
"""Of a step on a card, below which messages and updates take a large part of it."""
WAYS = {
    "ddp": "each card holds all",
    "fsdp": "all cards divide the weights among them",
    "hsdp": "the cards of a machine divide the weights among them",
}
TOGETHER = {
    "ddp": "{} cards at a time compute each layer together and hold all",
    "fsdp": "{} cards at a time compute each layer together, and all divide the weights",
    "hsdp": "{} cards at a time compute each layer together, and those of a machine divide the "
    "weights",
}
MEANT = (
    "All ways there are; GB that a card holds, and sends in a step within its machine and over its "
    "network; t, c: cards that compute a layer together, that share rows."
)
WORDS = {
    "none": "nothing is computed a second time",
    "selective": "all but products and attention is computed a second time",
    "full": "each layer is computed a second time",
}


def describe_layouts(
    layouts: Sequence[Layout], shape: Shape, fleet: Fleet, *, tokens: float, color: bool
) -> str:
    """Say what is planned, the fastest way that fits, and all others.

    Args:
        layouts: the best first, those that cannot be last; at least one.
        shape: of the network.
        fleet: the cards.
        tokens: to learn from.
        color: whether those that cannot be are written faintly.
    """
    card, rows = fleet.card, layouts[0].rows
    stand = f" in {counted(fleet.machines, 'machine')} of {fleet.per_machine}"
    heads = [
        f"network     {shape.num_hidden_layers} layers, {shape.hidden_size} wide, "
        f"{shape.vocab_size:,} entries: {amount(shape.parameters())} parameters",
        f"cards       {fleet.count} × {card.name}{stand if fleet.machines > 1 else ''}",
        *_wrapped(
            f"{card.tflops:g} TFLOP/s of which products reach {card.reached:.0%} and attention "
            f"{card.attention:.0%}; {card.memory:g} GB at {card.bandwidth:g} TB/s; "
            f"{card.link:g} GB/s within a machine, {card.network:g} GB/s a card between "
            f"machines; {card.watts:g} W"
        ),
        *_wrapped(f"({card.source})"),
        f"step        {counted(rows, 'row')} of {shape.context:,}: {rows * shape.context:,} tokens",
        f"in all      {amount(tokens)} tokens, {tokens / shape.parameters():.3g} a parameter",
        "",
    ]
    return "\n".join([*heads, *_best(layouts[0], shape, fleet), "", *_all(layouts, color)])


def _best(best: Layout, shape: Shape, fleet: Fleet) -> list[str]:
    """Say the fastest way whole, and how to go it."""
    if best.lacks:
        return _wrapped(
            "Nothing fits: more cards, a smaller network or a smaller context would.", 0
        )
    memory = ", ".join(f"{part} {held / 1e9:.1f}" for part, held in best.memory.items())
    micro = best.micro_rows * shape.context // (best.tensor * best.context)
    way = WAYS[best.parallel] if fleet.count > 1 else "one card holds all"
    if best.tensor > 1:
        way = TOGETHER[best.parallel].format(best.tensor)
    if best.context > 1:
        way += f", and {best.context} at a time share the positions of each row"
    return [
        *_wrapped(f"Fastest of those that fit: {way}; {WORDS[best.recompute]}.", 0),
        *_wrapped(f"{best.memory_bytes / 1e9:.1f} GB a card at most: {memory}", head="memory"),
        *_wrapped(f"{best.host_bytes / 1e9:.0f} GB of each machine's own, for what is saved"),
        *_wrapped(
            f"by a card in a step {amount(best.sent_within)}B within its machine, "
            f"{amount(best.sent_between)}B over its network",
            head="sent",
        ),
        *_wrapped(
            f"{best.step_seconds:.3g} s a step, {amount(best.tokens_per_second)} tokens a second, "
            f"MFU {best.mfu:.0%}",
            head="speed",
        ),
        *_wrapped(
            f"{duration(best.days * 86400)}, {best.megawatt_hours:.3g} MWh for the cards alone",
            head="takes",
        ),
        *_advice(best, shape, fleet),
        *_wrapped(
            f"--machine.parallel {best.parallel}"
            + "".join(f" --machine.{name} {number}" for name, number in _groups(best))
            + f" --machine.recompute {best.recompute} --training.micro-batch-tokens {micro}",
            head="options",
        ),
    ]


def _groups(way: Layout) -> list[tuple[str, int]]:
    """Name who computes layers together, and who shares rows, where somebody does."""
    both = (("tensor", way.tensor), ("context", way.context))
    return [(name, number) for name, number in both if number > 1]


def _advice(best: Layout, shape: Shape, fleet: Fleet) -> list[str]:
    """Say where cards would have more to do, if they have little."""
    mine = best.micro_rows * best.parts * shape.context // (best.tensor * best.context)
    if mine >= BUSY_TOKENS:
        return []
    more = -(-BUSY_TOKENS // shape.context) * shape.context * fleet.count
    return _wrapped(
        f"a card has {mine:,} tokens a step, which is little: larger "
        f"steps would use the cards better (--training.batch-tokens {more})"
    )


def _all(layouts: Sequence[Layout], color: bool) -> list[str]:
    """Lay all ways out, those that cannot be last, with the reason."""
    heads = ["way", "again", "rows", "holds", "sends", "net", "tokens/s", "MFU", "days", "MWh"]
    rows = [
        [
            one.parallel + "".join(f" {name[0]}{number}" for name, number in _groups(one)),
            one.recompute,
            f"{one.micro_rows}×{one.parts}",
            f"{one.memory_bytes / 1e9:.1f}",
            _short(one.sent_within / 1e9),
            _short(one.sent_between / 1e9),
            amount(one.tokens_per_second),
            f"{one.mfu:.0%}",
            _short(one.days),
            _short(one.megawatt_hours),
        ]
        for one in layouts
    ]
    lines = table(heads, rows, frozenset((0, 1)))
    told = [*_wrapped(MEANT, 0), "", lines[0]]
    for one, line in zip(layouts, lines[1:], strict=True):
        if not one.lacks:
            told.append(line)
            continue
        words = [line, *_wrapped(one.lacks, 2)]
        told += [f"{FAINT}{word}{PLAIN}" for word in words] if color else words
    return told


def _short(number: float) -> str:
    """Write a number in three digits at least, and two behind the point at most."""
    return (
        f"{number:,.0f}" if number >= 100 else f"{number:.2f}" if number < 10 else f"{number:.1f}"
    )


def _wrapped(words: str, indent: int = 12, *, head: str = "") -> list[str]:
    """Break words into lines of a terminal's width, behind a head."""
    lines = textwrap.wrap(words, WIDTH - indent, break_long_words=False, break_on_hyphens=False)
    heads = [head.ljust(indent), *[" " * indent] * (len(lines) - 1)]
    return [first + line for first, line in zip(heads, lines, strict=True)]


def amount(number: float) -> str:
    """Write a large number in three digits with k, M, G (a thousand million) or T."""
    for sign, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            return f"{number / size:.3g} {sign}"
    return f"{number:.3g} "
