"""PDF as browsers and typesetters write it: the paragraphs come back, and nothing else."""

import random

import pypdfium2
import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate, Paragraph

from nextword.corpus.typeset import PARTED, join_words
from tests.corpus.formats.reading import read, refusal

TEXT = (
    "We are all humans born to make mistakes, and a well-known remedy is extraordinarily simple: "
    "learning from every misunderstanding. The internationalization of understanding "
    "notwithstanding, nobody learns without predicting."
)
WORDS = TEXT.split()
VERSE = (
    "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\n"
    "Rough winds do shake the darling buds of May,\nAnd summer's lease hath all too short a date;"
)


def prose(paragraphs, seed=0):
    draw = random.Random(seed)
    return [
        " ".join(draw.choice(WORDS) for _ in range(draw.randint(40, 160))).strip(".,:") + "."
        for _ in range(paragraphs)
    ]


def typeset(path, paragraphs, *, columns=1, indent=12, head=("On Mistakes", "Of Remedies")):
    """Write paragraphs as a book would: a title on top, in turns, and a number at the foot."""
    style = ParagraphStyle(
        "text", fontName="Times-Roman", fontSize=10, leading=12, firstLineIndent=indent
    )

    def edges(canvas, document):
        number = canvas.getPageNumber()
        canvas.drawString(60, 30, f"{number}")
        canvas.drawString(60, 810, head[number % 2])

    width = 470 / columns - 10 * (columns - 1)
    frames = [
        Frame(60 + number * (width + 20), 60, width, 730, id=str(number))
        for number in range(columns)
    ]
    document = BaseDocTemplate(str(path))
    document.addPageTemplates(PageTemplate(frames=frames, onPage=edges))
    document.build([Paragraph(text, style) for text in paragraphs])


def test_a_book_gives_its_paragraphs_without_titles_and_numbers(tmp_path):
    paragraphs = prose(40)
    typeset(tmp_path / "a.pdf", paragraphs)
    (document,), counted = read(tmp_path / "a.pdf")
    assert document.split("\n\n") == paragraphs
    pages = len(pypdfium2.PdfDocument(tmp_path / "a.pdf"))
    assert counted == {"edges": 2 * pages}


def test_two_columns_are_read_one_after_the_other(tmp_path):
    paragraphs = prose(40)
    typeset(tmp_path / "a.pdf", paragraphs, columns=2)
    (document,), _ = read(tmp_path / "a.pdf")
    assert document.split() == " ".join(paragraphs).split()
    assert sum(part in paragraphs for part in document.split("\n\n")) >= 30  # breaks of columns


def test_what_a_browser_prints_gives_its_paragraphs_and_its_words_whole(tmp_path, browser):
    paragraphs = prose(30)
    page = browser.new_page()
    page.set_content(
        "<html lang=en><style>p{text-align:justify;hyphens:auto;font:12pt serif}</style>"
        "<h1>Chapter 1</h1>" + "".join(f"<p>{text}</p>" for text in paragraphs)
    )
    small = '<span style="font-size:9px">{}</span>'
    page.pdf(
        path=str(tmp_path / "a.pdf"),
        display_header_footer=True,
        header_template=small.format("On Mistakes"),
        footer_template=small.format("Page <span class=pageNumber></span> of 9"),
        margin=dict.fromkeys(("top", "bottom", "left", "right"), "80px"),
    )
    page.close()
    (document,), counted = read(tmp_path / "a.pdf")
    assert document.split("\n\n") == ["Chapter 1", *paragraphs]
    assert counted["edges"] == 2 * len(pypdfium2.PdfDocument(tmp_path / "a.pdf"))
    assert counted["parted"] > 5


def test_letters_of_two_units_move_no_line(tmp_path, browser):
    paragraphs = prose(4)
    page = browser.new_page()
    texts = "".join(f"<p>{text}</p>" for text in paragraphs)
    page.set_content(f"<p>\U0001d465\U0001d466\U0001d467\U0001d465\U0001d466</p>{texts}")
    page.pdf(path=str(tmp_path / "a.pdf"), margin=dict.fromkeys(("left", "right"), "80px"))
    page.close()
    (document,), _ = read(tmp_path / "a.pdf")
    assert document.split("\n\n")[1:] == paragraphs


def test_verse_keeps_its_lines(tmp_path):
    canvas = Canvas(str(tmp_path / "a.pdf"))
    for number, line in enumerate(VERSE.split("\n")):
        canvas.drawString(60, 700 - 14 * number, line)
    canvas.save()
    assert read(tmp_path / "a.pdf") == ([VERSE], {})


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        (f"a well{PARTED}known one, and well-known too", "a well-known one, and well-known too"),
        (f"extra{PARTED}ordinary, and extraordinary", "extraordinary, and extraordinary"),
        (f"Mis{PARTED}takes", "Mistakes"),
        (f"1990{PARTED}2000", "1990-2000"),
    ],
)
def test_the_rest_of_a_text_shows_whether_a_hyphen_is_the_words_own(text, whole):
    assert join_words(text) == (whole, 1)


def test_pages_that_are_pictures_are_named(tmp_path):
    canvas = Canvas(str(tmp_path / "scan.pdf"))
    canvas.rect(10, 10, 50, 50)
    canvas.showPage()
    canvas.save()
    assert "ocrmypdf" in refusal(tmp_path / "scan.pdf")

    canvas = Canvas(str(tmp_path / "mixed.pdf"))
    canvas.drawString(60, 700, "We are all humans.")
    canvas.showPage()
    canvas.rect(10, 10, 50, 50)
    canvas.showPage()
    canvas.save()
    assert read(tmp_path / "mixed.pdf") == (["We are all humans."], {"pictures": 1})


def test_what_is_locked_or_damaged_is_said_in_one_line(tmp_path):
    canvas = Canvas(str(tmp_path / "locked.pdf"), encrypt=StandardEncryption("secret"))
    canvas.drawString(60, 700, "We are all humans.")
    canvas.save()
    assert "needs a password" in refusal(tmp_path / "locked.pdf")
    (tmp_path / "torn.pdf").write_bytes(b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog")
    assert "damaged, or not a PDF" in refusal(tmp_path / "torn.pdf")
    (tmp_path / "empty.pdf").write_bytes(b"")
    assert "empty.pdf: " in refusal(tmp_path / "empty.pdf")
