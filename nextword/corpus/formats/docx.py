"""DOCX: a file a document, its paragraphs and tables in order; headers and footers stand apart."""

from collections.abc import Iterator
from typing import Any

from nextword.base.errors import CorpusError
from nextword.corpus.archives import open_archive
from nextword.corpus.documents import Piece
from nextword.corpus.options import CorpusSettings
from nextword.corpus.packages import import_package
from nextword.corpus.source import Source

SUFFIXES = (".docx",)
NEEDS = "docx"
_DOCUMENT = "word/document.xml"


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the file's paragraphs, an empty line between any two; a table's row is one line.

    Raises:
        CorpusError: the file is damaged, locked, or no DOCX.
    """
    del settings
    docx = import_package("docx", source.name, "documents")
    with open_archive(source, "a DOCX") as archive:
        archive.getinfo(_DOCUMENT)  # KeyError: told as damaged
        assert archive.filename is not None  # it was opened by name
        try:
            document = docx.Document(archive.filename)
        except Exception as error:  # python-docx says what it met: KeyError, ValueError, lxml's own
            raise CorpusError(
                f"{source.name}: damaged, or not a DOCX ({type(error).__name__}); save it again"
            ) from None
        between = ""
        for text in _blocks(document.element.body):
            if text.strip():
                yield Piece(between + text.replace("\0", ""), False)
                between = "\n\n"
        yield Piece("", True)


_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_LEFT_OUT = frozenset(_W + name for name in ("del", "moveFrom", "sectPr", "pPr", "tblPr", "tcPr"))
"""What was deleted, where a text was moved from, and properties."""
_SIGNS = {_W + "tab": "\t", _W + "br": "\n", _W + "cr": "\n", _W + "noBreakHyphen": "-"}


def _blocks(parent: Any) -> Iterator[str]:
    """Yield the texts of paragraphs and tables, also of those that stand in others' frames."""
    for child in parent:
        if child.tag == _W + "p":
            yield "".join(_words(child))
        elif child.tag == _W + "tbl":
            yield "\n".join(_rows(child))
        elif isinstance(child.tag, str) and child.tag not in _LEFT_OUT:
            yield from _blocks(child)


def _words(parent: Any) -> Iterator[str]:
    for child in parent:
        if child.tag == _W + "t":
            yield child.text or ""
        elif child.tag in _SIGNS:
            yield _SIGNS[child.tag]
        elif isinstance(child.tag, str) and child.tag not in _LEFT_OUT:
            yield from _words(child)


def _rows(table: Any) -> Iterator[str]:
    """Yield a table's rows; a cell that is merged with the one above is empty."""
    for row in table.iter(_W + "tr"):
        if next(row.iterancestors(_W + "tbl")) is not table:
            continue  # of a table in a cell, which stands there
        cells = []
        for cell in row.iter(_W + "tc"):
            if next(cell.iterancestors(_W + "tr")) is row:
                merged = cell.find(f"{_W}tcPr/{_W}vMerge")
                goes_on = merged is not None and merged.get(_W + "val") != "restart"
                cells.append("" if goes_on else " ".join(filter(None, _blocks(cell))))
        yield "\t".join(cells)
