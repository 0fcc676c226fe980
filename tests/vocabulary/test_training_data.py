"""From what the command line names to text that is ready: folders, mixtures, others' shards."""

import json
import random

import numpy as np
import pytest

from nextword.base.errors import CorpusError, VocabularyError
from nextword.corpus.options import CorpusSettings
from nextword.corpus.shares import read_shares
from nextword.vocabulary.leakage_report import check_leaks, describe_leaks
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.prepared import open_prepared
from nextword.vocabulary.training_data import gather

CORPUS, BYTES = CorpusSettings(), VocabularySettings(kind="byte")


def write_texts(folder, name, documents=30, seed=0):
    source = random.Random(f"{name}{seed}")
    rows = [
        " ".join(source.choice(("red", "blue", "seven", "learn", name)) for _ in range(60))
        for _ in range(documents)
    ]
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return str(file)


def tokens_of(stream):
    return stream.read(0, len(stream)).tolist()


@pytest.mark.parametrize(
    ("paths", "shares"),
    [
        (["a.txt", "b=c.txt"], []),
        (["a.txt=2", "b.txt"], [("a.txt", 2), ("b.txt", 1)]),
        (["books/=.5", "python=1.25"], [("books/", 0.5), ("python", 1.25)]),
        (["dataset:x?config=2"], []),
        (["a=1e-3", "b=x"], [("a", 0.001), ("b=x", 1)]),
    ],
)
def test_weights_are_read(paths, shares):
    assert [tuple(share) for share in read_shares(paths)] == shares


@pytest.mark.parametrize("paths", [["a=0", "b=1"], ["a=1", "a=2"], ["a=-1"], ["a=nan"], ["a=inf"]])
def test_weights_that_mean_nothing_are_refused(paths):
    with pytest.raises(CorpusError):
        read_shares(paths)


def test_a_file_may_be_called_like_a_weight(place):
    (place.folder / "a=1").write_text("text")
    assert read_shares(["a=1"]) == []


def test_a_prepared_folder_is_trained_on_as_it_is(place):
    text = write_texts(place.folder, "one")
    made = gather([text], CORPUS, BYTES, folder=place.folder / "made")
    again = gather(["made"], CORPUS, VocabularySettings())
    assert tokens_of(again.train) == tokens_of(made.train)
    assert again.vocabulary.kind == "byte"
    assert gather([text], CORPUS, BYTES, folder=place.folder / "made").was_cached


def test_a_folder_that_holds_something_else_is_left_alone(place):
    one, two = (write_texts(place.folder, name) for name in ("one", "two"))
    gather([one], CORPUS, BYTES, folder=place.folder / "made")
    with pytest.raises(CorpusError, match="choose another folder"):
        gather([two], CORPUS, BYTES, folder=place.folder / "made")
    (place.folder / "mine").mkdir()
    (place.folder / "mine" / "diary.txt").write_text("dear diary")
    with pytest.raises(CorpusError, match="not empty"):
        gather([one], CORPUS, BYTES, folder=place.folder / "mine")
    assert [file.name for file in (place.folder / "mine").iterdir()] == ["diary.txt"]


def test_a_prepared_folder_keeps_its_vocabulary(place):
    gather([write_texts(place.folder, "one")], CORPUS, BYTES, folder=place.folder / "made")
    others = VocabularySettings(kind="char")
    gather([write_texts(place.folder, "two")], CORPUS, others, folder=place.folder / "other")
    with pytest.raises(CorpusError, match="prepared with another vocabulary"):
        gather(["made"], CORPUS, VocabularySettings(source="other"))
    with pytest.raises(VocabularyError, match="elsewhere"):
        gather(["made"], CORPUS, VocabularySettings(source="elsewhere"))
    assert gather(["made"], CORPUS, VocabularySettings(source="made")).was_cached
    with pytest.raises(CorpusError, match="give each a weight"):
        gather(["made", "made"], CORPUS, BYTES)


def test_a_mixture_keeps_each_text_whole_with_one_vocabulary(place):
    one, two = (write_texts(place.folder, name) for name in ("one", "two"))
    settings = VocabularySettings(size=300)
    mixed = gather([f"{one}=2", f"{two}=1"], CORPUS, settings)
    assert [portion.weight for portion in mixed.portions] == [2, 1]
    alone = [gather([path], CORPUS, settings) for path in (one, two)]
    for portion, single in zip(mixed.portions, alone, strict=True):
        decoded = mixed.vocabulary.decode(tokens_of(portion.train))
        assert decoded == single.vocabulary.decode(tokens_of(single.train))
    assert len(mixed.train) == sum(len(portion.train) for portion in mixed.portions)
    border = len(mixed.portions[0].train)
    found = mixed.train.read(border - 3, border + 3)
    assert found.tolist() == [
        *mixed.portions[0].train.read(border - 3, border),
        *mixed.portions[1].train.read(0, 3),
    ]
    assert mixed.holdout.num_documents == sum(one.holdout.num_documents for one in alone)
    assert mixed.holdout.document_bytes.sum() == sum(
        one.holdout.document_bytes.sum() for one in alone
    )
    assert gather([f"{one}=2", f"{two}=1"], CORPUS, settings).was_cached
    assert mixed.facts["train_tokens"] == len(mixed.train)


def test_a_mixture_of_prepared_and_plain_text_takes_the_prepared_vocabulary(place):
    one, two = (write_texts(place.folder, name) for name in ("one", "two"))
    made = gather([one], CORPUS, VocabularySettings(size=300), folder=place.folder / "made")
    mixed = gather(["made=1", f"{two}=1"], CORPUS, VocabularySettings())
    assert mixed.vocabulary.tokenizer.to_str() == made.vocabulary.tokenizer.to_str()
    gather([two], CORPUS, BYTES, folder=place.folder / "bytes")
    with pytest.raises(CorpusError, match="different vocabularies"):
        gather(["made=1", "bytes=1"], CORPUS, VocabularySettings())
    gather([f"{one}=1", f"{two}=1"], CORPUS, BYTES, folder=place.folder / "mixed")
    with pytest.raises(CorpusError, match="is a mixture itself"):
        gather(["mixed=1", f"{one}=1"], CORPUS, BYTES)


def test_a_prepared_mixture_can_be_moved(place):
    one, two = (write_texts(place.folder, name) for name in ("one", "two"))
    made = gather([f"{one}=1", f"{two}=3"], CORPUS, BYTES, folder=place.folder / "mixed")
    tokens = tokens_of(made.train)
    (place.folder / "mixed").rename(place.folder / "moved")
    assert tokens_of(gather(["moved"], CORPUS, BYTES).train) == tokens


def write_with_datatrove(folder, jsonl, vocabulary, eos="<|endoftext|>", tasks=1, **options):
    """Run datatrove's own reader and tokenizer, as docs/scale.md shows."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    LocalPipelineExecutor(
        pipeline=[
            JsonlReader(str(jsonl.parent), glob_pattern=jsonl.name),
            DocumentTokenizer(
                str(folder), str(vocabulary), eos_token=eos, save_final_metadata=False, **options
            ),
        ],
        tasks=tasks,
        logging_dir=str(folder.parent / f"{folder.name}-logs"),
    ).run()


@pytest.fixture
def shards(place, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    text = write_texts(place.folder, "one", documents=50)
    made = gather([text], CORPUS, VocabularySettings(size=300), folder=place.folder / "made")
    write_with_datatrove(
        place.folder / "shards", place.folder / "one.jsonl", made.folder / "tokenizer.json"
    )
    return place


def test_shards_that_datatrove_wrote_train_unchanged(shards):
    before = {file: file.read_bytes() for file in (shards.folder / "shards").rglob("*")}
    found = gather(["shards"], CORPUS, VocabularySettings(source="made"))
    assert found.train.num_documents + found.holdout.num_documents == 50
    assert 0 < len(found.holdout) < len(found.train)
    rows = [
        json.loads(line)["text"] for line in (shards.folder / "one.jsonl").read_text().splitlines()
    ]
    decoded = [
        found.vocabulary.decode(stream.document(number).tolist())
        for stream in (found.train, found.holdout)
        for number in range(stream.num_documents)
    ]
    assert sorted(decoded) == sorted(rows)
    sizes = [len(text.encode()) for text in decoded[-found.holdout.num_documents :]]
    assert found.holdout.document_bytes.tolist() == sizes
    assert {file: file.read_bytes() for file in (shards.folder / "shards").rglob("*")} == before
    done = shards.nextword(
        "train", "shards", "--vocabulary.source", "made", "--training.steps", "3",
        "--model.context", "32", "--name", "theirs",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = shards.nextword("train", "--resume", "theirs", "--training.steps", "5")
    assert done.returncode == 0, done.stderr
    assert "bits/byte" in done.stderr


def test_preparation_divided_among_tasks_gives_the_same_ids(shards):
    """As on a cluster, where each task takes some of the files, with the ids of one process."""
    lines = (shards.folder / "one.jsonl").read_text().splitlines(keepends=True)
    (shards.folder / "many").mkdir()
    for number in range(5):
        (shards.folder / "many" / f"{number}.jsonl").write_text("".join(lines[number::5]))
    source = shards.folder / "made"
    write_with_datatrove(
        shards.folder / "divided", shards.folder / "many" / "*.jsonl",
        source / "tokenizer.json", tasks=3,
    )  # fmt: skip
    assert len(list((shards.folder / "divided").rglob("*.ds"))) == 3
    told = VocabularySettings(source=str(source))

    def ids(found):
        return sorted(
            stream.document(number).tolist()
            for stream in (found.train, found.holdout)
            for number in range(stream.num_documents)
        )

    assert ids(gather(["divided"], CORPUS, told)) == ids(open_prepared(source))


def test_shards_without_a_vocabulary_ask_for_one(shards):
    with pytest.raises(CorpusError, match=r"--vocabulary\.source"):
        gather(["shards"], CORPUS, VocabularySettings())
    (shards.folder / "made" / "tokenizer.json").rename(shards.folder / "shards" / "tokenizer.json")
    assert len(gather(["shards"], CORPUS, VocabularySettings()).train)


def test_shards_of_another_vocabulary_are_refused(shards):
    other = gather([str(shards.folder / "one.jsonl")], CORPUS, BYTES)
    with pytest.raises(CorpusError, match=r"holds id \d+|does not end with"):
        gather(["shards"], CORPUS, VocabularySettings(source=str(other.folder)))


def test_shards_without_end_of_text_are_refused(shards):
    write_with_datatrove(
        shards.folder / "endless", shards.folder / "one.jsonl",
        shards.folder / "made" / "tokenizer.json", eos=None,
    )  # fmt: skip
    with pytest.raises(CorpusError, match="eos_token="):
        gather(["endless"], CORPUS, VocabularySettings(source="made"))


def test_a_shard_that_is_cut_short_is_refused(shards):
    file = next((shards.folder / "shards").rglob("*.ds"))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CorpusError, match="cut short"):
        gather(["shards"], CORPUS, VocabularySettings(source="made"))


def copies(place, share=0.05):
    """Documents of which every tenth comes again with a few words changed."""
    source = random.Random(0)
    words = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "ei", "on", "ur")]
    texts = [" ".join(source.choice(words) for _ in range(200)) for _ in range(120)]
    for text in texts[:60]:
        changed = [source.choice(words) if source.random() < share / 5 else w for w in text.split()]
        texts.append(" ".join(changed))
    file = place.folder / "copies.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(file)


def test_near_copies_of_the_holdout_are_found_shown_and_dropped(place):
    path = copies(place)
    found = gather([path], CORPUS, VocabularySettings(size=600))
    said = []
    leaks = check_leaks(found, said.append)
    assert leaks["share"] > 0.2
    assert len(leaks["examples"]) == 3
    assert "drop_duplicates" in said[0]
    assert "alike" in said[0]
    assert check_leaks(found, said.append) == leaks
    clean = gather([path], CorpusSettings(drop_duplicates=True), VocabularySettings(size=600))
    assert len(clean.train) == len(found.train) - clean.facts["dropped_tokens"] < len(found.train)
    assert tokens_of(clean.holdout) == tokens_of(found.holdout)
    assert check_leaks(clean, said.append)["units"] == 0
    assert clean.facts["train_tokens"] == len(clean.train)
    kept = {tuple(found.train.document(n)) for n in range(found.train.num_documents)}
    assert all(tuple(clean.train.document(n)) in kept for n in range(clean.train.num_documents))


def test_exact_repeats_in_training_are_dropped(place):
    rows = [f"document number {number} " * 20 for number in range(40)] * 2
    (place.folder / "twice.jsonl").write_text(
        "".join(json.dumps({"text": row}) + "\n" for row in rows)
    )
    clean = gather(["twice.jsonl"], CorpusSettings(drop_duplicates=True), BYTES)
    texts = [tuple(clean.train.document(n)) for n in range(clean.train.num_documents)]
    assert len(set(texts)) == len(texts)


def test_dropping_that_was_interrupted_begins_again(place, monkeypatch):
    from nextword.vocabulary import encode

    path, settings = copies(place), CorpusSettings(drop_duplicates=True)
    clean = gather([path], settings, VocabularySettings(size=600), folder=place.folder / "whole")
    tokens, original = tokens_of(clean.train), encode.drop_repeats

    def stop_halfway(folder, vocabulary, shards, report):
        original(folder, vocabulary, shards, report)
        np.asarray([1, 2, 3], dtype="<u2").tofile(folder / "train-00000.ds")
        raise KeyboardInterrupt

    monkeypatch.setattr(encode, "drop_repeats", stop_halfway)
    made = place.folder / "made"
    with pytest.raises(KeyboardInterrupt):
        gather([path], settings, VocabularySettings(size=600), folder=made)
    monkeypatch.setattr(encode, "drop_repeats", original)
    again = gather([path], settings, VocabularySettings(size=600), folder=made)
    assert tokens_of(again.train) == tokens


def test_without_the_library_it_says_that_nothing_was_looked_for():
    assert "pip install rensa" in describe_leaks({"checked": False})


def damage(folder, how):
    train = folder / "train-00000.ds"
    if how == "cut":
        train.write_bytes(train.read_bytes()[: train.stat().st_size // 2 // 2 * 2])
    elif how == "odd":
        train.write_bytes(train.read_bytes()[:-1])
    elif how == "noise":
        train.write_bytes(b"\xfe" * train.stat().st_size)
    elif how == "index":
        (folder / "train-00000.ds.index").write_bytes(b"\0" * 8)
    elif how == "fewer":
        index = folder / "train-00000.ds.index"
        index.write_bytes(index.read_bytes()[:-8])
    elif how == "manifest":
        (folder / "manifest.json").write_text("{}")
    else:
        (folder / "manifest.json").write_text('{"corpus": ')


@pytest.mark.parametrize("how", ["cut", "odd", "noise", "index", "fewer", "manifest", "json"])
def test_a_damaged_prepared_folder_is_refused_with_what_to_do(place, how):
    text = write_texts(place.folder, "one")
    gather([text], CORPUS, VocabularySettings(size=300), folder=place.folder / "made")
    damage(place.folder / "made", how)
    with pytest.raises(CorpusError, match=r"prepare the text again|choose another folder"):
        gather(["made"], CORPUS, VocabularySettings())
    assert not (place.folder / "runs").exists()


def test_a_prepared_folder_with_another_vocabulary_is_refused(place):
    text = write_texts(place.folder, "one")
    gather([text], CORPUS, VocabularySettings(size=300), folder=place.folder / "made")
    gather([text], CORPUS, BYTES, folder=place.folder / "bytes")
    source = place.folder / "bytes" / "tokenizer.json"
    (place.folder / "made" / "tokenizer.json").write_bytes(source.read_bytes())
    with pytest.raises(CorpusError, match="its shards were written with"):
        gather(["made"], CORPUS, VocabularySettings())


def test_damaged_findings_are_found_again(place):
    made = gather([copies(place)], CORPUS, VocabularySettings(size=600))
    first = check_leaks(made, print)
    (made.folder / "leaks.json").write_text("xx")
    assert check_leaks(made, print) == first


def test_an_unfinished_preparation_is_not_taken_for_shards_from_elsewhere(place):
    gather([write_texts(place.folder, "one")], CORPUS, BYTES, folder=place.folder / "made")
    (place.folder / "made" / "manifest.json").unlink()
    with pytest.raises(CorpusError, match="unfinished preparation"):
        gather(["made"], CORPUS, VocabularySettings())


def test_a_folder_of_text_with_shards_somewhere_in_it_is_text(place):
    (place.folder / "texts").mkdir()
    text = write_texts(place.folder / "texts", "one")
    gather([text], CORPUS, BYTES, folder=place.folder / "texts" / "shards")
    assert gather(["texts"], CORPUS, BYTES).facts["documents"] == 30


@pytest.mark.parametrize("folder", ["afile/below", "afile", "memory://made"])
def test_a_place_where_no_folder_can_be_made_is_named(place, folder):
    from pathlib import Path

    (place.folder / "afile").write_text("a file")
    text = write_texts(place.folder, "one")
    with pytest.raises(CorpusError, match=r"afile|memory:"):
        gather([text], CORPUS, BYTES, folder=Path(folder))
    assert not (place.folder / "memory:").exists()


def test_a_text_has_the_name_it_was_asked_by(place):
    text = write_texts(place.folder, "one")
    gather([text], CORPUS, BYTES)
    (place.folder / "two.jsonl").write_bytes((place.folder / "one.jsonl").read_bytes())
    again = gather(["two.jsonl"], CORPUS, BYTES)
    assert again.was_cached
    assert again.facts["corpus"] == "two.jsonl"
