"""Whatever is not read as it stands is counted, and the counts add up to what was there."""

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextword.base.errors import CorpusError
from nextword.corpus.documents import find_files, read_pieces
from nextword.corpus.open import open_corpus
from nextword.corpus.options import CorpusSettings
from nextword.corpus.split import scan
from nextword.corpus.tally import Tally, describe_reading, join_readings
from nextword.vocabulary.encode import prepare
from nextword.vocabulary.options import VocabularySettings

REUSED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
TEXTS = st.one_of(st.just(""), st.none(), st.text(st.characters(codec="utf-8"), min_size=1))


def read(path, **options):
    tally = Tally()
    pieces = read_pieces(find_files([str(path)], tally), CorpusSettings(**options), tally)
    return sum(piece.is_last for piece in pieces), tally.as_dict()


def count(known, kind):
    return known.get(kind, {"count": 0})["count"]


@REUSED
@given(
    rows=st.lists(TEXTS, min_size=1, max_size=20), blank=st.lists(st.integers(0, 20), max_size=5)
)
def test_json_lines_add_up(tmp_path, rows, blank):
    lines = [json.dumps({"text": text}) for text in rows]
    for place in blank:
        lines.insert(min(place, len(lines)), " ")
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    adds_up(tmp_path / "a.jsonl", rows, blank)


@REUSED
@given(rows=st.lists(TEXTS, min_size=1, max_size=20))
def test_parquet_adds_up(tmp_path, rows):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"text": arrow.array(rows, type=arrow.string())})
    parquet.write_table(table, tmp_path / "a.parquet")
    adds_up(tmp_path / "a.parquet", rows, [])


@REUSED
@given(rows=st.lists(st.text(st.characters(codec="utf-8"), max_size=9), min_size=1, max_size=20))
def test_tables_add_up(tmp_path, rows):
    rows = [row.replace("\0", "").replace("\r", "") for row in rows]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["n", "text"])
    writer.writerows(enumerate(rows))
    (tmp_path / "a.csv").write_bytes(out.getvalue().encode())
    adds_up(tmp_path / "a.csv", rows, [])


def adds_up(path, rows, blank):
    kept = [text for text in rows if text]
    if not kept:
        with pytest.raises(CorpusError, match="holds no text"):
            read(path)
        return
    documents, known = read(path)
    assert documents == len(kept)
    assert known["records"] == len(rows)
    assert count(known, "empty") == rows.count("")
    assert count(known, "null") == rows.count(None)
    assert count(known, "blank_lines") == len(blank)
    assert known["records"] == documents + count(known, "empty") + count(known, "null")


def test_the_first_of_each_kind_is_named(tmp_path):
    rows = ['{"text": "one"}', "", '{"text": ""}', '{"text": null}', '{"text": ""}', "", "{}"]
    (tmp_path / "a.jsonl").write_text("\n".join(rows[:-1]))
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfab\xffc\xff\xc3")
    (tmp_path / "c.png").write_bytes(b"\x89")
    documents, known = read(tmp_path, errors="replace")
    assert documents == 2
    assert known == {
        "records": 5,
        "empty": {"count": 2, "first": f"{tmp_path}/a.jsonl, line 3"},
        "null": {"count": 1, "first": f"{tmp_path}/a.jsonl, line 4"},
        "blank_lines": {"count": 1, "first": f"{tmp_path}/a.jsonl, line 2"},
        "other_files": {"count": 1, "first": f"{tmp_path}/c.png"},
        "byte_order_marks": {"count": 1, "first": f"{tmp_path}/b.txt"},
        "replaced": {"count": 3, "first": f"{tmp_path}/b.txt, byte 5"},
    }
    said = describe_reading(known)
    assert "empty texts: 2 (first: " in said
    assert "\n" not in said


@given(
    st.lists(
        st.sampled_from([b"a", "\ufffd".encode(), "é".encode(), b"\xff", b"\xc3", b"\xe2\x82"])
    )
)
def test_only_what_was_wrong_counts_as_replaced(parts):
    from nextword.corpus.source import Source

    raw = b"".join(parts)
    source = Source("a.txt", "replace")
    source._blocks = lambda: iter([raw[n : n + 2] for n in range(0, len(raw), 2)] + [b""])
    text = "".join(source.read_text())
    assert text == raw.decode("utf-8", "replace")
    wrong = text.count("\ufffd") - raw.count("\ufffd".encode())
    assert count(source.tally.as_dict(), "replaced") == wrong


def test_a_wrong_type_names_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n{"text": 3}\n')
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 3: the field .text. holds 3"):
        read(tmp_path / "a.jsonl")


@pytest.mark.parametrize("line", ['{"text": "a", "n": ' + "9" * 5000 + "}", "[" * 100_000])
def test_json_that_python_will_not_read_names_its_line(tmp_path, line):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' + line + "\n")
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 2: "):
        read(tmp_path / "a.jsonl")


def test_repeats_and_half_characters_are_counted_by_document(tmp_path):
    rows = ["one", "two", "one", "a\ud800b\udfff", "one"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    corpus = open_corpus([str(tmp_path / "a.jsonl")], CorpusSettings())
    known = scan(corpus.pieces()).tally.as_dict()
    assert known["repeated"] == {"count": 2, "first": "document 3"}
    assert known["surrogates"] == {"count": 2, "first": "document 4"}


def test_reading_twice_counts_once(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": ""}\n')
    corpus = open_corpus([str(tmp_path / "a.jsonl")], CorpusSettings())
    for _ in range(3):
        assert sum(piece.is_last for piece in corpus.pieces()) == 1
        assert corpus.tally.as_dict()["empty"]["count"] == 1


def test_the_receipt_and_json_say_it(place):
    rows = [{"text": f"text number {n} of many " * 9} for n in range(40)]
    rows[7]["text"], rows[9]["text"], rows[11] = "", None, rows[10]
    (place.folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = place.nextword("prepare", "a.jsonl", "-o", "there", "--json")
    known = json.loads(done.stdout)["reading"]
    assert known["records"] == 40
    assert known["empty"] == {"count": 1, "first": "a.jsonl, line 8"}
    assert known["null"] == {"count": 1, "first": "a.jsonl, line 10"}
    assert known["repeated"] == {"count": 1, "first": "document 10"}
    done = place.nextword("prepare", "a.jsonl", "-o", "here")
    line = next(line for line in done.stdout.splitlines() if "records" in line)
    assert "of 40 records, empty texts: 1 (first: a.jsonl, line 8); records without a" in line
    # The cache knows a text by its content; what else stood there is this file's.
    (place.folder / "b.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows if row["text"])
    )
    chosen = VocabularySettings(kind="byte")
    for name, empty in (("a.jsonl", 1), ("b.jsonl", 0)):
        corpus = open_corpus([name], CorpusSettings())
        made = prepare(corpus, CorpusSettings(), chosen)
        assert count(made.facts["reading"], "empty") == empty
    assert made.was_cached


def test_a_holdout_beyond_the_limit_is_counted(place, monkeypatch):
    from nextword.vocabulary import encode

    monkeypatch.setattr(encode, "HOLDOUT_TOKENS", 100)
    rows = [{"text": f"text number {n} " * 3} for n in range(400)]
    (place.folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen, asked = VocabularySettings(kind="byte"), CorpusSettings()
    made = prepare(open_corpus(["a.jsonl"], asked), asked, chosen)
    beyond = count(made.facts["reading"], "beyond_limit")
    kept = made.train.num_documents + made.holdout.num_documents
    assert beyond > 10
    assert beyond + kept in (400, 401)  # one may be cut at the limit, and stands on both counts


def test_several_readings_add_up():
    one, two = Tally(3), Tally(4)
    one.add("empty", "a, line 1", 2)
    two.add("empty", "b, line 9")
    two.add("null", "b, line 3")
    assert join_readings([one.as_dict(), None, two.as_dict()]) == {
        "records": 7,
        "empty": {"count": 3, "first": "a, line 1"},
        "null": {"count": 1, "first": "b, line 3"},
    }


def test_an_evaluation_says_what_it_did_not_read(place):
    (place.folder / "t.txt").write_text("the good cat sat on the warm mat.\n" * 60)
    options = ("--training.steps", "1", "--vocabulary.kind", "byte", "--model.context", "32")
    assert place.nextword("train", "t.txt", "--name", "a", *options, "--quiet").returncode == 0
    (place.folder / "bad.txt").write_bytes(b"the good \xff cat")
    refused = place.nextword("evaluate", "a", "bad.txt")
    assert "--corpus.errors replace" in refused.stderr
    done = place.nextword("evaluate", "a", "bad.txt", "--corpus.errors", "replace")
    assert (
        "places that were not UTF-8 and are U+FFFD now: 1 (first: bad.txt, byte 9)" in done.stdout
    )
    told = place.nextword("evaluate", "a", "bad.txt", "--corpus.errors", "replace", "--json")
    first = {"count": 1, "first": "bad.txt, byte 9"}
    assert json.loads(told.stdout)["reading"] == {"records": 1, "replaced": first}


def test_a_json_field_that_holds_no_text_is_told_by_what_it_holds(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one"}\n{"text": null}\n{"text": 5}\n')
    with pytest.raises(CorpusError, match=r'line 3: the field "text" holds 5, which is no text'):
        list(read_pieces([str(file)], CorpusSettings()))
    file.write_text('{"text": "one"}\n{"text": null}\n')
    assert [piece.text for piece in read_pieces([str(file)], CorpusSettings())] == ["one"]
