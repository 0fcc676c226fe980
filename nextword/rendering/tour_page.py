"""One stop of the tour: for a terminal, and as a page of the docs."""

from textwrap import wrap
from typing import NamedTuple


class Stop(NamedTuple):
    """One idea: words, then numbers, then what they mean, then something to try."""

    anchor: str
    title: str
    words: str
    shown: list[str]
    """Lines laid out in columns."""
    meaning: str
    try_it: str


def describe_stop(stop: Stop, number: int, count: int, width: int = 96) -> str:
    """Draw one stop for a terminal."""
    rule = f"── {number} of {count} · {stop.title} "
    lines = [rule + "─" * max(width - len(rule), 0), ""]
    lines += _wrapped(stop.words, width)
    lines += ["", *(f"    {line}".rstrip() for line in stop.shown), ""]
    lines += _wrapped(stop.meaning, width)
    return "\n".join([*lines, "", f"Try: {stop.try_it}"])


def _wrapped(text: str, width: int) -> list[str]:
    return wrap(text, width, break_long_words=False, break_on_hyphens=False)


def stop_markdown(stop: Stop, number: int) -> str:
    """Draw one stop as a page of the docs."""
    shown = "\n".join(line.rstrip() for line in stop.shown)
    return (
        f"# {number}. {stop.title}\n\n{stop.words}\n\n```text\n{shown}\n```\n\n{stop.meaning}\n\n"
        f"Try it:\n\n```console\n$ {stop.try_it}\n```\n"
    )
