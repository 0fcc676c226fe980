"""Subtitles (SRT, WebVTT, SSA): a film a document, without times, colours and positions."""

from collections.abc import Iterator

from nextword.base.errors import CorpusError
from nextword.corpus.documents import Piece
from nextword.corpus.options import CorpusSettings
from nextword.corpus.packages import import_package
from nextword.corpus.source import Source

SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield what is said, a subtitle a line.

    Raises:
        CorpusError: the file is none of these.
    """
    del settings
    pysubs2 = import_package("pysubs2", source.name, "documents")
    text = "".join(source.read_text())
    try:
        film = pysubs2.SSAFile.from_string(text)
    except (pysubs2.exceptions.Pysubs2Error, ValueError, IndexError):
        raise CorpusError(f"{source.name}: no subtitles with times in this file") from None
    shown = [
        " ".join(line.strip() for line in one.plaintext.splitlines() if line.strip())
        for one in film
        if not one.is_comment
    ]
    yield Piece("\n".join(line for line in shown if line), True)
