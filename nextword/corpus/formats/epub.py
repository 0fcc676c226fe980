"""EPUB: a book a document, its chapters in the order in which they are read."""

import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from nextword.base.errors import CorpusError
from nextword.corpus.archives import open_archive
from nextword.corpus.documents import Piece
from nextword.corpus.markup import EXTRA, all_text, decode
from nextword.corpus.options import CorpusSettings
from nextword.corpus.packages import import_package
from nextword.corpus.source import Source

SUFFIXES = (".epub",)
NEEDS = "inscriptis"
_CONTAINER = "META-INF/container.xml"
_PAGES = ("application/xhtml+xml", "text/html")


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the book's text, chapter by chapter; its table of contents is left out.

    Raises:
        CorpusError: it is damaged, locked, or no EPUB.
    """
    del settings
    lxml: Any = import_package("lxml.etree", source.name, EXTRA)
    with open_archive(source, "an EPUB") as book:
        try:
            chapters = _chapters(book, lxml)
        except (lxml.LxmlError, IndexError, ValueError):
            raise CorpusError(f"{source.name}: damaged, or not an EPUB; fetch it again") from None
        between = ""
        for chapter in chapters:
            text = all_text(decode(book.read(chapter), source), source).strip()
            if text:
                yield Piece(between + text, False)
                between = "\n\n"
        yield Piece("", True)


def _chapters(book: zipfile.ZipFile, lxml: Any) -> list[str]:
    """List the pages of the spine (EPUB 3.3, section 5.7), but for navigation."""
    parser = lxml.XMLParser(resolve_entities=False, no_network=True)
    container = lxml.fromstring(book.read(_CONTAINER), parser)
    package = container.xpath("//*[local-name()='rootfile']/@full-path")[0]
    content = lxml.fromstring(book.read(package), parser)
    items = {}
    for item in content.xpath("//*[local-name()='manifest']/*[local-name()='item']"):
        is_text = (
            item.get("media-type") in _PAGES and "nav" not in item.get("properties", "").split()
        )
        if is_text:
            href = unquote(item.get("href", ""))
            items[item.get("id")] = posixpath.normpath(
                posixpath.join(posixpath.dirname(package), href)
            )
    order = content.xpath("//*[local-name()='spine']/*[local-name()='itemref']/@idref")
    return [items[name] for name in order if name in items]
