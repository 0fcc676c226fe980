"""Texts at fsspec addresses, tried on the two that need no network."""

import gzip
import io
import json
import zipfile

import fsspec
import pyarrow
import pytest
from pyarrow import parquet

from nextword.base.errors import CorpusError
from nextword.corpus import addresses
from nextword.corpus.addresses import file_name
from nextword.corpus.documents import find_files, read_pieces, whole_documents
from nextword.corpus.options import CorpusSettings
from nextword.corpus.split import scan

ROWS = "".join(json.dumps({"text": text}) + "\n" for text in ("één", "two\n\nlines", "three"))
FILES = {
    "corpus/a.txt": b"first",
    "corpus/deep/b.jsonl.gz": gzip.compress(ROWS.encode()),
    "corpus/deep/c.csv": b"text\nlast\n",
    "corpus/deep/.hidden.txt": b"no",
    "corpus/picture.png": b"\x89PNG\xff",
    "empty/picture.png": b"\x89PNG\xff",
}
DOCUMENTS = ["first", "één", "two\n\nlines", "three", "last"]


@pytest.fixture(params=["memory", "file"])
def place(request, tmp_path):
    """The address of a folder with the files in it."""
    root = "memory://place" if request.param == "memory" else tmp_path.as_uri()
    for name, content in FILES.items():
        with fsspec.open(f"{root}/{name}", "wb", auto_mkdir=True) as file:
            file.write(content)
    yield root
    fsspec.filesystem("memory").store.clear()
    fsspec.filesystem("memory").pseudo_dirs[:] = [""]


def read(*paths, **settings):
    return scan(read_pieces(find_files(paths), CorpusSettings(**settings)))


def expected(documents):
    return scan(whole_documents(documents))


def refusal(path):
    with pytest.raises(CorpusError) as error:
        read(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_is_itself(place):
    assert find_files([f"{place}/corpus/a.txt"]) == [f"{place}/corpus/a.txt"]
    assert read(f"{place}/corpus/a.txt") == expected(["first"])
    assert read(f"{place}/corpus/deep/b.jsonl.gz") == expected(DOCUMENTS[1:4])


@pytest.mark.parametrize("end", ["", "/"])
def test_a_folder_is_read_recursively_and_in_order(place, end):
    names = ["corpus/a.txt", "corpus/deep/b.jsonl.gz", "corpus/deep/c.csv"]
    assert find_files([f"{place}/corpus{end}"]) == [f"{place}/{name}" for name in names]
    assert read(f"{place}/corpus{end}") == expected(DOCUMENTS)


def test_a_glob_takes_the_files_that_match(place):
    assert find_files([f"{place}/corpus/*"]) == [
        f"{place}/corpus/a.txt",
        f"{place}/corpus/picture.png",
    ]
    assert read(f"{place}/corpus/**/*.jsonl.gz") == expected(DOCUMENTS[1:4])
    assert read(f"{place}/corpus/deep/[bc].*") == expected(DOCUMENTS[1:])


def test_addresses_and_paths_keep_their_order_and_are_read_once(place, tmp_path):
    (tmp_path / "near.txt").write_text("near")
    near, far = str(tmp_path / "near.txt"), f"{place}/corpus/a.txt"
    assert find_files([far, near, far, near]) == [far, near]


def test_every_way_to_find_nothing_is_named(place):
    assert refusal(f"{place}/missing.txt").startswith(f"{place}/missing.txt: no such file")
    assert refusal(f"{place}/missing/*.txt").startswith(f"{place}/missing/*.txt: no file matches")
    words = refusal(f"{place}/empty")
    assert words.startswith(f"{place}/empty: no text in this folder")
    for ending in (".csv", ".jsonl", ".parquet", ".txt", ".zst"):
        assert ending in words


def test_a_file_that_went_away_is_named(place):
    with pytest.raises(CorpusError, match=r"gone\.txt: no such file"):
        list(read_pieces([f"{place}/gone.txt"], CorpusSettings()))


def test_damage_far_away_is_named(place):
    raw = gzip.compress(ROWS.encode() * 100)
    with fsspec.open(f"{place}/cut.jsonl.gz", "wb") as file:
        file.write(raw[:-5])
    assert f"{place}/cut.jsonl.gz: the compressed file is cut short" in refusal(
        f"{place}/cut.jsonl.gz"
    )


def test_parquet_far_away(place):
    out = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": DOCUMENTS}), out)
    with fsspec.open(f"{place}/a.parquet", "wb") as file:
        file.write(out.getvalue())
    assert read(f"{place}/a.parquet") == expected(DOCUMENTS)


def test_files_in_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/one.txt", "one")
        archive.writestr("in/two.csv", "text\ntwo\n")
    rest = f"::{(tmp_path / 'a.zip').as_uri()}"
    names = [f"zip://in/one.txt{rest}", f"zip://in/two.csv{rest}"]
    assert find_files([f"zip://in{rest}"]) == find_files([f"zip://in/*{rest}"]) == names
    assert read(f"zip://in{rest}") == expected(["one", "two"])


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("s3://bucket/a.jsonl.gz", "s3://bucket/a.jsonl.gz"),
        ("https://host/a.csv.gz?download=true#top", "/a.csv.gz"),
        ("s3://bucket/what?.txt", "s3://bucket/what?.txt"),
        ("zip://in/a.csv::s3://bucket/b.zip", "zip://in/a.csv"),
        ("simplecache::s3://bucket/a.txt", "s3://bucket/a.txt"),
        ("plain?.txt", "plain?.txt"),
    ],
)
def test_the_name_that_tells_the_format(address, name):
    assert file_name(address) == name


@pytest.mark.parametrize(
    ("address", "inner", "found", "full"),
    [
        ("s3://bucket/in/", "bucket/in", "bucket/in/a.txt", "s3://bucket/in/a.txt"),
        ("sftp://host/in", "/in", "/in/a.txt", "sftp://host/in/a.txt"),
        ("github://who:what@v1/in", "in", "in/a.txt", "github://who:what@v1/in/a.txt"),
        ("simplecache::s3://b/*", "b/*", "b/a.txt", "simplecache::s3://b/a.txt"),
        ("file://in", "/home/in", "/home/in/a.txt", "file:///home/in/a.txt"),
    ],
)
def test_what_is_found_is_named_through_the_same_address(address, inner, found, full):
    assert addresses._full(address, inner, found) == full


class Failing(io.BytesIO):
    """A stream that fails after its first bytes."""

    largest = 0

    def read(self, size=-1):
        Failing.largest = max(Failing.largest, size if size >= 0 else 1 << 60)
        if block := super().read(size):
            return block
        raise RuntimeError("the line\nwas cut")


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_a_line_cut_while_reading_is_named_and_blocks_are_bounded(suffix, place, monkeypatch):
    raw = gzip.compress(bytes(3_000_000)) if suffix.endswith("gz") else b"a" * 3_000_000
    system = type(fsspec.core.url_to_fs(place)[0])
    with fsspec.open(f"{place}/a{suffix}", "wb") as file:
        file.write(raw)
    monkeypatch.setattr(system, "open", lambda self, path, mode: Failing(raw))
    Failing.largest = 0
    assert refusal(f"{place}/a{suffix}") == (
        f"{place}/a{suffix}: cannot be read (the line was cut); check the address and your access"
    )
    assert 0 < Failing.largest <= addresses.BUFFER_BYTES


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (PermissionError("no"), "no permission to read this; check your access"),
        (ValueError("Bad\nbucket"), "cannot be read (Bad bucket); check the address"),
        (TimeoutError(), "cannot be read (TimeoutError); check the address"),
    ],
)
@pytest.mark.parametrize("method", ["info", "open"])
def test_whatever_a_driver_raises_is_one_line(method, raised, words, place, monkeypatch):
    def fail(*args, **kwargs):
        raise raised

    monkeypatch.setattr(type(fsspec.core.url_to_fs(place)[0]), method, fail)
    assert f"{place}/corpus/a.txt: {words}" in refusal(f"{place}/corpus/a.txt")


def test_an_unknown_kind_of_address_is_named():
    assert refusal("nonsense://a/b.txt").startswith("nonsense://a/b.txt: cannot be read (Protocol")


def test_what_a_driver_finds_in_no_order_is_sorted(place, monkeypatch):
    system = type(fsspec.core.url_to_fs(place)[0])
    find = system.find
    monkeypatch.setattr(system, "find", lambda self, path: find(self, path)[::-1])
    assert read(f"{place}/corpus") == expected(DOCUMENTS)


def test_a_driver_that_refuses_a_patterns_letters_still_finds_it(place, monkeypatch):
    system = type(fsspec.core.url_to_fs(place)[0])
    info = system.info

    def refuse(self, path, **options):
        if isinstance(path, str) and "*" in path:
            raise ValueError("a name holds no *")
        return info(self, path, **options)

    monkeypatch.setattr(system, "info", refuse)
    assert read(f"{place}/corpus/*.txt") == expected(["first"])
