"""A small good document of each format that people write in, for what damages them."""

import io
import json
import mailbox
import zipfile
from email.message import EmailMessage
from pathlib import Path

LINES = [f"We are all humans, born to make mistake number {number}." for number in range(12)]
_CONTAINER = (
    '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" '
    'version="1.0"><rootfiles><rootfile full-path="book.opf" '
    'media-type="application/oebps-package+xml"/></rootfiles></container>'
)
_PACKAGE = (
    '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0"><manifest>'
    '<item id="a" href="one.xhtml" media-type="application/xhtml+xml"/></manifest>'
    '<spine><itemref idref="a"/></spine></package>'
)


def make_documents(place: Path) -> None:
    """Write them all."""
    paragraphs = "".join(f"<p>{line}</p>" for line in LINES)
    page = f"<html><body><nav>Home About</nav><main>{paragraphs}</main></body></html>"
    (place / "page.html").write_text(page)
    _pdf(place / "document.pdf")
    _docx(place / "document.docx")
    with zipfile.ZipFile(place / "book.epub", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/container.xml", _CONTAINER)
        archive.writestr("book.opf", _PACKAGE)
        archive.writestr("one.xhtml", page)
    box = mailbox.mbox(place / "mails.mbox")
    for line in LINES[:3]:
        mail = EmailMessage()
        mail["Subject"] = "mistakes"
        mail.set_content(f"{line}\n> quoted\n-- \nAnn\n")
        box.add(mail)
    box.close()
    times = [f"00:00:{n:02},000 --> 00:00:{n:02},900" for n in range(12)]
    blocks = [
        f"{n}\n{time}\n{line}\n" for n, (time, line) in enumerate(zip(times, LINES, strict=True), 1)
    ]
    (place / "film.srt").write_text("\n".join(blocks))
    _warc(place / "pages.warc", page.encode())
    chat = "".join(f"[31.12.23, 23:59:{n:02}] Ann: {line}\n" for n, line in enumerate(LINES))
    (place / "chat.txt").write_text(chat)
    said = [
        {"type": "message", "date": f"2024-01-{n + 1:02}T00:00:00", "from": "Ann", "text": line}
        for n, line in enumerate(LINES)
    ]
    (place / "result.json").write_text(json.dumps({"type": "personal_chat", "messages": said}))
    nodes = {
        str(n): {
            "parent": str(n - 1),
            "message": {"author": {"role": "user"}, "content": {"parts": [line]}},
        }
        for n, line in enumerate(LINES)
    }
    (place / "conversations.json").write_text(json.dumps([{"mapping": nodes}]))


DOCUMENTS = (
    *("page.html", "document.pdf", "document.docx", "book.epub", "mails.mbox", "film.srt"),
    *("pages.warc", "chat.txt", "result.json", "conversations.json"),
)


def _pdf(file: Path) -> None:
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(file), pageCompression=0)
    for page in range(3):
        for number, line in enumerate(LINES):
            canvas.drawString(60, 700 - 14 * number, line)
        canvas.drawString(60, 30, f"page {page}")
        canvas.showPage()
    canvas.save()


def _docx(file: Path) -> None:
    import docx

    document = docx.Document()
    for line in LINES:
        document.add_paragraph(line)
    document.save(str(file))


def _warc(file: Path, page: bytes) -> None:
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    with open(file, "wb") as stream:
        writer = WARCWriter(stream, gzip=False)
        headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.1")
        record = writer.create_warc_record(
            "http://example.org/",
            "response",
            payload=io.BytesIO(page),
            length=len(page),
            http_headers=headers,
        )
        writer.write_record(record)
