"""Each format names the package that it lacks, and how to get it."""

import sys

import pytest

from tests.corpus.formats.reading import read, refusal
from tests.documents import make_documents

NEEDS = {
    "document.pdf": "pypdfium2",
    "document.docx": "docx",
    "book.epub": "inscriptis",
    "page.html": "trafilatura",
    "film.srt": "pysubs2",
    "pages.warc": "warcio.archiveiterator",
}


@pytest.mark.parametrize("file", NEEDS)
def test_a_package_that_is_missing_is_named(file, tmp_path, monkeypatch):
    make_documents(tmp_path)
    monkeypatch.setitem(sys.modules, NEEDS[file], None)
    words = refusal(tmp_path / file)
    assert file in words
    assert f"needs the package {NEEDS[file].split('.')[0]}" in words
    assert "pip install 'nextword[documents]'" in words


def test_beside_a_text_a_file_that_cannot_be_read_is_counted(tmp_path, monkeypatch):
    make_documents(tmp_path)
    (tmp_path / "book.txt").write_text("We are all humans.\n")
    for package in NEEDS.values():
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setitem(sys.modules, package.split(".")[0], None)
    documents, counted = read(tmp_path)
    assert "We are all humans.\n" in documents
    assert counted["other_files"] == len(NEEDS)


def test_gitignore_needs_one_too(tmp_path, monkeypatch):
    (tmp_path / ".gitignore").write_text("*.log\n")
    for name in ("a.py", "b.py", "c.py"):
        (tmp_path / name).write_text("a = 1\n")
    monkeypatch.setitem(sys.modules, "pathspec", None)
    assert "needs the package pathspec" in refusal(tmp_path)
