"""Own text, no reading: what the documentation says of a book, notes, a thesis and a chat."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.documents import LINES, make_documents

HOME = Path(__file__).parents[2]
SHOWN = [
    (file, line)
    for file in ("README.md", "docs/documents.md")
    for line in re.findall(r"^\$ (nextword .*mybook\.pdf.*)$", (HOME / file).read_text(), re.M)
]


@pytest.fixture
def own(place):
    """The files that are named there, as people have them."""
    made = place.folder / "made"
    made.mkdir()
    make_documents(made)
    for name, called in (
        ("document.pdf", "mybook.pdf"), ("document.docx", "thesis.docx"),
        ("result.json", "chat.json"),
    ):  # fmt: skip
        shutil.copy(made / name, place.folder / called)
    notes = place.folder / "notes"
    (notes / "deeper").mkdir(parents=True)
    for name in ("page.html", "book.epub", "film.srt", "mails.mbox", "chat.txt"):
        shutil.copy(made / name, notes / "deeper" / name)
    (notes / "one.md").write_text("---\ntitle: none\n---\n# Notes\n\n" + "\n".join(LINES))
    (notes / "data.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in LINES))
    shutil.rmtree(made)
    return place


def test_both_pages_show_it():
    assert {file for file, _ in SHOWN} == {"README.md", "docs/documents.md"}
    assert {line.split()[1] for _, line in SHOWN} == {"look", "train"}


@pytest.mark.parametrize(("file", "line"), SHOWN)
def test_what_is_shown_reads_all_of_it_and_trains(own, file, line):
    words = shlex.split(line)[1:]
    if words[0] == "train":
        words += ["--training.steps", "3", "--name", "mine"]
    done = own.nextword(*words)
    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    if words[0] == "look":
        for name in ("mybook.pdf", "thesis.docx", "chat.json"):
            assert name in told
        assert all(name in told for name in ("one.md", "book.epub", "film.srt", "mails.mbox"))
        return
    facts = json.loads((own.folder / "runs" / "mine" / "run.json").read_text())
    # A book, a thesis, 12 days of a chat; in the notes a page, a book, a film, 3 mails, a day of
    # another chat, a note and 12 rows.
    assert facts["corpus"]["documents"] == 2 + 12 + (20 if "notes/" in words else 0)
    assert "page 1" not in told
    answer = own.nextword("generate", "mine", "We are", "--max-tokens", "4")
    assert answer.returncode == 0
