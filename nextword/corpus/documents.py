"""Stream documents from files of any format, in bounded memory.

A document arrives in pieces of at most a few million characters, cut where no token reaches across,
so that a text larger than memory is read, encoded and hashed piece by piece.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from nextword.base.errors import CorpusError
from nextword.corpus.addresses import file_name, find_at, is_address
from nextword.corpus.compressions import COMPRESSIONS, split_compression
from nextword.corpus.formats import all_formats, scheme_of
from nextword.corpus.options import CorpusSettings
from nextword.corpus.redact import Redactor
from nextword.corpus.repository import files_of, is_code, is_marked, written_by_people
from nextword.corpus.separators import Separator
from nextword.corpus.source import STANDARD_INPUT, Source
from nextword.corpus.tally import Tally

PIECE_CHARACTERS = 1 << 17
LEAST_CODE = 3
"""Files of code from which on a folder that git knows holds a program, and not a text."""
LONGEST_PIECE = 1 << 20
"""Of a text in which no place to cut is found: there it is cut where it stands, and counted."""
_LETTERS = (
    "0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u0237\u0391-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u05d0-\u05ea\u0620-\u063f\u0641-\u064a\u0904-\u0939\u0e01-\u0e30\u3041-\u3096\u30a1-\u30fa"
    "\u4e00-\u9fa5\uac00-\ud7a3"
)
_AFTER = " \t\n\r,.;:!?()\u3001\u3002\uff0c\uff1a\uff1b\uff01\uff1f"
SAFE_CUT = re.compile(f"(?<=[{_LETTERS}])(?=[{_AFTER}])")
"""After a letter or digit and before white space or a common sign.

There every split pattern in use ends a piece of text, whatever follows: none has letters, then
white space or a sign, in one; and what it looks ahead for is the end of white space only. Letters
and signs are listed that every version of Unicode in use knows as such.
"""


class Piece(NamedTuple):
    """A part of a document, in order; the last one says so."""

    text: str
    is_last: bool


def find_files(paths: Sequence[str], tally: Tally | None = None) -> list[str]:
    """Resolve files, folders (recursively), globs, addresses and "-" to names, sorted in each path.

    Args:
        paths: as given.
        tally: where to count the files of a folder that are of no kind that is read.

    Raises:
        CorpusError: a path does not exist, or a folder or glob holds nothing that can be read.
    """
    found: list[str] = []
    for path in paths:
        found.extend(_find(path, Tally() if tally is None else tally))
    return list(dict.fromkeys(found))


def _find(path: str, tally: Tally) -> list[str]:
    if path == STANDARD_INPUT or os.path.isfile(path) or scheme_of(path):
        return [path]
    if is_address(path):
        return find_at(path, _is_readable_far) or _refuse_folder(path)
    if os.path.isdir(path):
        return _find_in_folder(path, tally) or _refuse_folder(path)
    if glob.has_magic(path):
        matches = sorted(filter(os.path.isfile, _match(path)))
        if not matches:
            raise CorpusError(f"{path}: no file matches this pattern")
        return matches
    raise CorpusError(f"{path}: no such file or folder; check the spelling")


def _find_in_folder(path: str, tally: Tally) -> list[str]:
    """List the texts of a folder; of one that holds a program, its code and prose."""
    inside = sorted(str(file) for file in Path(path).rglob("*") if file.is_file())
    marked = is_marked(path)
    # Whoever trains in a folder and reads all of it means the texts.
    known = set(inside)
    runs = {
        Path(file).parent
        for file in inside
        if Path(file).name == "run.json" and str(Path(file).with_name("settings.toml")) in known
    }
    for file in inside if runs else ():
        if not runs.isdisjoint(Path(file).parents):
            tally.add("other_files", file)
            known.discard(file)
    inside = [file for file in inside if file in known]
    readable = list(filter(_is_readable_in_folder, inside))
    own = files_of(path) if marked and sum(map(is_code, inside)) >= LEAST_CODE else []
    code, data = sum(map(is_code, own)), sum(not _is_prose(file) for file in readable)
    if code >= LEAST_CODE and code > data:
        kept = set(own)
        for file in readable:
            tally.add("ignored", file, file not in kept)
        return written_by_people(path, own, _is_prose, tally)
    if not readable and any(map(is_code, inside)):
        return written_by_people(path, own or inside, _is_prose, tally)
    for file in sorted(set(inside).difference(readable)):
        tally.add("other_files", file)
    return readable


def _match(pattern: str) -> Iterator[str]:
    """Yield what a pattern fits; no link to a folder is followed by **, for it may lead back."""
    if "**" not in pattern:
        yield from glob.iglob(pattern)
        return
    asked = Path(pattern)
    root = Path(asked.anchor)
    below = asked.relative_to(asked.anchor) if asked.anchor else asked
    if below.name == "**":
        below = below / "*"
    hidden = [part for part in below.parts if part.startswith(".")]  # those that are asked for
    for found in root.glob(str(below)):
        parts = found.relative_to(root).parts
        if all(_is_shown(part, hidden) for part in parts):
            yield str(found)


def _is_shown(name: str, hidden: Sequence[str]) -> bool:
    return not name.startswith(".") or any(fnmatch(name, part) for part in hidden)


def _refuse_folder(path: str) -> list[str]:
    endings, compressions = ", ".join(sorted(all_formats())), ", ".join(COMPRESSIONS)
    raise CorpusError(
        f"{path}: no text in this folder; expected files ending in {endings} (or those with "
        f"{compressions})"
    )


def read_pieces(
    files: Iterable[str],
    settings: CorpusSettings,
    tally: Tally | None = None,
    marks: dict[str, Separator | None] | None = None,
) -> Iterator[Piece]:
    """Yield the documents of all files in order, piece by piece; empty documents are left out.

    Args:
        files: their names.
        settings: how they are read.
        tally: where to count what is not read as it stands.
        marks: what parts the documents of files looked into before; added to.

    Raises:
        CorpusError: a file is empty, damaged or cannot be read; the message names it.
    """
    formats = all_formats()
    tally = Tally() if tally is None else tally
    empty = ""
    any_text = False
    for file in files:
        source = Source(file, settings.errors, tally, marks)
        tally.file = source.name
        format_ = scheme_of(file) or formats.get(ending_of(file, settings), formats[".txt"])
        records, has_text = tally.records, False
        chunks = format_.read(source, settings)
        if settings.redact:
            chunks = _redacted(chunks, source)
        for piece in cut(_counted(chunks, source), source):
            any_text = has_text = True
            yield piece
        if not has_text:
            empty = empty or source.name
            if tally.records == records:
                tally.records += 1
                tally.add("empty", source.name)
    if empty and not any_text:
        raise CorpusError(f"{empty}: this file holds no text; leave it out or put text in it")


def _redacted(chunks: Iterable[Piece], source: Source) -> Iterator[Piece]:
    redactor = Redactor(source.tally)
    for text, is_last in chunks:
        yield Piece(redactor.take(text, source.place, is_last=is_last), is_last)


def _counted(chunks: Iterable[Piece], source: Source) -> Iterator[Piece]:
    """Count documents, and those without a text, which end here."""
    is_empty = True
    for chunk in chunks:
        is_empty = is_empty and not chunk.text
        if chunk.is_last:
            source.tally.records += 1
            if is_empty:
                source.tally.add("empty", source.place)
        if not (is_empty and chunk.is_last):
            yield chunk
        is_empty = is_empty or chunk.is_last


def ending_of(file: str, settings: CorpusSettings) -> str:
    """Return the ending that tells a file's format: its name's own, or the one that was asked."""
    if settings.format != "auto":
        return f".{settings.format}"
    return _named_ending(file)


def cut(
    chunks: Iterable[Piece], source: Source | None = None, *, strict: bool = False
) -> Iterator[Piece]:
    """Regroup a document's chunks into pieces that end where no token reaches across.

    The pieces' tokens are the whole document's, for every kind of vocabulary that is built here.

    Args:
        chunks: of documents, as they were read.
        source: where to count a text that is cut where it stands.
        strict: cut none where it stands.

    Raises:
        CorpusError: strict, and there is no place to cut.
    """
    held = ""
    for chunk in chunks:
        held += chunk.text
        start = 0
        while len(held) - start > PIECE_CHARACTERS and (end := _place_to_cut(held, start)):
            if end < 0:
                end = -end
                if strict:
                    raise CorpusError(
                        f"{LONGEST_PIECE:,} characters hold no place where no token reaches across"
                    )
                if source is not None:
                    source.tally.add("cut", source.place)
            yield Piece(held[start:end], False)
            start = end
        held = held[start:]
        if chunk.is_last:
            if held:
                yield Piece(held, True)
            held = ""


def _place_to_cut(held: str, start: int) -> int:
    """Return where a piece that begins at `start` ends: negative where it is cut as it stands.

    0 where nothing is known before more is read.
    """
    limit, last = start + PIECE_CHARACTERS, start + LONGEST_PIECE
    for span in (1 << 8, 1 << 12, PIECE_CHARACTERS):
        first = max(limit - span, start + 1)
        places = [place.start() for place in SAFE_CUT.finditer(held, first, limit + 1)]
        if places:
            return places[-1]
    if place := SAFE_CUT.search(held, limit, last + 1):
        return place.start()
    return -last if len(held) > last else 0


def read_documents(paths: Sequence[str], settings: CorpusSettings) -> list[str]:
    """Return the documents of files or folders, each whole."""
    documents, held = [], ""
    for piece in read_pieces(find_files(paths), settings):
        held += piece.text
        if piece.is_last:
            documents.append(held)
            held = ""
    return documents


def whole_documents(documents: Iterable[str]) -> Iterator[Piece]:
    """Turn whole texts into pieces."""
    return cut(Piece(text, True) for text in documents if text)


def _named_ending(file: str) -> str:
    return Path(split_compression(file_name(file))[0]).suffix.lower()


def looks_readable(file: str) -> bool:
    """Whether a name ends as those of files that can be read here."""
    return _named_ending(file) in all_formats()


def _is_prose(file: str) -> bool:
    return all_formats().get(_named_ending(file)) is all_formats()[".txt"]


def _is_readable_in_folder(file: str) -> bool:
    """Whether a file is read that nobody named: one ending may be a text's, or settings'."""
    if not _is_readable(file):
        return False
    format_ = all_formats()[_named_ending(file)]
    if (package := getattr(format_, "NEEDS", None)) and find_spec(package) is None:
        return False  # whoever names the file is told what it needs
    recognizes = getattr(format_, "recognizes", None)
    return recognizes is None or recognizes(Source(file, "replace"))


def _is_readable_far(file: str) -> bool:
    """The same of a file that is not here: what its ending does not tell is not looked into."""
    return _is_readable(file) and not hasattr(all_formats()[_named_ending(file)], "recognizes")


def _is_readable(file: str) -> bool:
    return _named_ending(file) in all_formats() and not Path(file_name(file)).name.startswith(".")
