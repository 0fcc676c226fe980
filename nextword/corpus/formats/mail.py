"""Mail (mbox, eml): a message a document, with its subject, without what it quotes."""

import email
import email.policy
import mailbox
import re
from collections.abc import Iterator
from email.message import EmailMessage, MIMEPart

from nextword.corpus.documents import Piece, ending_of
from nextword.corpus.markup import all_text
from nextword.corpus.options import CorpusSettings
from nextword.corpus.source import Source

SUFFIXES = (".mbox", ".eml")
_ESCAPED = ">From "
"""How an mbox writes a line that begins like the next message."""
_QUOTED = re.compile(r"\s*>")
_SIGNATURE = re.compile(r"-- ?$")
_WROTE = re.compile(r"^[^\n]{5,200}(wrote|schrieb|écrit|escribió|ha scritto|schreef)\s?:$")


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield each message's subject and text; a part in HTML is read where there is no other.

    Quoted lines, the line that says whom they are of, and signatures are left out, and counted.
    """
    with source.local_path() as path:
        if ending_of(source.file, settings) == ".eml":
            with open(path, "rb") as stream:
                yield Piece(_text(_parse(stream.read()), source), True)
            return
        box = mailbox.mbox(path, create=False)
        try:
            for number, key in enumerate(box.iterkeys(), 1):
                source.here = f"message {number}"
                yield Piece(_text(_parse(box.get_bytes(key)), source), True)
        finally:
            box.close()


def _parse(raw: bytes) -> EmailMessage:
    return email.message_from_bytes(raw, policy=email.policy.default)


def _text(message: EmailMessage, source: Source) -> str:
    part = message.get_body(preferencelist=("plain", "html"))
    body = "" if part is None else _content(part)
    if part is not None and part.get_content_subtype() == "html":
        body = all_text(body, source)
    own = _own_lines(body.replace("\r\n", "\n").rstrip("\n").split("\n"), source)
    subject = " ".join(str(message.get("subject", "")).split())
    return "\n\n".join(filter(None, (subject, "\n".join(own).strip("\n")))) if own else ""


def _content(part: MIMEPart) -> str:
    try:
        return str(part.get_content())
    except (LookupError, ValueError):  # a character set that nobody knows
        raw = part.get_payload(decode=True)
        return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else ""


def _own_lines(lines: list[str], source: Source) -> list[str]:
    end = next((n for n, line in enumerate(lines) if _SIGNATURE.match(line)), len(lines))
    own: list[str] = []
    quoted = 0
    for line in lines[:end]:
        if not _QUOTED.match(line) or line.startswith(_ESCAPED):
            own.append(line.removeprefix(">") if line.startswith(_ESCAPED) else line)
            continue
        quoted += 1
        while own and not own[-1].strip():
            own.pop()
        if own and _WROTE.match(own[-1]):
            own.pop()
            quoted += 1
    source.tally.add("quoted", source.place, quoted + len(lines) - end)
    while own and not own[-1].strip():
        own.pop()
    return own
