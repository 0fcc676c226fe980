"""Open the corpus that paths or settings name; it can be iterated over again and again."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nextword.corpus.builtin import BUILTIN, read_builtin
from nextword.corpus.documents import Piece, find_files, read_pieces, whole_documents
from nextword.corpus.options import CorpusSettings
from nextword.corpus.separators import Separator
from nextword.corpus.split import Corpus
from nextword.corpus.tally import Tally


def open_corpus(paths: Sequence[str], settings: CorpusSettings) -> Corpus:
    """Return the corpus that paths or settings name; what is small is read once and kept.

    A path that is the name of a built-in corpus, where no file is called so, stands for it.
    """
    if len(paths) == 1 and is_builtin(paths[0]):
        settings, paths = replace(settings, builtin=paths[0]), ()
    if paths:
        tally, marks = Tally(), dict[str, Separator | None]()
        files = find_files(paths, before := Tally())
        names = ", ".join(Path(path).name or path for path in paths)

        def read() -> Iterator[Piece]:
            counted = before.copy()
            yield from read_pieces(files, settings, counted, marks)
            tally.take(counted)

        return Corpus(names, _kept(read), tally)
    read_builtin(settings)  # refuses an unknown name now
    read_all = _kept(lambda: whole_documents(read_builtin(settings)))
    return Corpus(settings.builtin, read_all, is_drawn=settings.builtin == "stories")


def is_builtin(path: str) -> bool:
    """Whether a path names a built-in corpus rather than a file or folder."""
    return path in BUILTIN and not os.path.exists(path)


def _kept(
    read: Callable[[], Iterator[Piece]], most: int = 64_000_000
) -> Callable[[], Iterator[Piece]]:
    """Remember the pieces of a corpus that is small, so that it is read and drawn once."""
    kept: list[Piece] = []
    whole = False

    def pieces() -> Iterator[Piece]:
        nonlocal whole
        if whole:
            yield from kept
            return
        kept.clear()
        size = 0
        for piece in read():
            size += len(piece.text)
            if size <= most:
                kept.append(piece)
            yield piece
        whole = size <= most
        if not whole:
            kept.clear()

    return pieces
