"""HTML: a file a document, without the menus and notices around its text."""

from collections.abc import Iterator

from nextword.corpus.documents import Piece
from nextword.corpus.markup import main_text
from nextword.corpus.options import CorpusSettings
from nextword.corpus.source import Source

SUFFIXES = (".html", ".htm", ".xhtml")
NEEDS = "trafilatura"


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the page's text."""
    del settings
    yield Piece(main_text(b"".join(source.read_bytes()), source), True)
