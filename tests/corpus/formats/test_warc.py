"""Web archives as warcio writes them, and as crawlers publish their text."""

import io

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from tests.corpus.formats.reading import read, refusal
from tests.corpus.formats.test_html import PAGE, SENTENCES


def archive(path, *, gzip):
    with open(path, "wb") as stream:
        writer = WARCWriter(stream, gzip=gzip)
        writer.write_record(writer.create_warcinfo_record("a.warc", {"software": "none"}))
        for status, kind, content in (
            ("200 OK", "text/html; charset=latin-1", PAGE.replace("utf-8", "x").encode("latin-1")),
            ("404 Not Found", "text/html", b"<p>not found</p>"),
            ("200 OK", "image/png", b"\x89PNG"),
            ("200 OK", "text/plain", "in plain words, é".encode()),
        ):
            headers = StatusAndHeaders(status, [("Content-Type", kind)], protocol="HTTP/1.1")
            writer.write_record(
                writer.create_warc_record(
                    "http://example.org/",
                    "response",
                    payload=io.BytesIO(content),
                    length=len(content),
                    http_headers=headers,
                )
            )
    return path


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
def test_each_page_is_a_document(name, tmp_path):
    documents, counted = read(archive(tmp_path / name, gzip=name.endswith("gz")))
    assert documents[0].split("\n")[-1] == f"Because é {SENTENCES}"
    assert documents[1:] == ["in plain words, é"]
    assert counted == {"boilerplate": 19, "other_records": 3}


def test_extracted_text_is_read_as_it_stands(tmp_path):
    with open(tmp_path / "a.warc.wet.gz", "wb") as stream:
        writer = WARCWriter(stream, gzip=True)
        for text in ("We are all humans.", "Born to make mistakes.\nAll of us."):
            writer.write_record(
                writer.create_warc_record(
                    "http://example.org/",
                    "conversion",
                    payload=io.BytesIO(text.encode()),
                    length=len(text.encode()),
                    warc_content_type="text/plain",
                )
            )
    texts = ["We are all humans.", "Born to make mistakes.\nAll of us."]
    assert read(tmp_path / "a.warc.wet.gz") == (texts, {})


def test_what_is_none_is_said_in_one_line(tmp_path):
    (tmp_path / "a.warc").write_text("We are all humans.")
    assert "damaged, or no web archive" in refusal(tmp_path / "a.warc")
