"""Files made to hang, to fill the memory or to lead astray: each is one clear line, soon."""

import errno
import gzip
import lzma
import os
import tempfile
import time

import pytest

from nextword.base.errors import CorpusError, NextwordError, SettingsError
from nextword.corpus import compressions, source
from nextword.corpus.documents import find_files, read_pieces
from nextword.corpus.options import CorpusSettings
from nextword.settings import read_recipe
from nextword.vocabulary.kinds import names
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.train import train_vocabulary


def pieces(file):
    return "".join(piece.text for piece in read_pieces([str(file)], CorpusSettings()))


def test_a_compressed_bomb_is_stopped_at_the_stated_ratio(tmp_path, monkeypatch):
    monkeypatch.setattr(compressions, "MOST_BESIDE", 1 << 22)
    regular = b"".join(b"12:00:%02d GET /index.html 200\n" % (n % 60) for n in range(100_000))
    for name, pack in (("log.txt.gz", gzip.compress), ("log.txt.xz", lzma.compress)):
        (tmp_path / name).write_bytes(pack(regular))
        assert pieces(tmp_path / name) == regular.decode()
        bomb = tmp_path / f"bomb-{name}"
        bomb.write_bytes(pack(bytes(1 << 26)))
        with pytest.raises(CorpusError, match="which no text does"):
            pieces(bomb)


def test_a_line_without_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "LONGEST_LINE", 1 << 22)
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "one"}\n{"text": "' + "x" * (1 << 23) + '"}\n')
    with pytest.raises(CorpusError, match=r"rows\.jsonl, line 2: longer than"):
        pieces(file)


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"text": ' * 50_000, '{"text": ' + "9" * 5001 + "}"]
)
def test_a_row_that_json_chokes_on_is_named_by_its_line(tmp_path, line):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "one"}\n' + line + "\n")
    with pytest.raises(CorpusError, match=r"rows\.jsonl, line 2: "):
        pieces(file)


def test_a_folder_that_links_to_itself_is_walked_once(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one.txt").write_text("one")
    (tmp_path / "a" / "b" / "two.txt").write_text("two")
    (tmp_path / "a" / ".hidden.txt").write_text("not meant")
    for number in range(8):
        (tmp_path / "a" / "b" / f"again-{number}").symlink_to(tmp_path / "a")
    wanted = [str(tmp_path / "a" / "b" / "two.txt"), str(tmp_path / "a" / "one.txt")]
    monkeypatch.chdir(tmp_path / "a")
    assert find_files(["**/*.txt"]) == ["b/two.txt", "one.txt"]
    assert find_files(["../a/**/t*.txt"]) == ["../a/b/two.txt"]
    assert find_files([".h*"]) == find_files(["**/.h*"]) == [".hidden.txt"]
    began = time.monotonic()
    assert find_files([str(tmp_path / "**" / "*.txt")]) == wanted
    assert find_files([str(tmp_path / "**")]) == wanted
    assert time.monotonic() - began < 60  # eight links, forty deep, would never end


@pytest.mark.parametrize(
    "text",
    [
        "a." * 50_000 + "a = 1",
        "x = " + "[" * 50_000,
        "[training]\nsteps = " + "9" * 5000,
        "# " + "x" * (1 << 19),
        "\x00",
    ],
)
def test_a_recipe_that_toml_chokes_on_is_one_line(tmp_path, text):
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"recipe\.toml: "):
        read_recipe(file)


@pytest.mark.parametrize("kind", names())
@pytest.mark.parametrize("letter", ["-", " ", "\n", "x", "\0", "é"])
def test_a_text_of_one_character_teaches_and_encodes_in_linear_time(kind, letter):
    text = letter * 20_000
    try:
        vocabulary = train_vocabulary([text, "one two"], len(text), VocabularySettings(kind=kind))
    except NextwordError:
        return  # a vocabulary of words of blanks alone
    took = []
    for size in (20_000, 160_000):
        began = time.process_time()
        vocabulary.encode(letter * size)
        took.append(time.process_time() - began)
    # Eight times the text: quadratic would be 64 times; no more than speed itself may vary.
    assert took[1] < 24 * took[0] + 5


def test_bpe_learns_no_entry_beyond_what_it_may():
    text = "-" * 40_000
    vocabulary = train_vocabulary([text], len(text), VocabularySettings(kind="bpe", size=2000))
    longest = max(len(vocabulary.piece_bytes(id_)) for id_ in range(len(vocabulary)))
    assert 32 <= longest <= 128
    assert vocabulary.gives_back(text)


@pytest.mark.parametrize("kind", ["byte", "bpe", "char", "word", "unigram", "wordpiece"])
def test_half_a_character_anywhere_in_a_text_is_counted_and_ends_nothing(place, kind):
    """JSON can spell it; the sample that is counted by script holds it too."""
    import json

    rows = [{"text": f"We are \ud800{n} humans born to make mistakes."} for n in range(60)]
    (place.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--vocabulary.kind", kind, "--vocabulary.size", "300", "--json"]
    done = place.nextword("prepare", "rows.jsonl", "-o", "made", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reading"]["surrogates"]["count"] == 60


def test_a_copy_that_cannot_be_deleted_hides_no_message(tmp_path, monkeypatch):
    """FUSE and Windows keep a file while somebody holds it open, and the folder with it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress(b"PAR1"))
    real, kept = os.rmdir, []

    def refusing(path, **more):
        if "nextword-" in str(path):
            kept.append(path)
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        real(path, **more)

    monkeypatch.setattr(os, "rmdir", refusing)
    with pytest.raises(CorpusError, match="damaged, or not a Parquet file"):
        list(read_pieces([str(tmp_path / "b.parquet.gz")], CorpusSettings()))
    assert kept
