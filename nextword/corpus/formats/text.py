"""Plain text: one file, one document; or several, with a mark between any two.

Known by their beginning: a chat that WhatsApp exported, and the front matter of Markdown files.
"""

import re
from collections.abc import Iterator

from nextword.corpus.chats import documents, is_whatsapp, whatsapp
from nextword.corpus.documents import Piece
from nextword.corpus.options import CorpusSettings
from nextword.corpus.repository import is_code
from nextword.corpus.separators import AUTO, BLANK_LINES, NONE, Separator, asked, find_mark
from nextword.corpus.source import Source

_FRONT_MATTER = re.compile(
    r"---[ \t]*\r?\n(?:\w[\w-]*:[^\r\n]*\r?\n|[ \t-](?!--[ \t]*\r?\n)[^\r\n]*\r?\n|\r?\n)+"
    r"---[ \t]*\r?\n\s*"
)
"""Each line can be read in one way only, or a long file would be tried in very many."""
SUFFIXES = (".txt", ".text", ".md", ".rst")


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the file's text block by block: one document, or those that a separator parts."""
    if settings.separator == AUTO and is_whatsapp(next(source.unnoticed().read_text(), "")):
        yield from documents(whatsapp(source), source)
        return
    separator = _separator(source, settings)
    if separator is None:
        held = ""
        for text in _own_text(source):
            if held:
                yield Piece(held, False)
            held = text
        if held:
            yield Piece(held, True)
        return
    yield from _parts(source, separator)


def _separator(source: Source, settings: CorpusSettings) -> Separator | None:
    if settings.separator == NONE or (settings.separator == AUTO and is_code(source.file)):
        return None
    if settings.separator != AUTO:
        return asked(settings.separator)
    if source.file not in source.marks:
        source.marks[source.file] = find_mark(source.unnoticed().read_text())
    return source.marks[source.file]


def _own_text(source: Source) -> Iterator[str]:
    """Read the text, but for what stands before a Markdown file's: titles and tags for programs."""
    blocks = source.read_text()
    if source.file.lower().endswith(".md"):
        first = next(blocks, "")
        if front := _FRONT_MATTER.match(first):
            source.tally.add("front_matter", source.name)
        yield first[front.end() if front else 0 :]
    yield from blocks


def _parts(source: Source, separator: Separator) -> Iterator[Piece]:
    """Yield the parts; one of white space alone is empty, and at the file's ends is none at all."""
    number, blank, begun = 1, "", False
    for text, ends in separator.divide(source.read_text()):
        if not begun and not text.strip():
            blank += text
        else:
            yield Piece(blank + text, False)
            blank, begun = "", True
        if ends is None:
            continue
        source.here = f"document {number}"
        source.tally.add("separators", f"{source.name}: {separator.name.strip() or 'form feed'!r}")
        if begun:
            yield Piece("", True)
        elif number > 1 and separator.name != BLANK_LINES:
            source.tally.records += 1
            source.tally.add("empty", source.place)
        number, blank, begun = number + (begun or number > 1), "", False
    if begun:
        yield Piece("", True)
