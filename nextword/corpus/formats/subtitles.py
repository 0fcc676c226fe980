"""Subtitles (SRT, WebVTT, SSA): a film a document, without times, colours and positions."""

import html
import re
import warnings
from collections.abc import Iterator

from nextword.base.errors import CorpusError
from nextword.corpus.documents import Piece, ending_of
from nextword.corpus.options import CorpusSettings
from nextword.corpus.packages import import_package
from nextword.corpus.source import Source

_MARKS = re.compile(r"<[^<>\n]{1,100}>")
SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")
NEEDS = "pysubs2"


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield what is said, a subtitle a line.

    Raises:
        CorpusError: the file is none of these.
    """
    pysubs2 = import_package("pysubs2", source.name, "documents")
    text = "".join(source.read_text())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 1.9 warns of what looks like half a subtitle
            film = pysubs2.SSAFile.from_string(text)
    except (pysubs2.exceptions.Pysubs2Error, ValueError, IndexError):
        raise CorpusError(f"{source.name}: no subtitles with times in this file") from None
    rolls = ending_of(source.file, settings) == ".vtt"
    shown: list[str] = []
    before: list[str] = []
    for one in film:
        if one.is_comment or one.is_drawing:
            continue
        words = html.unescape(_MARKS.sub("", one.plaintext)).replace("\xa0", " ")
        lines = [line.strip() for line in words.splitlines() if line.strip()]
        # Captions that roll show each line again while the next comes.
        new = [line for line in lines if not (rolls and line in before)]
        before = lines
        if new:
            shown.append(" ".join(new))
    yield Piece("\n".join(shown), True)
