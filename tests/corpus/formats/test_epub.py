"""EPUB as pandoc writes it, and as the standard lets others."""

import zipfile

import pytest

from tests.corpus.formats.reading import read, refusal

CONTAINER = (
    '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" '
    'version="1.0"><rootfiles><rootfile full-path="OPS/book.opf" '
    'media-type="application/oebps-package+xml"/></rootfiles></container>'
)
PACKAGE = (
    '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0"><manifest>'
    '<item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
    '<item id="b" href="text/two%20b.xhtml" media-type="application/xhtml+xml"/>'
    '<item id="a" href="text/one.xhtml" media-type="application/xhtml+xml"/>'
    '<item id="c" href="cover.png" media-type="image/png"/>'
    '</manifest><spine><itemref idref="n"/><itemref idref="c"/><itemref idref="a"/>'
    '<itemref idref="b"/></spine></package>'
)


def page(text):
    return (
        '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head>'
        f"<title>t</title><style>p{{}}</style></head><body><p>{text}</p></body></html>"
    )


def book(path, **changed):
    parts = {
        "META-INF/container.xml": CONTAINER,
        "OPS/book.opf": PACKAGE,
        "OPS/nav.xhtml": page("Contents"),
        "OPS/text/one.xhtml": page("We are all <i>humans</i>, één."),
        "OPS/text/two b.xhtml": page("Born to<br/>make mistakes."),
    } | changed
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def test_chapters_come_in_the_order_of_reading(tmp_path):
    found = read(book(tmp_path / "a.epub"))
    assert found == (["We are all humans, één.\n\nBorn to\nmake mistakes."], {})


def test_pandocs_books_are_read(tmp_path):
    pypandoc = pytest.importorskip("pypandoc", reason="pandoc is not installed")
    markdown = "% A Book\n\n# One\n\nWe *are* all humans.\n\n# Two\n\nBorn to make mistakes."
    file = tmp_path / "a.epub"
    pypandoc.convert_text(markdown, "epub", "markdown", outputfile=str(file))
    texts = ["A Book", "One", "We are all humans.", "Two", "Born to make mistakes."]
    assert read(file) == (["\n\n".join(texts)], {})


def test_what_is_none_is_said_in_one_line(tmp_path):
    (tmp_path / "a.epub").write_text("We are all humans.")
    assert "damaged, or not an EPUB" in refusal(tmp_path / "a.epub")
    for changed in (
        {"OPS/book.opf": "<package"},
        {"META-INF/container.xml": "<container/>"},
        {"OPS/book.opf": PACKAGE.replace("one.xhtml", "none.xhtml")},
    ):
        assert "damaged, or not an EPUB" in refusal(book(tmp_path / "b.epub", **changed))


def test_entities_of_xml_are_not_opened(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    doctype = f'<!DOCTYPE html [<!ENTITY x SYSTEM "file://{secret}">]>'
    changed = page("We are &x; all humans.").replace("<html", f"{doctype}<html")
    (text,), _ = read(book(tmp_path / "a.epub", **{"OPS/text/one.xhtml": changed}))
    assert "secret" not in text
