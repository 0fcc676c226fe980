"""Several models side by side: as a table for a terminal, and as HTML."""

from nextword.explanation.compare import FEWEST_DOCUMENTS, Comparison
from nextword.loss.bits import bits
from nextword.rendering.formatting import counted, escape, quoted, table
from nextword.rendering.scroll import scrolling

CAVEAT = (
    "reads both sides of each place, so it knows more when it guesses; its figure is a "
    "pseudo-log-likelihood and not to be set beside the others'"
)


def describe_comparison_of_models(found: Comparison) -> str:
    """Lay models side by side: part by part of a text, then the whole, then what may be chance."""
    lines: list[str] = []
    if found.parts:
        heads = ["", *(f"{_letter(number)}" for number in range(len(found.judges)))]
        rows = [
            [quoted(part.text), *(f"{bits(nats):.3f}" for nats in part.nats)]
            for part in found.parts
        ]
        lines += ["Bits that each part of the text cost:", ""]
        lines += [*table(heads, rows, frozenset({0})), ""]
    lines += [*whole(found), "", *remarks(found)]
    return "\n".join(lines).rstrip()


def whole(found: Comparison) -> list[str]:
    """Return the table of the whole."""
    rows = []
    for number, judge in enumerate(found.judges):
        per_byte = found.bits_per_byte(number)
        rows.append(
            [
                _letter(number),
                judge.name + (" (both sides)" if judge.both_sides else ""),
                f"{judge.parameters:,}",
                f"{judge.entries:,}",
                f"{judge.nats / judge.tokens:.4f}",
                "withheld" if per_byte is None else f"{per_byte:.4f}",
            ]
        )
    heads = ["", "model", "weights", "pieces", "nats a piece", "bits a byte"]
    return table(heads, rows, frozenset({0, 1}))


def remarks(found: Comparison) -> list[str]:
    """Say what the table does not."""
    lines = []
    for number, judge in enumerate(found.judges):
        if judge.both_sides:
            lines.append(f"{_letter(number)} {CAVEAT}.")
        if judge.withheld:
            lines.append(f"{_letter(number)}: bits a byte are withheld: {judge.withheld}.")
    comparable = [judge for judge in found.judges if not judge.both_sides and not judge.withheld]
    if len({judge.entries for judge in comparable}) > 1:
        lines.append(
            "The models cut text into other pieces: compare bits a byte, not nats a piece."
        )
    for one in found.differences:
        better, worse = _letter(one.better), _letter(one.worse)
        interval = f"95 of 100 resamples: {one.low:.4f} to {one.high:.4f}"
        lines.append(
            f"{better} needs {one.bits_per_byte:.4f} bits a byte less than {worse} on these "
            f"{found.documents:,} documents ({interval}): "
            + (
                "that could be chance; more documents would tell."
                if one.may_be_chance
                else "too much for chance."
            )
        )
    if len(comparable) < len(found.judges) and len(comparable) < 2:
        lines.append("No two models here have figures that may be compared.")
    elif not found.differences:
        lines.append(
            f"Whether a difference is more than chance cannot be told from "
            f"{counted(found.documents, 'text')}: give a file of at least {FEWEST_DOCUMENTS}."
        )
    return lines


def comparison_html(found: Comparison) -> str:
    """Draw it as a fragment of a page."""
    told = escape(describe_comparison_of_models(found))
    return scrolling(told, "The same text judged by several models", "pre")


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else str(number)
