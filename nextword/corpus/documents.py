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
from nextword.corpus.addresses import file_name, find_at, is_address
from nextword.corpus.compressions import COMPRESSIONS, split_compression
from nextword.corpus.formats import all_formats, scheme_of
from nextword.corpus.options import CorpusSettings
from nextword.corpus.source import STANDARD_INPUT, Source

PIECE_CHARACTERS = 1 << 17
_SAFE_CUT = re.compile(r"\n(?=\S)")


class Piece(NamedTuple):
    """A part of a document, in order; the last one says so."""

    text: str
    is_last: bool


def find_files(paths: Sequence[str]) -> list[str]:
    """Resolve files, folders (recursively), globs, addresses and "-" to names, sorted in each path.

    Raises:
        CorpusError: a path does not exist, or a folder or glob holds nothing that can be read.
    """
    found: list[str] = []
    for path in paths:
        found.extend(_find(path))
    return list(dict.fromkeys(found))


def _find(path: str) -> list[str]:
    if path == STANDARD_INPUT or os.path.isfile(path) or scheme_of(path):
        return [path]
    if is_address(path):
        return find_at(path, _is_readable) or _refuse_folder(path)
    if os.path.isdir(path):
        inside = (str(file) for file in Path(path).rglob("*") if file.is_file())
        return sorted(filter(_is_readable, inside)) or _refuse_folder(path)
    if glob.has_magic(path):
        matches = sorted(filter(os.path.isfile, glob.glob(path, recursive=True)))
        if not matches:
            raise CorpusError(f"{path}: no file matches this pattern")
        return matches
    raise CorpusError(f"{path}: no such file or folder; check the spelling")


def _refuse_folder(path: str) -> list[str]:
    endings, compressions = ", ".join(sorted(all_formats())), ", ".join(COMPRESSIONS)
    raise CorpusError(
        f"{path}: no text in this folder; expected files ending in {endings} (or those with "
        f"{compressions})"
    )


def read_pieces(files: Iterable[str], settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the documents of all files in order, piece by piece; empty documents are left out.

    Raises:
        CorpusError: a file is empty, damaged or cannot be read; the message names it.
    """
    formats = all_formats()
    for file in files:
        source = Source(file, settings.errors)
        format_ = scheme_of(file) or formats.get(ending_of(file, settings), formats[".txt"])
        any_text = False
        for piece in cut(format_.read(source, settings)):
            any_text = True
            yield piece
        if not any_text:
            raise CorpusError(
                f"{source.name}: this file holds no text; leave it out or put text in it"
            )


def ending_of(file: str, settings: CorpusSettings) -> str:
    """Return the ending that tells a file's format: its name's own, or the one that was asked."""
    if settings.format != "auto":
        return f".{settings.format}"
    return _named_ending(file)


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
        start = 0
        while len(held) - start > PIECE_CHARACTERS:
            limit = start + PIECE_CHARACTERS
            places = [place.end() for place in _SAFE_CUT.finditer(held, start, limit + 1)]
            # A line longer than a piece is cut where it stands: memory stays bounded, one token
            # may differ.
            end = places[-1] if places else limit
            yield Piece(held[start:end], False)
            start = end
        held = held[start:]
        if chunk.is_last:
            if held:
                yield Piece(held, True)
            held = ""


def whole_documents(documents: Iterable[str]) -> Iterator[Piece]:
    """Turn whole texts into pieces."""
    return cut(Piece(text, True) for text in documents if text)


def _named_ending(file: str) -> str:
    return Path(split_compression(file_name(file))[0]).suffix.lower()


def looks_readable(file: str) -> bool:
    """Whether a name ends as those of files that can be read here."""
    return _named_ending(file) in all_formats()


def _is_readable(file: str) -> bool:
    return _named_ending(file) in all_formats() and not Path(file_name(file)).name.startswith(".")
