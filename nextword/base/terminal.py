"""Texts for a terminal: what would control it is shown as a sign.

A text, a model's output or a file's name may hold characters that move the cursor, change colors,
ring, or turn the direction of what follows. Whoever prints to a terminal prints `visible` text;
into a pipe or a file a text goes as it is.
"""

import codecs
import io
import os
from typing import TextIO

_LINE = {"\n": "⏎", "\t": "⇥", "\r": "␍"}
_PICTURES = {**{chr(code): chr(0x2400 + code) for code in range(0x20)}, "\x7f": "␡"}
_UNSEEN = [
    *range(0x80, 0xA0), 0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
]  # fmt: skip
"""The second set of controls; marks of direction; ends of lines and paragraphs."""
SIGNS = {**_PICTURES, **{chr(code): f"‹U+{code:04X}›" for code in _UNSEEN}, **_LINE}
"""Every character that does something to a terminal → what is shown for it."""
_IN_ONE_LINE = str.maketrans(SIGNS)
_IN_LINES = str.maketrans({key: sign for key, sign in SIGNS.items() if key not in "\n\t"})


def signed(text: str) -> str:
    """Show all that would not print as signs, line breaks and tabs too."""
    return text.translate(_IN_ONE_LINE)


def visible(text: str) -> str:
    """Show all that would control a terminal as signs; lines and tabs stay."""
    return text.translate(_IN_LINES)


_PLAINLY = {
    "→": "->",
    "←": "<-",
    "−": "-",
    "–": "-",
    "…": "...",
    "×": "x",
    "·": "*",
    "█": "#",
    "▒": "=",
    "⏎": "\\n",
    "⇥": "\\t",
    "␍": "\\r",
    "│": "|",
    "─": "-",
    "“": '"',
    "”": '"',
}
"""What stands for a sign where a terminal has none; others become a question mark."""


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = error.object[error.start : error.end]
    return "".join(_PLAINLY.get(letter, "?") for letter in unknown), error.end


def speak_utf8(*streams: TextIO) -> None:
    """Let a process write UTF-8, whatever the system's encoding (cp1252 on Windows, ASCII in C).

    A pipe or file carries UTF-8, so that nothing is lost and JSON is JSON; a terminal that knows
    less is written to in what it knows.
    """
    codecs.register_error("plainly", _plainly)
    for stream in streams:
        if (
            not isinstance(stream, io.TextIOWrapper)
            or codecs.lookup(stream.encoding).name == "utf-8"
        ):
            continue
        if stream.isatty():
            stream.reconfigure(errors="plainly")
        else:
            stream.reconfigure(encoding="utf-8")


def columns_of(stream: TextIO) -> int | None:
    """Return how wide a terminal is; None of a pipe or a file, which hold lines of any length."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None if stream.isatty() else None
    except (OSError, ValueError):
        return None


def as_utf8(argument: str) -> str:
    """Read an argument as UTF-8 that was decoded as something else; what is none stays.

    So does a file's name, which the system knows as it was decoded.
    """
    if os.path.exists(argument):
        return argument
    try:
        return os.fsencode(argument).decode("utf-8") if os.name == "posix" else argument
    except UnicodeError:
        return argument


def for_stream(text: str, stream: TextIO) -> str:
    """Return a text as it may be written to a stream: to a terminal visible, elsewhere as it is.

    A half of a character, which no stream can carry, becomes a question mark.
    """
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return visible(whole) if stream.isatty() else whole
