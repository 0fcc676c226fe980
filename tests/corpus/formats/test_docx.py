"""DOCX as Word's own library and pandoc write it."""

import zipfile

import docx
import pytest

from tests.corpus.formats.reading import read, refusal


@pytest.fixture
def letter(tmp_path):
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = "Confidential"
    document.add_heading("On mistakes", 1)
    document.add_paragraph("We are all humans ").add_run("born to make mistakes.").bold = True
    document.add_paragraph("")
    table = document.add_table(2, 2)
    for number, cell in enumerate(cell for row in table.rows for cell in row.cells):
        cell.text = "abcd"[number]
    document.add_paragraph("That is all.")
    document.save(tmp_path / "letter.docx")
    return tmp_path / "letter.docx"


def test_paragraphs_and_tables_come_in_order_and_no_header(letter):
    text = "On mistakes\n\nWe are all humans born to make mistakes.\n\na\tb\nc\td\n\nThat is all."
    assert read(letter) == ([text], {})


def test_what_others_write_is_read_too(tmp_path):
    """Insertions that are tracked, content controls, fields; merged cells once; deletions not."""
    document = docx.Document()
    space = document.element.nsmap["w"]
    run = "<w:r><w:t>{}</w:t></w:r>"
    parts = [
        f"<w:p><w:ins>{run.format('inserted')}</w:ins><w:del><w:r><w:delText>gone</w:delText></w:r>"
        f"</w:del><w:fldSimple>{run.format(' field')}</w:fldSimple></w:p>",
        f"<w:sdt><w:sdtContent><w:p>{run.format('control')}</w:p></w:sdtContent></w:sdt>",
    ]
    for part in parts:
        node = docx.oxml.parse_xml(f'<w:body xmlns:w="{space}">{part}</w:body>')
        document.element.body.insert(len(document.element.body) - 1, node[0])
    table = document.add_table(300, 2)
    table.cell(0, 0).merge(table.cell(299, 0)).text = "Top"
    table.cell(0, 1).text = "x"
    document.save(tmp_path / "a.docx")
    (text,), _ = read(tmp_path / "a.docx")
    assert text.startswith("inserted field\n\ncontrol\n\nTop\tx\n")
    assert text.count("Top") == 1


def test_pandocs_files_are_read(tmp_path):
    pypandoc = pytest.importorskip("pypandoc", reason="pandoc is not installed")
    markdown = "# One\n\nWe *are* all humans.\n\n> A quote.\n\n## Two\n\nBorn to make mistakes."
    file = tmp_path / "a.docx"
    pypandoc.convert_text(markdown, "docx", "markdown", outputfile=str(file))
    texts = ["One", "We are all humans.", "A quote.", "Two", "Born to make mistakes."]
    assert read(file) == (["\n\n".join(texts)], {})


def test_what_is_none_is_said_in_one_line(tmp_path, letter):
    (tmp_path / "text.docx").write_text("We are all humans.")
    assert "damaged, or not a DOCX" in refusal(tmp_path / "text.docx")
    with zipfile.ZipFile(tmp_path / "other.docx", "w") as archive:
        archive.writestr("readme.txt", "no document")
    assert "damaged, or not a DOCX" in refusal(tmp_path / "other.docx")
    (tmp_path / "cut.docx").write_bytes(letter.read_bytes()[:2000])
    assert "damaged, or not a DOCX" in refusal(tmp_path / "cut.docx")
    with zipfile.ZipFile(tmp_path / "torn.docx", "w") as archive:
        archive.writestr("word/document.xml", "<w:document")
    assert "damaged, or not a DOCX" in refusal(tmp_path / "torn.docx")


def test_a_bomb_is_refused(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("word/document.xml", "w") as part,
    ):
        for _ in range(450):
            part.write(bytes(1 << 20))
    assert "which no text does" in refusal(tmp_path / "bomb.docx")
