"""Figures of tasks, as lines, as a table of a page and of a card."""

from collections.abc import Sequence

from nextword.explanation.benchmarks import Benchmark
from nextword.rendering.formatting import escape, figure, table
from nextword.rendering.scroll import scrolling

HEADS = ("task", "asked", "figure", "value", "±", "read before")


def rows_of(found: Sequence[Benchmark]) -> list[tuple[str, ...]]:
    """Return a row for each figure, in the order of `HEADS`."""
    rows: list[tuple[str, ...]] = []
    for one in found:
        shots = f", {one.fewshot} shown" if one.fewshot else ""
        for number, (name, value) in enumerate(one.metrics.items()):
            error = one.errors.get(name)
            rows.append(
                (
                    one.task if not number else "",
                    f"{one.documents:,}{shots}" if not number else "",
                    name.replace("_", " "),
                    figure(value),
                    "" if error is None else figure(error),
                    read_before(one) if not number else "",
                )
            )
    return rows


def read_before(one: Benchmark) -> str:
    """Say how much of a task's texts stands in what the model read."""
    if one.leaked is None:
        return "not looked for"
    if not one.leaked.compared:
        return "texts too short to tell"
    if not one.leaked.texts:
        return "nothing found"
    return f"{one.leaked.share:.1%} of its text"


def describe_benchmarks(found: Sequence[Benchmark]) -> str:
    """Lay the figures out as a table for a terminal."""
    return "\n".join(table([*HEADS], [[*row] for row in rows_of(found)], frozenset({0, 2, 5})))


def benchmarks_html(found: Sequence[Benchmark]) -> str:
    """Lay the figures out as a table of a page; nothing where there are none."""
    if not found:
        return ""
    head = "".join(f"<th>{name}</th>" for name in HEADS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows_of(found)
    )
    drawn = scrolling(
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", "Tasks of others"
    )
    return (
        f"<p>Asked by {escape(found[0].harness)}; the last column says how much of a task's text "
        f"stands, nearly, in what the network had read.</p>{drawn}"
    )
