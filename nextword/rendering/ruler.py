"""The ruler: one scale from blind guessing to the best possible, and one sentence on it."""

import math
from dataclasses import replace

from nextword.explanation.ruler import Mark, Ruler
from nextword.rendering.formatting import escape, table
from nextword.rendering.scroll import scrolling

BAR, SHORTEST = 40, 10


def describe_ruler(ruler: Ruler, *, width: int | None = None) -> str:
    """Draw every mark with its bar, the worst first, and answer: is this loss good?

    Args:
        ruler: what was measured.
        width: columns there are; None: as many as it takes.
    """
    marks = ranked(ruler)
    longest = ruler.value(marks[0])
    bar = BAR
    if width is not None:  # bars become shorter, and what a mark is is left out where they cannot
        number = max(len(f"{ruler.value(mark):.4f}") for mark in marks)
        left = width - 9 - max(len(mark.name) for mark in marks) - max(number, len(ruler.unit))
        bar = left - max(len(mark.says) for mark in marks)
        if bar < SHORTEST:
            marks, bar = [replace(mark, says="") for mark in marks], max(left, 1)
        bar = min(BAR, bar)
    rows = [
        [
            "→" if mark.kind == "model" else "",
            mark.name,
            f"{ruler.value(mark):.4f}",
            ("█" if mark.kind == "model" else "▒")
            * max(round(bar * ruler.value(mark) / longest), 1),
            mark.says,
        ]
        for mark in marks
    ]
    size = f", {ruler.num_bytes:,} bytes" if ruler.num_bytes else ""
    lines = [
        f"The same held-out text ({ruler.tokens:,} tokens{size}), written down by each; less is "
        "better.",
        "",
        *table(["", "", ruler.unit, "", ""], rows, frozenset({0, 1, 3, 4})),
        "",
        *_notes(ruler),
    ]
    return "\n".join([*lines, "", sentence(ruler)])


def _notes(ruler: Ruler) -> list[str]:
    """Say what the marks were measured with, and what is left out."""
    lines = [f"The counting models counted {ruler.counted:,} training tokens."]
    if ruler.primed_with:
        lines.append(
            f"Primed: bytes for training text ({ruler.primed_with:,} bytes) and held-out text "
            "together, less bytes for the first alone."
        )
    if ruler.num_bytes and ruler.one("pack") is None:
        lines.append("Compressors are left out: they would take too much memory for this text.")
    if ruler.withheld:
        lines.append(f"Compressors are left out, and bits per byte withheld: {ruler.withheld}.")
    return lines


def _bar(mark: Mark, share: float) -> str:
    return ("█" if mark.kind == "model" else "▒") * max(round(BAR * share), 1)


def ranked(ruler: Ruler) -> list[Mark]:
    """Return the marks from the worst to the best."""
    return sorted(ruler.marks, key=lambda mark: -mark.bits)


def sentence(ruler: Ruler) -> str:
    """Answer "is my loss good?" in one sentence.

    It compares with guessing, with the best that counts or packs unprimed, and with what is
    possible where that is known: the same whether compressors were primed or not.
    """
    model, guess = ruler.one("model"), ruler.one("guess")
    others = [mark for mark in ruler.marks if mark.kind in ("count", "pack")]
    if model is None or guess is None or not others:
        raise ValueError("a ruler has the marks of a guess, of counting and of a model")
    best = min(others, key=lambda mark: mark.bits)
    here, there = ruler.value(model), ruler.value(best)
    share = abs(1 - here / there)
    if here < there:
        verdict = (
            f"{share:.0%} less than the best of counting and packing ({best.name}, {there:.3f})"
        )
    else:
        verdict = (
            f"still {share:.0%} more than {best.name} ({there:.3f}) needs, which only "
            f"{'counts' if best.kind == 'count' else 'packs'}"
        )
    end = "."
    if (floor := ruler.one("floor")) is not None:
        possible = ruler.value(floor)
        end = f", and {here / possible - 1:.1%} above the least possible ({possible:.3f})."
    return (
        f"Is that good? It needs {here:.3f} {ruler.unit}: blind guessing needs "
        f"{ruler.value(guess):.3f}; it is {verdict}{end}"
    )


def sentence_at_hidden(loss: float, counted: float, entries: int) -> str:
    """Say in one sentence how good the loss at hidden places is.

    Args:
        loss: in nats a hidden token.
        counted: what guessing each piece as often as it occurs needs.
        entries: of the vocabulary.
    """
    share = 1 - loss / counted
    better = f"{share:.0%} less" if share >= 0 else f"{-share:.0%} more"
    return (
        f"Is that good? At a hidden place it needs {loss:.3f} nats: blind guessing needs "
        f"{math.log(entries):.3f}, and it is {better} than guessing each piece as often as it "
        f"occurs ({counted:.3f})."
    )


def ruler_html(ruler: Ruler) -> str:
    """Draw the ruler as a fragment of a page."""
    marks = ranked(ruler)
    longest = ruler.value(marks[0])
    rows = "".join(
        f'<tr class="{mark.kind}"><th>{escape(mark.name)}</th>'
        f'<td class="number">{ruler.value(mark):.4f}</td>'
        f'<td class="bar"><span style="width:{100 * ruler.value(mark) / longest:.2f}%"></span></td>'
        f'<td class="text">{escape(mark.says)}</td></tr>'
        for mark in marks
    )
    drawn = (
        f'<table><thead><tr><th>name</th><th class="number">{ruler.unit}</th>'
        f'<th class="bar">drawn</th><th>how</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    return (
        f'<div class="nextword-ruler"><p>{escape(sentence(ruler))}</p>'
        f"{scrolling(drawn, 'The ruler: what each needs for the same text')}"
        f'<p class="soft">{escape(" ".join(_notes(ruler)))}</p></div>'
    )
