"""Plain text: one file, one document."""

from collections.abc import Iterator

from nextword.corpus.documents import Piece
from nextword.corpus.options import CorpusSettings
from nextword.corpus.source import Source

SUFFIXES = (".txt", ".text", ".md", ".rst")


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the file's text block by block, as one document."""
    del settings
    held = ""
    for text in source.read_text():
        if held:
            yield Piece(held, False)
        held = text
    if held:
        yield Piece(held, True)
