"""PDF, read by PDFium: a file a document, without the lines that repeat at its pages' edges."""

import re
from collections.abc import Iterator
from typing import Any

from nextword.base.errors import CorpusError
from nextword.corpus.documents import Piece
from nextword.corpus.options import CorpusSettings
from nextword.corpus.packages import import_package, one_line
from nextword.corpus.source import Source
from nextword.corpus.typeset import PARTED, Line, join_words, paragraphs, without_edges

SUFFIXES = (".pdf",)
NEEDS = "pypdfium2"
_ENDS = re.compile(f"(?<=\r\n)|(?<={PARTED})")
"""Where a line ends; a word that is parted there has no line break of its own."""


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the text of all pages as one document.

    Raises:
        CorpusError: the file is damaged, needs a password, or holds pictures of text alone.
    """
    del settings
    pdfium = import_package("pypdfium2", source.name, "documents")
    with source.local_path() as path:
        try:
            pages = _pages(pdfium, path)
        except pdfium.PdfiumError as error:
            needs_password = "password" in str(error).lower()
            raise CorpusError(
                f"{source.name}: "
                + (
                    "needs a password; save it without one"
                    if needs_password
                    else f"damaged, or not a PDF ({one_line(error)}); fetch it again"
                )
            ) from None
    without_text = [number for number, page in enumerate(pages, 1) if not page]
    if len(without_text) == len(pages):
        raise CorpusError(
            f"{source.name}: no text in its {len(pages):,} pages, which are pictures of it; have "
            "them recognized first, as ocrmypdf does"
        )
    if without_text:
        source.here = f"page {without_text[0]}"
        source.tally.add("pictures", source.place, len(without_text))
        source.here = ""
    kept, taken = without_edges(pages)
    source.tally.add("edges", source.name, taken)
    text, joined = join_words(paragraphs(kept))
    source.tally.add("parted", source.name, joined)
    yield Piece(text, True)


def _pages(pdfium: Any, path: str) -> list[list[Line]]:
    with pdfium.PdfDocument(path) as document:
        pages = []
        for number in range(len(document)):
            page = document[number]
            text = page.get_textpage()
            pages.append(list(_lines(text)))
            text.close()
            page.close()
        return pages


def _lines(page: Any) -> Iterator[Line]:
    """Take a page's lines, each with the box of its first and last character."""
    end = 0
    for line in _ENDS.split(page.get_text_range()):
        start, end = end, end + _units(line)  # PDFium counts as UTF-16 does
        shown = line.strip().replace("\0", "")
        if not shown:
            continue
        first = start + _units(line[: line.index(shown[0])])
        left, bottom, _, top = page.get_charbox(min(first, page.count_chars() - 1), loose=True)
        last = min(first + _units(shown), page.count_chars()) - 1
        _, _, right, _ = page.get_charbox(last, loose=True)
        yield Line(shown, left, right, top, bottom)


def _units(text: str) -> int:
    return len(text) + sum(letter > "\uffff" for letter in text)
