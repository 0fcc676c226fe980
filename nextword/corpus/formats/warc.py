"""WARC and WET, the Web's archives: a page a document, without what stands around its text."""

from collections.abc import Iterator
from typing import Any

from nextword.base.errors import CorpusError
from nextword.corpus.documents import Piece
from nextword.corpus.markup import main_text
from nextword.corpus.options import CorpusSettings
from nextword.corpus.packages import import_package, one_line
from nextword.corpus.source import Source

SUFFIXES = (".warc", ".wet")
_PAGES = ("text/html", "application/xhtml+xml")
_PLAIN = "text/plain"
_FOUND = 200


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the text of each page that was found; other records are counted.

    Raises:
        CorpusError: the archive is damaged or cut short.
    """
    del settings
    warcio = import_package("warcio.archiveiterator", source.name, "documents")
    errors = import_package("warcio.exceptions", source.name, "documents")
    with source.local_path() as path, open(path, "rb") as stream:
        try:
            for number, record in enumerate(warcio.ArchiveIterator(stream), 1):
                source.here = f"record {number}"
                text = _text(record, source)
                if text is None:
                    source.tally.add("other_records", source.place)
                else:
                    yield Piece(text, True)
        except (errors.ArchiveLoadFailed, EOFError, ValueError) as error:
            raise CorpusError(
                f"{source.place}: damaged, or no web archive ({one_line(error)}); fetch it again"
            ) from None


def _text(record: Any, source: Source) -> str | None:
    if record.rec_type == "conversion":
        return source.decode(_content(record))
    if record.rec_type not in ("response", "resource"):
        return None
    headers = record.http_headers
    if headers is not None and headers.get_statuscode() != str(_FOUND):
        return None
    told = (headers or record.rec_headers).get_header("Content-Type") or ""
    kind, _, rest = told.partition(";")
    charset = rest.partition("charset=")[2].split(";")[0].strip("\"' ")
    if kind.strip().lower() in _PAGES:
        return main_text(_content(record), source, charset)
    return source.decode(_content(record)) if kind.strip().lower() == _PLAIN else None


def _content(record: Any) -> bytes:
    return bytes(record.content_stream().read())
