"""HTML: the text a page is about, without the menus around it; or all the text there is.

Pages of the Web are read by trafilatura, which finds what a page is about. Chapters of books and
mails are all text, which inscriptis lays out as a browser would.
"""

import contextlib
import re
from typing import Any

from nextword.corpus.packages import import_package
from nextword.corpus.source import Source

EXTRA = "documents"
SHORT_PAGE, LITTLE = 100, 0.2
"""Words of a page, and the share of them around its text, below which all of it is text."""
_CHARSET = re.compile(
    rb"<(?:meta[^>]{0,200}charset|\?xml[^>]{0,200}encoding)\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE
)
_MEANT_AS_WINDOWS = ("iso-8859-1", "iso8859-1", "latin1", "latin-1", "us-ascii", "ascii")
"""Names that stand for Windows-1252 on the Web (WHATWG's encodings)."""
_LOOK_BYTES = 4096
_WORD = re.compile(r"\w\S*")
_UNSEEN = ("script", "style", "template", "noscript")


def main_text(raw: bytes, source: Source, charset: str = "") -> str:
    """Return what a page is about; what stands around it is counted.

    Where no text stands out, as on a page of a few lines, all of it is returned, and counted.

    Args:
        raw: the page's bytes.
        source: where it was read.
        charset: as the page's server said; what the page says itself comes second.
    """
    trafilatura = import_package("trafilatura", source.name, EXTRA)
    page = decode(raw, source, charset)
    everything = all_text(page, source)
    found = trafilatura.extract(page, include_comments=False, favor_recall=True) or ""
    if not found.strip():
        if everything.strip():
            source.tally.add("read_whole", source.place)
        return everything
    words = _words(everything)
    around = words - _words(found)
    if words < SHORT_PAGE and around <= LITTLE * words:
        return everything  # laid out as a browser does, which what is found is not
    source.tally.add("boilerplate", source.place, around)
    return str(found)


def all_text(page: str, source: Source) -> str:
    """Return all that a browser would show of a page, paragraph by paragraph."""
    inscriptis = import_package("inscriptis", source.name, EXTRA)
    etree: Any = import_package("lxml.etree", source.name, EXTRA)
    html: Any = import_package("lxml.html", source.name, EXTRA)
    page = page.replace("\0", "")
    try:
        parsed = html.document_fromstring(
            page.encode("utf-8", "replace"),
            parser=html.HTMLParser(encoding="utf-8", huge_tree=True),
        )
    except (etree.LxmlError, ValueError):  # nothing but comments, say
        return ""
    etree.strip_elements(parsed, *_UNSEEN, with_tail=False)
    strict = import_package("inscriptis.css_profiles", source.name, EXTRA).CSS_PROFILES["strict"]
    config = import_package("inscriptis.model.config", source.name, EXTRA)
    try:
        text: str = inscriptis.Inscriptis(parsed, config.ParserConfig(css=strict)).get_text()
    except RecursionError:  # a page whose marks nobody closed: its words, without a layout
        text = "\n".join(filter(None, (part.strip() for part in parsed.itertext())))
    lines = [line.rstrip() for line in text.splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def _words(text: str) -> int:
    return len(_WORD.findall(text))


def decode(raw: bytes, source: Source, charset: str = "") -> str:
    """Decode a page as browsers do: as is said of it, as UTF-8, or as Windows-1252.

    Args:
        raw: the page's bytes.
        source: where it was read; what is no character is counted there.
        charset: as the page's server said; what the page says itself comes second.
    """
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        charset = "utf-16"
    said = _CHARSET.search(raw[:_LOOK_BYTES])
    for name in filter(
        None, (charset, said[1].decode("ascii", "replace") if said else "", "utf-8")
    ):
        name = "cp1252" if name.lower() in _MEANT_AS_WINDOWS else name
        with contextlib.suppress(LookupError, UnicodeError, ValueError):
            return raw.decode(name).removeprefix("\ufeff")
    text = raw.decode("cp1252", "replace")
    source.tally.add("replaced", source.place, text.count("\ufffd"))
    return text
