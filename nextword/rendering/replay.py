"""Sentences judged while the model learned: tables and lines over the steps."""

from collections.abc import Sequence

from nextword.explanation.replay import Judged, Pin, Replay
from nextword.rendering.curve import Line, chart_svg
from nextword.rendering.formatting import chance, escape, one_line, quoted, table
from nextword.rendering.heat import heat_style
from nextword.rendering.scroll import scrolling

COLUMNS = 7
"""Moments shown side by side in a table."""
_BLOCKS = " ▁▂▃▄▅▆▇█"


def describe_replay(replay: Replay, *, columns: int = COLUMNS, width: int | None = None) -> str:
    """Show how P(target) rose and the loss fell over the steps, token by token.

    Args:
        replay: all sentences at all moments.
        columns: how many moments to show, at most.
        width: columns of the screen; None: as many as it takes.
    """
    chosen = chosen_moments(replay.steps, columns)
    tables = [_table(replay, number, pin, chosen) for number, pin in enumerate(replay.pins)]
    if width is not None and columns > 2 and _widest(tables) > width:
        return describe_replay(replay, columns=columns - 1, width=width)
    lines = [
        f"How {replay.run} judged the same sentences while it learned. In each column the "
        "probability it",
        "gave, at that step, to the piece the text says; below, the average of −ln P: the loss.",
    ]
    for number, pin in enumerate(replay.pins):
        lines += ["", f"{quoted(one_line(pin.text, 80))} ({pin.source})", ""]
        lines += tables[number]
    return "\n".join(lines)


def _widest(tables: list[list[str]]) -> int:
    return max((len(line) for lines in tables for line in lines), default=0)


def _table(replay: Replay, number: int, pin: Pin, chosen: list[int]) -> list[str]:
    judged = [moment[number] for moment in replay.judged]
    heads = ["", *(f"step {replay.steps[moment]:,}" for moment in chosen), "over all steps"]
    rows = [
        [
            quoted(piece),
            *(chance(judged[moment].probabilities[place]) for moment in chosen),
            _spark([one.probabilities[place] for one in judged]),
        ]
        for place, piece in enumerate(pin.pieces)
    ]
    losses = [one.loss for one in judged]
    loss = [f"{losses[moment]:.4f}" for moment in chosen]
    rows.append(["loss, nats a piece", *loss, _spark([one / max(losses) for one in losses])])
    last = len(heads) - 1
    return table(heads, rows, frozenset({0, last}))


def chosen_moments(steps: tuple[int, ...], most: int) -> list[int]:
    """Choose moments to show: the first, the last, and between them more of the early ones."""
    last = len(steps) - 1
    if last < most:
        return list(range(last + 1))
    shares = [(number / (most - 1)) ** 2 for number in range(most)]
    return sorted({max(round(share * last), min(number, 1)) for number, share in enumerate(shares)})


def _spark(values: list[float]) -> str:
    """Draw values between 0 and 1 as a row of blocks, at most 24 of them."""
    step = max(1, -(-len(values) // 24))
    return "".join(_BLOCKS[round(min(max(value, 0.0), 1.0) * 8)] for value in values[::step])


def replay_svg(replay: Replay) -> str:
    """Draw each sentence's loss over the steps."""
    lines = [
        Line(
            one_line(pin.text, 60),
            tuple(
                (float(step), moment[number].loss)
                for step, moment in zip(replay.steps, replay.judged, strict=True)
            ),
            "main" if number == 0 else "soft",
        )
        for number, pin in enumerate(replay.pins)
    ]
    return chart_svg(
        lines,
        title="The loss of each pinned sentence over the steps of training",
        across="steps of training",
        up="loss, nats a piece",
    )


def replay_html(replay: Replay) -> str:
    """Draw the replay as a fragment of a page: the sentences at chosen steps, and their losses."""
    chosen = chosen_moments(replay.steps, COLUMNS)
    parts = [scrolling(replay_svg(replay), "The losses over the steps", "figure")]
    for number, pin in enumerate(replay.pins):
        rows = []
        for moment in chosen:
            one = replay.judged[moment][number]
            rows.append(
                f"<tr><th>step {replay.steps[moment]:,}</th><td>{_colored(pin, one)}</td>"
                f'<td class="number">{one.loss:.4f}</td></tr>'
            )
        table_ = f"<table><tbody>{''.join(rows)}</tbody></table>"
        parts.append(scrolling(table_, f"At chosen steps: {one_line(pin.text, 60)}"))
    return f'<div class="nextword-replay">{"".join(parts)}</div>'


def _colored(pin: Pin, judged: Judged) -> str:
    return "".join(
        f'<span class="piece" style="{heat_style(nats)}" title="{chance(p)}">{escape(piece)}</span>'
        for piece, nats, p in zip(pin.pieces, judged.nats, judged.probabilities, strict=True)
    )


def moment_html(pins: Sequence[Pin], judged: Sequence[Judged]) -> str:
    """Color the sentences of one moment by surprise, as a fragment that needs no style sheet."""
    return "".join(
        f'<p style="font:17px/1.6 serif">{_colored(pin, one)}<br><small>{one.loss:.4f} nats a '
        f"piece; {escape(pin.source)}</small></p>"
        for pin, one in zip(pins, judged, strict=True)
    )


def moment_markdown(pins: Sequence[Pin], judged: Sequence[Judged]) -> str:
    """Write the sentences of one moment as tables, for who shows no colors; a bar is a surprise."""
    parts = []
    for pin, one in zip(pins, judged, strict=True):
        parts += [f"**{_cell(one_line(pin.text, 80))}** {one.loss:.4f} nats a piece", ""]
        parts += ["| piece | P | nats | | likeliest | its P |", "|---|---|---|---|---|---|"]
        parts += [
            f"| {_cell(quoted(piece))} | {chance(p)} | {nats:.2f} | {_BLOCKS[-1] * round(2 * nats)}"
            f" | {_cell(quoted(best))} | {chance(sure)} |"
            for piece, nats, p, best, sure in zip(
                *(pin.pieces, one.nats, one.probabilities),
                *(one.likeliest, one.likeliest_probability),
                strict=True,
            )
        ]
        parts.append("")
    return "\n".join(parts)


def _cell(text: str) -> str:
    """Keep a text from being read as a table's or a page's signs."""
    return escape(text).replace("|", "&#124;").replace("*", "&#42;").replace("_", "&#95;")
