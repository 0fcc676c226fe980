"""Options and where their defaults come from, as a table for a terminal and for the docs."""

from collections.abc import Iterable
from itertools import groupby
from textwrap import wrap
from typing import Protocol

WIDTH = 96


class Described(Protocol):
    """An option as settings describe it."""

    @property
    def room(self) -> str:
        """Its group."""

    @property
    def path(self) -> str:
        """Its name."""

    @property
    def help(self) -> str:
        """What it does."""

    @property
    def default_words(self) -> str:
        """What holds where nothing is said."""

    @property
    def of(self) -> tuple[str, ...]:
        """What a derived default follows from."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The values allowed, when they are few."""


def source_of(option: Described) -> str:
    """Say where a default comes from: fixed, derived from what, or nothing."""
    if option.of:
        return "derived from " + " and ".join(option.of)
    return "fixed" if option.default_words else "nothing unless told"


def describe_settings(options: Iterable[Described]) -> str:
    """List options for a terminal, group by group."""
    lines: list[str] = []
    for room, group in groupby(options, key=lambda option: option.room):
        lines += ["", f"[{room}]"] if lines else [f"[{room}]"]
        for option in group:
            default = option.default_words or "nothing"
            said = f"{option.help}{_one_of(option)}. Default: {default} ({source_of(option)})"
            lines.append(f"  {option.path}")
            lines += [f"      {line}" for line in wrap(said, WIDTH - 6)]
    return "\n".join(lines)


def settings_markdown(options: Iterable[Described]) -> str:
    """List options as a page of the docs."""
    page = [
        "# Settings",
        "",
        "Every option, what it does, and where its default comes from: fixed, or derived from",
        "something by a rule. `nextword settings` prints the same; in a recipe an option stands",
        "under its group, on the command line it is `--group.name`.",
    ]
    for room, group in groupby(options, key=lambda option: option.room):
        page += ["", f"## {room}", "", "| option | what it does | default | where from |"]
        page.append("|---|---|---|---|")
        for option in group:
            cells = (f"`{option.path}`", option.help + _one_of(option), option.default_words)
            said = " | ".join(cell.replace("|", "\\|") for cell in cells)
            page.append(f"| {said} | {source_of(option)} |")
    return "\n".join(page) + "\n"


def _one_of(option: Described) -> str:
    return f" (one of {', '.join(option.choices)})" if option.choices else ""
