"""WARC and WET, the Web's archives: a page a document, without what stands around its text."""

from collections.abc import Iterator
from typing import Any

from nextword.base.errors import CorpusError
from nextword.corpus.documents import Piece
from nextword.corpus.markup import decode, main_text
from nextword.corpus.options import CorpusSettings
from nextword.corpus.packages import import_package, one_line
from nextword.corpus.source import Source

SUFFIXES = (".warc", ".wet")
NEEDS = "warcio"
_PAGES = ("text/html", "application/xhtml+xml")
_PLAIN = "text/plain"
_READ = ("conversion", "response", "resource")
_FOUND = 200


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the text of each page that was found; other records are counted.

    Raises:
        CorpusError: the archive is damaged or cut short.
    """
    del settings
    warcio = import_package("warcio.archiveiterator", source.name, "documents")
    with source.local_path() as path, open(path, "rb") as stream:
        records = _records(warcio.ArchiveIterator(stream), source)
        for number, (record, content) in enumerate(records, 1):
            source.here = f"record {number}"
            text = _text(record, content, source)
            if text is None:
                source.tally.add("other_records", source.place)
            else:
                yield Piece(text, True)


def _records(archive: Any, source: Source) -> Iterator[tuple[Any, bytes | None]]:
    """Yield each record, with its content where that may be a text."""
    while True:
        try:
            record = next(archive, None)
            if record is None:
                return
            content = _content(record) if record.rec_type in _READ else b""
        except Exception as error:  # of damaged headers warcio trips over what it did not find
            raise CorpusError(
                f"{source.name}, after {source.here or 'its beginning'}: damaged, or no web "
                f"archive ({one_line(error)}); fetch it again"
            ) from None
        yield record, content


def _content(record: Any) -> bytes | None:
    """Read a record's content; None where it is packed in a way that is not known here."""
    try:
        return bytes(record.content_stream().read())
    except AttributeError:
        return None


def _text(record: Any, content: bytes | None, source: Source) -> str | None:
    if record.rec_type not in _READ or content is None:
        return None
    if record.rec_type == "conversion":
        return decode(content, source)
    headers = record.http_headers
    if headers is not None and headers.get_statuscode() != str(_FOUND):
        return None
    told = (headers or record.rec_headers).get_header("Content-Type") or ""
    kind, _, rest = told.partition(";")
    charset = rest.lower().partition("charset=")[2].split(";")[0].strip("\"' ")
    if kind.strip().lower() in _PAGES:
        return main_text(content, source, charset)
    return decode(content, source, charset) if kind.strip().lower() == _PLAIN else None
