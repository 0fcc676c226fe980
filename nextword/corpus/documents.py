"""Read paths as a stream of documents, whatever the format, in bounded memory.

A document arrives in pieces of at most a few million characters, cut where no token reaches across,
so that a text larger than memory is read, encoded and hashed piece by piece.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nextword.base.errors import CorpusError
from nextword.corpus.formats import all_formats
from nextword.corpus.options import CorpusSettings
from nextword.corpus.source import COMPRESSIONS, STANDARD_INPUT, Source

PIECE_CHARACTERS = 1 << 17
_SAFE_CUT = re.compile(r"\n(?=\S)")


class Piece(NamedTuple):
    """A part of a document, in order; the last one says so."""

    text: str
    is_last: bool


def find_files(paths: Sequence[str]) -> list[str]:
    """Resolve files, folders (recursively), globs and "-" to file names, sorted within each path.

    Raises:
        CorpusError: a path does not exist, or a folder or glob holds nothing that can be read.
    """
    found: list[str] = []
    for path in paths:
        if path == STANDARD_INPUT or os.path.isfile(path):
            found.append(path)
        elif os.path.isdir(path):
            inside = sorted(
                str(file) for file in Path(path).rglob("*") if file.is_file() and _is_text(file)
            )
            if not inside:
                endings = ", ".join(sorted(all_formats()))
                raise CorpusError(
                    f"{path}: no text in this folder; expected files ending in {endings} (or "
                    "those with .gz)"
                )
            found.extend(inside)
        elif glob.has_magic(path):
            matches = sorted(
                match for match in glob.glob(path, recursive=True) if os.path.isfile(match)
            )
            if not matches:
                raise CorpusError(f"{path}: no file matches this pattern")
            found.extend(matches)
        else:
            raise CorpusError(f"{path}: no such file or folder; check the spelling")
    return list(dict.fromkeys(found))


def read_pieces(files: Iterable[str], settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the documents of all files in order, piece by piece; empty documents are left out.

    Raises:
        CorpusError: a file is empty, damaged or cannot be read; the message names it.
    """
    formats = all_formats()
    for file in files:
        source = Source(file, settings.errors)
        format_ = formats.get(_ending(file), formats[".txt"])
        any_text = False
        for piece in cut(format_.read(source, settings)):
            any_text = True
            yield piece
        if not any_text:
            raise CorpusError(
                f"{source.name}: this file holds no text; leave it out or put text in it"
            )


def cut(chunks: Iterable[Piece]) -> Iterator[Piece]:
    """Regroup a document's chunks into pieces that end where no token reaches across.

    Before a line's first letter.

    Both split patterns in use (GPT-2's and Qwen2's) begin a new token after a line end that is
    followed by something other than white space, so the pieces' tokens are the whole document's
    tokens.
    """
    held = ""
    for chunk in chunks:
        held += chunk.text
        while len(held) > PIECE_CHARACTERS:
            places = [place.end() for place in _SAFE_CUT.finditer(held, 0, PIECE_CHARACTERS + 1)]
            # A line longer than a piece is cut where it stands: memory stays bounded, one token
            # may differ.
            end = places[-1] if places else PIECE_CHARACTERS
            yield Piece(held[:end], False)
            held = held[end:]
        if chunk.is_last:
            if held:
                yield Piece(held, True)
            held = ""


def whole_documents(documents: Iterable[str]) -> Iterator[Piece]:
    """Turn whole texts into pieces."""
    return cut(Piece(text, True) for text in documents if text)


def _ending(file: str) -> str:
    path = Path(file)
    return (
        Path(path.stem).suffix.lower()
        if path.suffix.lower() in COMPRESSIONS
        else path.suffix.lower()
    )


def _is_text(file: Path) -> bool:
    return _ending(str(file)) in all_formats() and not file.name.startswith(".")
