"""Formatting that all renderers share: quoting, truncation, numbers, tables."""

import html
import math
import re
import shlex

from nextword.base.terminal import signed, visible


def quoted(text: str) -> str:
    """Quote a text; line breaks and the like are shown as signs."""
    return '"' + signed(text) + '"'


def escape(text: str) -> str:
    """Write a text for a page: its signs of HTML stand for themselves, its controls are shown."""
    return html.escape(visible(text))


def argument(text: str) -> str:
    """Write a text as a shell reads it: one word, whatever stands in it."""
    if re.fullmatch(r"[\w@+:,./-]+", text):
        return text
    if re.search(r'["$`\\!]', text):  # what a shell looks for between double quotes
        return shlex.quote(text)
    return f'"{text}"'


def one_line(text: str, most: int) -> str:
    """Put a text on one line of at most so many characters, its beginning kept."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def tail(text: str, most: int) -> str:
    """Put a text on one line of at most so many characters, its end kept."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else "…" + flat[-most + 1 :]


def chance(probability: float) -> str:
    """Write a probability so that none looks like 0 or 1 that is not."""
    if probability == 0.0:
        return "<1e-308"
    if probability < 0.001:
        return f"{probability:.1e}"
    if probability > 0.99995 and probability < 1:
        return ">0.9999"
    return f"{probability:.4f}"


def figure(value: float) -> str:
    """Write a number with about four digits, in full where it is neither very large nor small."""
    if value == 0 or 0.001 <= abs(value) < 10_000_000:
        digits = 3 - math.floor(math.log10(abs(value))) if value else 1
        return f"{value:,.{min(max(digits, 0), 4)}f}"
    return f"{value:.3e}"


def counted(number: int, what: str) -> str:
    """Say how many, with the plural where it is due."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def among(choices: float, what: str = "pieces") -> str:
    """Say a perplexity in words."""
    number = f"{choices:.2f}" if choices < 10 else f"{choices:,.1f}"
    return f"as unsure as choosing among {number} equally likely {what}"


def table(heads: list[str], rows: list[list[str]], left: frozenset[int]) -> list[str]:
    """Lay cells out in columns that are as wide as they must be.

    Args:
        heads: one a column.
        rows: cells, as many in each as there are heads.
        left: numbers of the columns that are text and begin at the left.
    """
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [heads, *rows]
    ]
