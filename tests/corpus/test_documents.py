import gzip
import json
import os
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextword.base.errors import CorpusError
from nextword.corpus import source
from nextword.corpus.documents import (
    LONGEST_PIECE,
    PIECE_CHARACTERS,
    Piece,
    cut,
    find_files,
    read_pieces,
)
from nextword.corpus.formats import all_formats
from nextword.corpus.options import CorpusSettings
from nextword.corpus.source import Source

SETTINGS = CorpusSettings()


def texts(paths, settings=SETTINGS):
    whole, found = "", []
    for piece in read_pieces(find_files([str(path) for path in paths]), settings):
        whole += piece.text
        if piece.is_last:
            found.append(whole)
            whole = ""
    assert whole == ""
    return found


def test_a_folder_is_read_recursively_and_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.md").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    assert texts([tmp_path]) == ["first", "second"]


def test_a_glob_takes_what_matches(tmp_path):
    for name in ("one.txt", "two.txt", "three.log"):
        (tmp_path / name).write_text(name)
    assert texts([tmp_path / "*.txt"]) == ["one.txt", "two.txt"]


def test_json_lines_and_gzip_hold_the_same_documents(tmp_path):
    rows = "".join(json.dumps({"text": text}) + "\n" for text in ("één", "two\n\nlines", "three"))
    (tmp_path / "a.jsonl").write_text(rows)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    assert (
        texts([tmp_path / "a.jsonl"])
        == texts([tmp_path / "b.jsonl.gz"])
        == ["één", "two\n\nlines", "three"]
    )


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    assert texts([tmp_path / "a.txt"]) == ["hello"]


@given(st.text("ab\n\r", max_size=60), st.integers(1, 9))
def test_lines_are_the_text_parted_at_line_feeds(text, block):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        file = Path(folder) / "a.txt"
        file.write_bytes(text.encode())
        patch.setattr(source, "READ_BYTES", block)
        lines = text.removesuffix("\n").split("\n") if text else []
        assert list(source.Source(str(file)).read_lines()) == list(enumerate(lines, start=1))


def test_another_field_can_be_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "hello"}\n')
    assert texts([tmp_path / "a.jsonl"], CorpusSettings(field="body")) == ["hello"]


def test_every_format_says_what_it_reads():
    for suffix, module in all_formats().items():
        assert suffix.startswith(".")
        assert module.__doc__
        assert callable(module.read)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b"", ["empty.txt", "holds no text"]),
        ("bad.txt", b"abc\xffdef", ["bad.txt", "byte 3", "--corpus.errors replace"]),
        ("late.txt", "é".encode() * 900_000 + b"\xff", ["late.txt", "byte 1800000"]),
        ("cut.txt", "abc é".encode()[:-1], ["cut.txt", "byte 4"]),
        (
            "no.jsonl",
            b'{"text": "a"}\n{"txt": "b"}\n',
            ["no.jsonl, line 2", "--corpus.field", "Did you mean txt?"],
        ),
        ("list.jsonl", b"[1]\n", ["list.jsonl, line 1"]),
        ("bad.jsonl", b'{"text": "a"}\n{"text": \n', ["bad.jsonl, line 2", "not JSON"]),
        (
            "cut.txt.gz",
            gzip.compress(b"hello world" * 1000, mtime=0)[:40],
            ["cut.txt.gz", "cut short or damaged"],
        ),
        ("plain.txt.gz", b"not compressed", ["plain.txt.gz", "damaged"]),
    ],
)
def test_damaged_files_are_named_with_the_place(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError) as error:
        texts([tmp_path / name])
    for word in words:
        assert word in str(error.value)


def test_wrong_bytes_can_be_replaced(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"abc\xffdef")
    assert texts([tmp_path / "bad.txt"], CorpusSettings(errors="replace")) == ["abc\ufffddef"]


def test_missing_paths_and_empty_folders_are_named(tmp_path):
    for path in (tmp_path / "missing.txt", tmp_path, tmp_path / "*.txt"):
        with pytest.raises(CorpusError, match=str(path).replace("*", r"\*").replace("\\", ".")):
            find_files([str(path)])


@pytest.mark.skipif(
    sys.platform == "win32" or (hasattr(os, "geteuid") and os.geteuid() == 0),
    reason="root may read every file",
)
def test_a_file_without_permission_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("secret")
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(CorpusError, match="permission"):
        texts([tmp_path / "a.txt"])


def test_no_permission_is_said(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("secret")

    def refuse(*args, **kwargs):
        raise PermissionError

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(CorpusError, match=r"a\.txt: no permission"):
        texts([tmp_path / "a.txt"])


@given(st.lists(st.tuples(st.text(max_size=40), st.booleans()), max_size=20))
def test_cutting_changes_no_text(chunks):
    pieces = [Piece(text, last) for text, last in chunks] + [Piece("end", True)]
    assert "".join(piece.text for piece in cut(iter(pieces))) == "".join(
        piece.text for piece in pieces
    )


def test_long_documents_are_cut_between_a_letter_and_white_space_or_a_sign():
    text = "".join(f"line {number}\n\n  indented\n" for number in range(40_000))
    pieces = list(cut([Piece(text, True)]))
    assert len(pieces) > 3
    assert all(len(piece.text) <= PIECE_CHARACTERS for piece in pieces)
    assert [piece.is_last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    for before, piece in pairwise(pieces):
        assert before.text[-1].isalnum()
        assert not piece.text[0].isalnum()


@pytest.mark.parametrize("letter", ["=", " ", "a", "\u4e00"])
def test_a_text_without_a_place_to_cut_is_held_in_bounded_memory_and_counted(letter):
    source = Source("a.txt")
    chunks = (Piece(letter * 100_000, number == 29) for number in range(30))
    pieces = list(cut(chunks, source))
    assert [len(piece.text) for piece in pieces] == [LONGEST_PIECE, LONGEST_PIECE, 902_848]
    assert source.tally.as_dict()["cut"] == {"count": 2, "first": "a.txt"}


def test_a_place_to_cut_that_comes_late_is_waited_for():
    text = "=" * 500_000 + "a " + "=" * 300_000
    source = Source("a.txt")
    chunks = [Piece(text[start : start + 9999], False) for start in range(0, len(text), 9999)]
    pieces = list(cut([*chunks, Piece("", True)], source))
    assert [len(piece.text) for piece in pieces] == [500_001, 300_001]
    assert not source.tally.findings
