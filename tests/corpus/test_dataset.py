"""Hugging Face datasets by name, tried on folders and on what stands in for the network."""

import json

import datasets
import pytest
from pyarrow import Table, parquet

from nextword.base.errors import CorpusError
from nextword.corpus.documents import find_files, read_pieces, whole_documents
from nextword.corpus.formats import all_schemes
from nextword.corpus.options import CorpusSettings
from nextword.corpus.split import scan
from nextword.corpus.tally import Tally

DOCUMENTS = ["We are all humans", "één 猫\r\n\r\nlast ", "   \n", 'x, "y"\n' * 40_000]


def read(path, **settings):
    settings = CorpusSettings(**settings)
    return scan(read_pieces(find_files([path]), settings))


def expected(documents):
    return scan(whole_documents(documents))


def refusal(path, **settings):
    with pytest.raises(CorpusError) as error:
        read(path, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def dataset_of(documents, field="text"):
    return datasets.Dataset.from_dict({"n": [1] * len(documents), field: documents})


def write_jsonl(file, documents):
    file.write_text("".join(json.dumps({"n": 1, "text": text}) + "\n" for text in documents))


def write_parquet(file, documents):
    table = Table.from_pydict({"n": [1] * len(documents), "text": documents})
    parquet.write_table(table, file)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep what `datasets` writes down inside the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_every_scheme_is_known_by_its_beginning():
    for scheme, module in all_schemes().items():
        assert scheme.endswith(":")
        assert module.__doc__
        assert callable(module.read)
        assert find_files([f"{scheme}any/name?split=x"]) == [f"{scheme}any/name?split=x"]
    assert set(all_schemes()) == {"dataset:"}


def test_a_saved_dataset_holds_the_same_documents(tmp_path):
    dataset_of([*DOCUMENTS, None]).save_to_disk(tmp_path / "one")
    assert read(f"dataset:{tmp_path}/one") == expected(DOCUMENTS)
    tally = Tally()
    list(read_pieces([f"dataset:{tmp_path}/one"], CorpusSettings(), tally))
    assert tally.records == len(DOCUMENTS) + 1
    first = f"dataset:{tmp_path}/one, row {len(DOCUMENTS) + 1}"
    assert tally.as_dict()["null"] == {"count": 1, "first": first}
    splits = {"train": DOCUMENTS, "validation": ["held", "out"]}
    datasets.DatasetDict({name: dataset_of(texts) for name, texts in splits.items()}).save_to_disk(
        tmp_path / "two"
    )
    assert read(f"dataset:{tmp_path}/two") == expected(DOCUMENTS)
    assert read(f"dataset:{tmp_path}/two?split=validation") == expected(["held", "out"])
    words = refusal(f"dataset:{tmp_path}/two?split=validaton")
    assert "Did you mean validation?" in words


def test_a_saved_split_is_no_other_split(tmp_path):
    rows = datasets.Dataset.from_dict({"text": ["held out"]}, split="validation")
    rows.save_to_disk(tmp_path / "one")
    assert read(f"dataset:{tmp_path}/one") == expected(["held out"])
    assert read(f"dataset:{tmp_path}/one?split=validation") == expected(["held out"])
    assert 'no split "train", only validation' in refusal(f"dataset:{tmp_path}/one?split=train")


@pytest.mark.parametrize(
    ("suffix", "write"), [(".jsonl", write_jsonl), (".parquet", write_parquet)]
)
def test_a_folder_of_data_files_is_a_dataset(suffix, write, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / f"train{suffix}", DOCUMENTS)
    write(folder / f"validation{suffix}", ["held out"])
    assert read(f"dataset:{folder}") == expected(DOCUMENTS)
    assert read(f"dataset:{folder}?split=validation") == expected(["held out"])
    assert "validation" in refusal(f"dataset:{folder}?split=test")
    words = refusal(f"dataset:{folder}", field="txt")
    assert "only n, text; name the right one with --corpus.field. Did you mean text?" in words


def test_a_dataset_column_that_is_missing_or_no_text(tmp_path):
    dataset_of(["one"], "body").save_to_disk(tmp_path / "one")
    assert read(f"dataset:{tmp_path}/one", field="body") == expected(["one"])
    words = refusal(f"dataset:{tmp_path}/one", field="boddy")
    assert 'no column "boddy", only n, body' in words
    assert "Did you mean body?" in words
    assert 'row 1: the column "n" holds int, not text' in refusal(
        f"dataset:{tmp_path}/one", field="n"
    )


def test_a_streamed_dataset_of_unknown_columns(monkeypatch):
    rows = datasets.IterableDataset.from_generator(
        lambda: iter([{"n": 1, "text": "one"}, {"n": 2, "text": "two"}])
    )
    assert rows.column_names is None
    asked = []

    def load(*args, **options):
        asked.append((args, options))
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read("dataset:some/name?config=en&split=test") == expected(["one", "two"])
    assert asked == [(("some/name", "en"), {"split": "test", "revision": None, "streaming": True})]
    assert "only n, text" in refusal("dataset:some/name", field="body")
    assert asked[-1] == (
        ("some/name", None),
        {"split": "train", "revision": None, "streaming": True},
    )


def test_a_dataset_out_of_reach_is_one_line(monkeypatch):
    def fail(*args, **options):
        raise ConnectionError("Couldn't reach the Hub\n(no route)\n" + "x" * 1000)

    monkeypatch.setattr(datasets, "load_dataset", fail)
    words = refusal("dataset:some/name")
    assert words.startswith("dataset:some/name: the dataset cannot be read (Couldn't reach the Hub")
    assert "huggingface.co" in words
    assert len(words) < 600


def test_a_damaged_dataset_is_one_line(tmp_path):
    dataset_of(["one"] * 100).save_to_disk(tmp_path / "one")
    (tmp_path / "one" / "data-00000-of-00001.arrow").write_bytes(b"ARROW")
    assert f"dataset:{tmp_path}/one: the dataset cannot be read (" in refusal(
        f"dataset:{tmp_path}/one"
    )


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("dataset:", "has no name"),
        ("dataset:a/b?spilt=train", "Did you mean split?"),
        ("dataset:./missing", "no such folder"),
        ("dataset:/missing/folder", "no such folder"),
    ],
)
def test_a_dataset_address_that_cannot_be(path, word):
    words = refusal(path)
    assert words.startswith(f"{path}: ")
    assert word in words
