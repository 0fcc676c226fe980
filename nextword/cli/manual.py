"""The manual page, `man nextword`, written from the verbs' own declarations."""

import re
from collections.abc import Iterator
from typing import Any

from cyclopts import App

from nextword import __version__
from nextword.cli.examples import EXAMPLES

FILES = (
    (
        "runs/NAME/",
        "a run: settings, what happened, checkpoints. NEXTWORD_RUNS names another place",
    ),
    ("~/.cache/nextword/", "prepared text. NEXTWORD_CACHE names another place"),
)
STATUS = (
    ("0", "it is done"),
    ("1", "a check has failed, or the program has made a mistake of its own"),
    ("2", "the input is wrong or the machine is full; one line says what, where and what to do"),
    ("130, 143", "interrupted or ended; a training has saved"),
)


def manual(app: App) -> str:
    """Write the page in roff, with the macros of man(7)."""
    lines = [
        f'.TH NEXTWORD 1 "" "nextword {__version__}" "User Commands"',
        *(".SH NAME", r"nextword \- train a language model from text, and watch it learn"),
        *(".SH SYNOPSIS", ".B nextword", r"\fIVERB\fR [\fIOPTIONS\fR]"),
        *(".SH DESCRIPTION", _words(str(app.help).split("\n\n")[0])),
        "Every verb has \\fB\\-\\-help\\fR, and all but servers \\fB\\-\\-json\\fR.",
        *(".SH VERBS",),
    ]
    for name in sorted(verb for verb in app if not verb.startswith("-")):
        lines += _verb(name, app[name])
    lines += [".SH EXIT STATUS", *_items(STATUS), ".SH FILES", *_items(FILES)]
    return "\n".join(lines) + "\n"


def _verb(name: str, verb: App) -> Iterator[str]:
    yield f".SS {_words(name)}"
    yield _words(_help_of(verb))
    for argument in verb.assemble_argument_collection():
        if not argument.show:
            continue
        kind = argument.field_info.kind
        named = ", ".join(rf"\fB{_words(one)}\fR" for one in argument.names)
        if kind is not kind.KEYWORD_ONLY:
            named = rf"\fI{_words(argument.names[0].lstrip('-').upper())}\fR"
        yield ".TP"
        yield named
        yield _words(str(argument.parameter.help or "")) or r"\&"
    examples = EXAMPLES.get(name, [])
    if examples:
        yield ".PP"
        yield "Examples:"
    for example in examples:
        yield ".IP"
        yield ".nf"
        yield _words(f"# {example.does}")
        yield _words(f"nextword {example.command}")
        yield ".fi"
    for inner in (one for one in verb if not one.startswith("-")):
        yield from _verb(f"{name} {inner}", verb[inner])


def _help_of(verb: App) -> str:
    text = re.split(r"\n\s*\n[A-Z]+:", str(verb.help))[0]
    return " ".join(text.split())


def _items(pairs: Any) -> Iterator[str]:
    for term, words in pairs:
        yield ".TP"
        yield rf"\fB{_words(term)}\fR"
        yield _words(words)


def _words(text: str) -> str:
    """Write a text so that roff takes none of it for its own."""
    flat = " ".join(text.split()).replace("\\", r"\e").replace("-", r"\-")
    flat = "".join(one if one.isascii() else rf"\[u{ord(one):04X}]" for one in flat)
    return rf"\&{flat}" if flat[:1] in (".", "'") else flat
