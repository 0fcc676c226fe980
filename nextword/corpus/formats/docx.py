"""DOCX: a file a document, its paragraphs and tables in order; headers and footers stand apart."""

from collections.abc import Iterator

from nextword.base.errors import CorpusError
from nextword.corpus.archives import open_archive
from nextword.corpus.documents import Piece
from nextword.corpus.options import CorpusSettings
from nextword.corpus.packages import import_package
from nextword.corpus.source import Source

SUFFIXES = (".docx",)
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
        for block in document.iter_inner_content():
            if hasattr(block, "rows"):
                rows = ("\t".join(cell.text for cell in row.cells) for row in block.rows)
                text = "\n".join(rows)
            else:
                text = block.text
            if text.strip():
                yield Piece(between + text.replace("\0", ""), False)
                between = "\n\n"
        yield Piece("", True)
