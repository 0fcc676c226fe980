"""`nextword look`: what it says is what training would read."""

import json

import pytest

from nextword.corpus.open import open_corpus
from nextword.corpus.options import CorpusSettings
from nextword.explanation.look import look

NOTICE = "All rights reserved, by nobody at all."


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "notes"
    inside.mkdir()
    rows = [{"text": f"Mistake {n} é.\n{NOTICE}"} for n in range(40)] + [{"text": None}]
    (inside / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (inside / "b.txt").write_text("Мы все люди. Write to ann@example.org.\n" * 3)
    (inside / "c.bin").write_bytes(b"\0")
    return inside


def test_it_counts_what_training_reads(folder):
    found = look([str(folder)], CorpusSettings(), samples=3)
    texts, held = [], ""
    corpus = open_corpus([str(folder)], CorpusSettings())
    for piece in corpus.pieces():
        held += piece.text
        if piece.is_last:
            texts.append(held)
            held = ""
    assert (found.documents, found.characters) == (len(texts), sum(map(len, texts)))
    assert found.words == sum(len(text.split()) for text in texts)
    assert found.bytes == sum(len(text.encode()) for text in texts)
    assert found.longest == max(map(len, texts))
    assert [(one.name, one.documents) for one in found.files] == [
        (str(folder / "a.jsonl"), 40),
        (str(folder / "b.txt"), 1),
    ]
    assert {kind: found.reading[kind]["count"] for kind in ("null", "other_files")} == {
        "null": 1,
        "other_files": 1,
    }
    assert found.repeated == {NOTICE: 40}
    assert found.personal == {"emails": 3}
    assert found.scripts.keys() == {"latin", "cyrillic"}
    for one in found.samples:
        assert one.text == texts[one.number - 1 if one.file.endswith("l") else 40][:320]


def test_each_document_is_as_likely_to_be_shown(folder):
    seen = {
        one.text
        for seed in range(120)
        for one in look([str(folder)], CorpusSettings(), samples=2, seed=seed).samples
    }
    assert len(seen) == 41  # one is missed with probability 0.1


def test_it_is_said_in_plain_words_and_as_json(folder, place):
    said = place.nextword("look", str(folder))
    assert said.returncode == 0, said.stderr
    for words in (
        "text            41 documents in 2 files",
        "records without a text (null)",
        f'40  "{NOTICE}"',
        "3 e-mail addresses",
        "a.jsonl, document ",
        "nextword train ",
    ):
        assert words in said.stdout
    redacted = place.nextword("look", str(folder), "--corpus.redact", "--json")
    values = json.loads(redacted.stdout)
    assert values["reading"]["emails"]["count"] == values["personal"]["emails"] == 3
    assert values["documents"] == 41


def test_wrong_input_is_one_line(place):
    for words, said in (((), "name a text"), (("none.txt",), "no such file")):
        done = place.nextword("look", *words)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
