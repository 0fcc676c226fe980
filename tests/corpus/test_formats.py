"""One contract for every corpus format: the same documents, however they are kept, are the same."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow
import pytest
import zstandard
from fsspec.registry import _registry
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from nextword.base.errors import CorpusError
from nextword.corpus import source
from nextword.corpus.compressions import COMPRESSIONS
from nextword.corpus.documents import find_files, read_pieces, whole_documents
from nextword.corpus.formats import all_formats
from nextword.corpus.formats import csv as csv_format
from nextword.corpus.options import CorpusSettings
from nextword.corpus.split import scan
from nextword.settings import all_options

LONG = "".join(f"line {number}, and more\n" for number in range(14_000))[:300_000]
DOCUMENTS = [
    "We are all humans born to make mistakes.",
    "één 猫 🙂 e\u0301 \u2028 \x85 \x00 \x0b",
    'She said "no", twice: ""no"", and left,\tthen came back.',
    "a line\r\nanother\r\n\r\n\r\na third\n\n\nthe last\n",
    "   spaces before and after \t ",
    "\n",
    '"',
    LONG,
    "We are all humans born to make mistakes.",
]


def name_of(module):
    return module.__name__.rpartition(".")[2]


def as_text(documents, suffix):
    (only,) = documents
    return only.encode()


def as_jsonl(documents, suffix):
    return "".join(json.dumps({"n": 1, "text": text}) + "\n" for text in documents).encode()


def as_csv(documents, suffix):
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter="\t" if suffix == ".tsv" else ",")
    writer.writerows([("n", "text"), *((1, text) for text in documents)])
    return out.getvalue().encode()


def as_parquet(documents, suffix):
    out = io.BytesIO()
    parquet.write_table(pyarrow.table({"n": [1] * len(documents), "text": documents}), out)
    return out.getvalue()


def as_json(documents, suffix):
    return json.dumps([{"n": 1, "text": text} for text in documents]).encode()


WRITERS = {one.__name__.removeprefix("as_"): one for one in (
    as_text, as_jsonl, as_json, as_csv, as_parquet
)}  # fmt: skip
"""Of the formats that keep a text to the letter."""


def zstandard_frames(raw):
    """Compress in two frames, with a frame to skip between, as parallel compressors do."""
    half, write = len(raw) // 2, zstandard.ZstdCompressor(write_checksum=True).compress
    return write(raw[:half]) + b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc" + write(raw[half:])


COMPRESS = {
    "": bytes,
    ".bz2": bz2.compress,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard_frames,
}
SUFFIXES = sorted(end for end, module in all_formats().items() if name_of(module) in WRITERS)
CHOICES = {option.path: option.choices for option in all_options("corpus")}["corpus.format"]


def write(documents, suffix):
    """Write documents as a format keeps them; a format without a writer fails here."""
    return WRITERS[name_of(all_formats()[suffix])](documents, suffix)


def read(path, **settings):
    settings = CorpusSettings(**settings)
    return scan(read_pieces(find_files([str(path)]), settings))


def expected(documents):
    return scan(whole_documents(documents))


def refusal(path, **settings):
    with pytest.raises(CorpusError) as error:
        read(path, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def pipe(monkeypatch):
    """Put bytes into standard input."""

    def give(raw):
        source._spooled_input.cache_clear()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))

    yield give
    source._spooled_input.cache_clear()


def test_every_format_has_a_writer_or_tests_of_its_own_and_every_compression_a_compressor():
    names = {name_of(module) for module in all_formats().values()}
    own = {"docx", "epub", "html", "mail", "pdf", "subtitles", "warc"}  # test_{name}.py
    for name in own:
        assert (Path(__file__).parent / "formats" / f"test_{name}.py").is_file()
    assert set(WRITERS) | own == names
    assert set(COMPRESS) == {"", *COMPRESSIONS}


def test_every_format_can_be_asked_for():
    assert CHOICES[0] == "auto"
    formats = {all_formats()[f".{choice}"] for choice in CHOICES[1:]}
    assert formats == set(all_formats().values())


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_documents_in_every_format_and_compression(suffix, compression, tmp_path):
    one_each = all_formats()[suffix] is all_formats()[".txt"]
    files = [[text] for text in DOCUMENTS] if one_each else [DOCUMENTS[:4], DOCUMENTS[4:]]
    for number, documents in enumerate(files):
        name = f"{number:02}{suffix}{compression}"
        (tmp_path / name).write_bytes(COMPRESS[compression](write(documents, suffix)))
    found = read(tmp_path)
    assert found == expected(DOCUMENTS)
    assert (found.documents, found.duplicates) == (len(DOCUMENTS), 1)


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("choice", [choice for choice in CHOICES if f".{choice}" in SUFFIXES])
def test_the_same_documents_piped(choice, compression, pipe):
    suffix = f".{choice}"
    one_each = all_formats()[suffix] is all_formats()[".txt"]
    for documents in [[text] for text in DOCUMENTS] if one_each else [DOCUMENTS]:
        pipe(COMPRESS[compression](write(documents, suffix)))
        assert read("-", format=choice) == expected(documents)
        assert read("-", format=choice) == expected(documents)  # a corpus is read twice


def test_a_real_pipe():
    code = (
        "from nextword.corpus.documents import read_pieces\n"
        "from nextword.corpus.options import CorpusSettings\n"
        "from nextword.corpus.split import scan\n"
        "print(scan(read_pieces(['-'], CorpusSettings(format='csv'))).digest)"
    )
    raw = zstandard_frames(write(DOCUMENTS, ".csv"))
    done = subprocess.run([sys.executable, "-c", code], input=raw, capture_output=True, check=True)
    assert done.stdout.decode().strip() == expected(DOCUMENTS).digest


def test_piped_text_that_begins_like_a_compression_is_text(pipe):
    for text in ("BZh9 is how bzip2 begins", "P*M", "7zXZ"):
        pipe(text.encode())
        assert read("-") == expected([text])


def test_an_asked_format_overrules_the_name(tmp_path):
    (tmp_path / "rows.txt").write_bytes(write(["one", "two"], ".csv"))
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(write(["one", "two"], ".jsonl")))
    assert read(tmp_path / "rows.txt", format="csv") == expected(["one", "two"])
    assert read(tmp_path / "rows.csv.gz", format="jsonl") == expected(["one", "two"])


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_another_column_and_a_missing_one(suffix, tmp_path):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(write(["one", "two"], suffix).replace(b"text", b"body"))
    assert read(file, field="body") == expected(["one", "two"])
    words = refusal(file, field="bod")
    assert str(file) in words
    assert "Did you mean body?" in words
    if suffix != ".jsonl":
        assert "only n, body" in words


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_any_text_comes_back_from_csv(texts):
    with tempfile.TemporaryDirectory() as folder:
        for suffix in csv_format.SUFFIXES:
            with open(f"{folder}/a{suffix}", "wb") as file:
                file.write(write(texts, suffix))
            assert read(f"{folder}/a{suffix}") == expected(texts)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize(
    ("rows", "line", "word"),
    [
        ("a\x01text\n1\x01one\n2\n3\x01three\n", 3, "has 1 fields, the first row 2"),
        ("a\x01text\n1\x01one\x01more\n", 2, "has 3 fields, the first row 2"),
        ('a\x01text\n1\x01"one\ntwo"\n\n2\x01"three\nfour\n', 5, "unexpected end of data"),
        ('a\x01text\n1\x01"one\n2\x01"two"\n', 2, "double"),
        ("a\x01text\n1\x01one\rtwo\n", 2, "new-line"),
    ],
)
def test_a_broken_row_is_named_with_its_line(suffix, rows, line, word, tmp_path):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(rows.replace("\x01", "\t" if suffix == ".tsv" else ",").encode())
    words = refusal(file)
    assert f"{file}, line {line}: " in words
    assert (word if word != "double" else "look for a quote") in words


def test_a_table_without_rows_holds_no_text(tmp_path):
    for name, content in [("a.csv", b""), ("b.csv", b"text\n"), ("c.csv", b'text\n""\n')]:
        (tmp_path / name).write_bytes(content)
        assert f"{name}: this file holds no text" in refusal(tmp_path / name)
    parquet.write_table(
        pyarrow.table({"text": pyarrow.array([None], "string")}), tmp_path / "d.parquet"
    )
    assert "d.parquet: this file holds no text" in refusal(tmp_path / "d.parquet")


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext\r\none\r\n")
    assert read(tmp_path / "a.csv") == expected(["one"])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_cut_and_damaged_compressed_files_are_named(compression, tmp_path):
    file = tmp_path / f"a.txt{compression}"
    whole = COMPRESS[compression](random.Random(0).randbytes(30_000).hex().encode())
    for size in (1, 3, 9, len(whole) // 4, len(whole) // 2 + 30, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert f"{file}: the compressed file is cut short or damaged" in refusal(file)
    for raw in (b"not compressed at all", whole[:200] + bytes(100) + whole[300:]):
        file.write_bytes(raw)
        assert f"{file}: the compressed file is cut short or damaged" in refusal(file)
    file.write_bytes(b"")
    assert str(file) in refusal(file)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_cut_pipe_is_named(compression, pipe):
    pipe(COMPRESS[compression](LONG.encode())[:-1])
    assert "standard input: the compressed file is cut short or damaged" in refusal("-")


def test_files_put_one_behind_the_other_are_one(tmp_path):
    for compression in COMPRESSIONS:
        file = tmp_path / f"a.txt{compression}"
        file.write_bytes(COMPRESS[compression](b"one ") + COMPRESS[compression](b"two"))
        assert read(file) == expected(["one two"])


def test_a_failing_disk_is_no_damage(tmp_path, monkeypatch):
    def fail(self, size=-1):
        raise OSError(5, "Input/output error")

    (tmp_path / "a.txt.bz2").write_bytes(bz2.compress(b"text"))
    monkeypatch.setattr(bz2.BZ2File, "read", fail)
    assert "a.txt.bz2: cannot be read (Input/output error)" in refusal(tmp_path / "a.txt.bz2")


@pytest.mark.parametrize("compression", ["", ".gz"])
def test_damaged_parquet_is_named(compression, tmp_path):
    file = tmp_path / f"a.parquet{compression}"
    whole = write([LONG, "two"], ".parquet")
    broken = bytearray(whole)
    broken[100:140] = bytes(40)
    for raw in (whole[: len(whole) // 2], whole[:-1], b"PAR1", bytes(broken), b"text" * 9):
        file.write_bytes(COMPRESS[compression](raw))
        assert f"{file}: damaged, or not a Parquet file (" in refusal(file)


def test_parquet_columns_that_are_not_text(tmp_path):
    file = tmp_path / "a.parquet"
    columns = {"number": [1], "raw": [b"a"], "list": [["a"]], "text": ["a"]}
    parquet.write_table(pyarrow.table(columns), file)
    for field, kind in (("number", "int64"), ("raw", "binary"), ("list", "list")):
        words = refusal(file, field=field)
        assert f'a.parquet: the column "{field}" holds {kind}' in words
        assert "text is in: text" in words


def test_every_kind_of_parquet_text_is_read_and_nulls_left_out(tmp_path):
    texts = ["one", None, "één", None, "one"]
    for kind in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
        array = pyarrow.array(texts, kind)
        for column in (array, pyarrow.array(texts).dictionary_encode()):
            parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
            assert read(tmp_path / "a.parquet") == expected(["one", "één", "one"])


def test_parquet_text_that_is_not_utf_8(tmp_path):
    raw = pyarrow.array([b"ab\xffc"], pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": raw}), tmp_path / "a.parquet")
    assert "a.parquet, row 1: this text is not UTF-8" in refusal(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", errors="replace") == expected(["ab\ufffdc"])


def test_parquet_is_read_a_few_rows_at_a_time(tmp_path):
    random_text = random.Random(0).randbytes(2_000)
    texts = [f"{number} {random_text.hex()}" for number in range(10_000)]
    table = pyarrow.table({"text": texts, "other": texts})
    parquet.write_table(table, tmp_path / "a.parquet", use_dictionary=False, compression="none")
    del table
    before, most = pyarrow.total_allocated_bytes(), 0
    for _ in read_pieces([str(tmp_path / "a.parquet")], CorpusSettings()):
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert 0 < most < 15_000_000  # of 40 million in the column


def test_temporary_copies_are_removed(tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(write(["one"], ".parquet")))
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress(b"PAR1"))
    pieces = read_pieces([str(tmp_path / "a.parquet.gz")], CorpusSettings())
    next(pieces)
    assert len(list(temporary.iterdir())) == 1
    pieces.close()
    assert not list(temporary.iterdir())
    read(tmp_path / "a.parquet.gz")
    refusal(tmp_path / "b.parquet.gz")
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("package", "path"),
    [
        ("zstandard", "a.txt.zst"),
        ("pyarrow", "a.parquet"),
        ("datasets", "dataset:somebody/something"),
        ("fsspec.core", "memory://a.txt"),
        ("s3fs", "s3://bucket/a.txt"),
    ],
)
def test_a_missing_package_is_named_with_the_command(package, path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(_registry, "s3", raising=False)  # another test may have asked for it
    monkeypatch.chdir(tmp_path)
    if "://" not in path and ":" not in path:
        (tmp_path / path).write_bytes(b"(\xb5/\xfd")
    words = refusal(path)
    assert words.startswith(f"{path}: ")
    assert package.partition(".")[0] in words
    assert "pip install 'nextword[hub]'" in words


HEAVY = [
    *("torch", "pandas", "pyarrow", "fsspec", "datasets", "zstandard", "numpy"),
    *("lxml", "pypdfium2", "docx", "trafilatura", "warcio", "pysubs2", "inscriptis"),
]


@pytest.mark.parametrize(
    "code",
    [
        "from nextword.corpus import addresses, compressions, documents, formats, source\n"
        "formats.all_formats(), formats.all_schemes()",
        "from nextword.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    code = f"import sys\n{code}\nsys.exit(str([x for x in {HEAVY} if x in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.stderr.strip() == b"[]"


def test_a_long_header_is_not_told_whole(tmp_path):
    (tmp_path / "a.csv").write_text("x" * 100_000 + "\n")
    with pytest.raises(CorpusError) as error:
        list(read_pieces([str(tmp_path / "a.csv")], CorpusSettings()))
    assert len(str(error.value)) < 1000
