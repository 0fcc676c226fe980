"""Chats as messengers export them: who said what, a line each, a document a day.

A day's talk is about something; years of it in one document would be one long context, and could
not be parted into training and hold-out.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from nextword.corpus.documents import Piece
from nextword.corpus.source import Source


class Message(NamedTuple):
    """What one person wrote."""

    day: str
    """However the messenger writes it: only whether it changes matters."""
    name: str
    """"" where nobody wrote it."""
    text: str


def documents(messages: Iterator[Message], source: Source) -> Iterator[Piece]:
    """Yield a document a day: "name: text", a line a message; notices are counted.

    Args:
        messages: in the order in which they were written.
        source: where they stand.
    """
    day, said = "", list[str]()
    for message in messages:
        if message.day != day:
            if said:
                yield Piece("\n".join(said), True)
            day, said = message.day, []
        if message.name and message.text.strip():
            said.append(f"{message.name}: {message.text.strip()}")
        else:
            source.tally.add("notices", source.place)
    if said:
        yield Piece("\n".join(said), True)


_MARKS = "\u200e\u200f\u202a\u202c\ufeff"
"""Signs of direction, which WhatsApp writes before its own words."""
_DATE = r"\d{1,4}[./-]\s?\d{1,2}[./-]\s?\d{1,4}\.?"
_TIME = r"\d{1,2}[:.]\d{2}(?:[:.]\d{2})?(?:[\s\u202f\u00a0]?[AaPp]\.?[\s\u202f\u00a0]?[Mm]\.?)?"
_WHATSAPP = re.compile(
    rf"[{_MARKS}]*(?:\[({_DATE}),?\s{_TIME}\]|({_DATE}),?\s{_TIME}\s[-–])\s(?P<rest>.*)", re.DOTALL
)
_SAID = re.compile(rf"[{_MARKS}]?([^:\n]{{1,60}}): ?(.*)", re.DOTALL)
_LEFT_OUT = re.compile(
    r"<[^<>]{3,60}>$|(null|Missed (voice|video) call|This message was deleted\.?"
    r"|You deleted this message\.?)$"
)
_LINES_LOOKED_AT = 20
_LEAST_MESSAGES = 3


def is_whatsapp(beginning: str) -> bool:
    """Tell a chat that WhatsApp exported by its first lines."""
    lines = beginning.split("\n")[:_LINES_LOOKED_AT]
    dated = [found for line in lines if (found := _WHATSAPP.match(line.rstrip("\r")))]
    named = sum(bool(_SAID.match(found["rest"])) for found in dated)
    begins = bool(lines) and bool(_WHATSAPP.match(lines[0]))
    return begins and len(dated) >= _LEAST_MESSAGES and 2 * named >= len(dated)


def whatsapp(source: Source) -> Iterator[Message]:
    """Yield the messages of a chat: "[31.12.23, 23:59:01] Name: text" or "31/12/23, 23:59 - …".

    A line without a date goes on with the message before it. What WhatsApp itself says is marked
    so (U+200E), or has no name, or stands in <> (media that were left out).
    """
    held: list[str] = []
    day = ""
    for number, line in source.read_lines():
        source.here = f"line {number}"
        line = line.rstrip("\r")
        if (begun := _WHATSAPP.match(line)) is None:
            held.append(line)
            continue
        if held:
            yield _message(day, "\n".join(held))
        day, held = begun[1] or begun[2], [begun["rest"]]
    if held:
        yield _message(day, "\n".join(held))


def _message(day: str, rest: str) -> Message:
    said = _SAID.match(rest)
    if said is None:
        return Message(day, "", rest)
    name, text = said.groups()
    if text.startswith(tuple(_MARKS)) or _LEFT_OUT.match(text.strip()):
        return Message(day, "", text)
    return Message(day, name.strip().lstrip("~").strip(), text.strip(_MARKS))
