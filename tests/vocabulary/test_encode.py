import json
import shutil
import threading
import time

import numpy as np
import pytest
from filelock import FileLock

from nextword.base.errors import CorpusError
from nextword.corpus.documents import whole_documents
from nextword.corpus.options import CorpusSettings
from nextword.corpus.split import Corpus
from nextword.vocabulary import encode
from nextword.vocabulary.encode import open_prepared, prepare
from nextword.vocabulary.options import VocabularySettings

DOCUMENTS = [
    f"Document {number} says ünïcode and more.\n" * (1 + number % 5) for number in range(200)
]


def corpus(documents=DOCUMENTS):
    return Corpus("test", lambda: whole_documents(documents))


def run(documents=DOCUMENTS, kind="byte", **settings):
    return prepare(
        corpus(documents), CorpusSettings(**settings), VocabularySettings(kind=kind, size=300)
    )


@pytest.mark.parametrize("kind", ["bpe", "byte", "char"])
def test_every_document_comes_back_with_its_bytes(place, kind):
    prepared = run(kind=kind)
    found = []
    for stream in (prepared.train, prepared.holdout):
        for number in range(stream.num_documents):
            ids = stream.document(number)
            assert ids[-1] == prepared.vocabulary.end_id
            text = prepared.vocabulary.decode(ids.tolist())
            assert stream.document_bytes[number] == len(text.encode())
            found.append(text)
    assert sorted(found) == sorted(DOCUMENTS)


def test_the_layout_is_datatroves(place):
    prepared = run()
    tokens = np.fromfile(prepared.folder / "train-00000.ds", dtype="<u2")
    ends = np.fromfile(prepared.folder / "train-00000.ds.index", dtype="<u8")
    assert ends[-1] == len(tokens) == len(prepared.train)
    assert (tokens[ends - 1] == prepared.vocabulary.end_id).all()


def test_the_same_text_is_found_again_and_another_is_not(place):
    first = run()
    assert not first.was_cached
    assert run().was_cached
    assert not run([*DOCUMENTS, "one more"]).was_cached
    assert not run(holdout=0.3).was_cached


def test_an_interrupted_preparation_goes_on_at_the_next_shard(place, monkeypatch):
    whole = run()
    tokens = whole.train.read(0, len(whole.train))
    monkeypatch.setenv("NEXTWORD_CACHE", str(place.folder / "second"))
    monkeypatch.setattr(encode, "SHARD_BYTES", 1000)
    monkeypatch.setattr(encode, "BATCH_PIECES", 7)
    written = []
    original = encode._write_shard

    def stop_at_third(*args):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(1)
        original(*args)

    monkeypatch.setattr(encode, "_write_shard", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.setattr(encode, "_write_shard", original)
    resumed = run()
    assert resumed.facts["shards"] > 3
    assert np.array_equal(resumed.train.read(0, len(resumed.train)), tokens)
    assert resumed.train.document_ends.tolist() == whole.train.document_ends.tolist()


def test_one_killed_at_its_very_first_line_goes_on(place, monkeypatch):
    whole = run()
    monkeypatch.setenv("NEXTWORD_CACHE", str(place.folder / "second"))
    folder = place.folder / "second" / whole.folder.name
    folder.mkdir(parents=True)
    (folder / ".progress.json.4711").write_text('{"ke')  # written aside, not yet renamed
    assert run().folder == folder
    for words in ("", "{", "[]", "3"):
        folder = place.folder / "third" / whole.folder.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "progress.json").write_text(words)
        monkeypatch.setenv("NEXTWORD_CACHE", str(place.folder / "third"))
        with pytest.raises(CorpusError, match="not an unfinished preparation"):
            run()


def test_reading_across_shards_and_before_the_start(place, monkeypatch):
    monkeypatch.setattr(encode, "SHARD_BYTES", 1000)
    monkeypatch.setattr(encode, "BATCH_PIECES", 7)
    stream = run().train
    whole = np.concatenate([stream.document(number) for number in range(stream.num_documents)])
    assert np.array_equal(stream.read(0, len(stream)), whole)
    border = stream._starts[1]
    assert np.array_equal(stream.read(border - 5, border + 5), whole[border - 5 : border + 5])
    assert stream.read(-1, 2).tolist() == [stream.end_id, *whole[:2].tolist()]


def test_the_holdout_holds_at_most_a_million_tokens_unless_asked(place, monkeypatch):
    monkeypatch.setattr(encode, "HOLDOUT_TOKENS", 300)
    limited = run()
    assert 0 < len(limited.holdout) <= 300 + 1
    monkeypatch.setenv("NEXTWORD_CACHE", str(place.folder / "second"))
    assert len(run(holdout=0.1).holdout) > 300


def test_the_vocabulary_is_learned_from_the_training_part_only(place):
    text = "abc " * 900 + "xyz " * 100
    vocabulary = run([text], kind="char").vocabulary
    assert vocabulary.encode("abc") != [vocabulary.unknown_id] * 3
    assert vocabulary.encode("xyz") == [vocabulary.unknown_id] * 3


def test_unknown_characters_are_counted(place):
    assert run(["abc " * 900 + "xyz " * 100], kind="char").facts["unknown_tokens"] == 300


def test_a_folder_without_a_manifest_is_not_opened(place):
    prepared = run()
    (prepared.folder / "manifest.json").unlink()
    with pytest.raises(CorpusError, match="no prepared text"):
        open_prepared(prepared.folder)


def test_the_manifest_says_what_was_found(place):
    prepared = run([*DOCUMENTS, DOCUMENTS[0]])
    facts = json.loads((prepared.folder / "manifest.json").read_text())
    assert facts["documents"] == 201
    assert facts["duplicate_documents"] == 1
    assert facts["bytes"] == sum(len(text.encode()) for text in [*DOCUMENTS, DOCUMENTS[0]])
    assert facts["train_tokens"] + facts["holdout_tokens"] == facts["bytes"] + 201


def test_one_long_document_goes_on_from_shard_to_shard_and_is_resumed_within(place, monkeypatch):
    """A text that is one document larger than many shards, killed in its middle."""
    text = "".join(f"line {number} says ünïcode and more.\n" for number in range(60_000))
    whole = run([text], kind="byte")
    tokens = whole.train.read(0, len(whole.train))
    monkeypatch.setenv("NEXTWORD_CACHE", str(place.folder / "second"))
    monkeypatch.setattr(encode, "SHARD_BYTES", 300_000)
    monkeypatch.setattr(encode, "BATCH_PIECES", 1)
    original, written = encode._write_shard, []

    def stop_at_fourth(*args):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(1)
        original(*args)

    monkeypatch.setattr(encode, "_write_shard", stop_at_fourth)
    with pytest.raises(KeyboardInterrupt):
        run([text], kind="byte")
    read = []

    def count(batches, *args):
        read.append(1)
        original(batches, *args)

    monkeypatch.setattr(encode, "_write_shard", count)
    resumed = run([text], kind="byte")
    assert resumed.facts["shards"] == 3 + len(read) > 5
    assert np.array_equal(resumed.train.read(0, len(resumed.train)), tokens)
    assert resumed.train.document_ends.tolist() == [len(tokens)]
    assert resumed.train.document_bytes.tolist() == [len(tokens) - 1]
    assert resumed.holdout.document_bytes.tolist() == whole.holdout.document_bytes.tolist()


def test_a_fast_encoder_that_goes_wrong_on_the_way_is_replaced_and_nothing_of_it_stays(
    place, monkeypatch
):
    right = run(kind="bpe")
    tokens = right.train.read(0, len(right.train)).copy()
    monkeypatch.setenv("NEXTWORD_CACHE", str(place.folder / "second"))
    monkeypatch.setattr(encode, "BATCH_PIECES", 7)
    monkeypatch.setattr(encode, "SHARD_BYTES", 1000)
    from nextword.vocabulary import fast

    made, calls = fast.fast_encoder, []

    def wrong(vocabulary):
        encoder = made(vocabulary)

        def encode_wrongly(texts):
            calls.append(1)
            return [ids[:-1] if len(calls) > 4 else ids for ids in encoder(texts)]

        return encode_wrongly

    monkeypatch.setattr(fast, "fast_encoder", wrong)
    monkeypatch.setattr(fast, "CHECK_EVERY", 3)
    said = []
    found = prepare(
        corpus(), CorpusSettings(), VocabularySettings(kind="bpe", size=300), report=said.append
    )
    assert any("beginning again" in line for line in said)
    assert np.array_equal(found.train.read(0, len(found.train)), tokens)


def test_bits_are_withheld_where_decoding_is_not_the_identity(place):
    assert run(kind="bpe").bits_withheld == ""
    assert run(kind="wordpiece").bits_withheld == ""
    found = run(["abc " * 900 + "xyz " * 100], kind="char")
    assert "does not hold all" in found.bits_withheld
    assert run(["abc " * 1000], kind="char").bits_withheld == ""


def test_a_source_that_changes_the_text_withholds_bits(place, tmp_path):
    from tokenizers import Tokenizer, models, normalizers

    entries = {letter: id_ for id_, letter in enumerate("abcdefghijklmnopqrstuvwxyz .\n0123456789")}
    tokenizer = Tokenizer(models.BPE(entries, []))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    settings = VocabularySettings(source=str(tmp_path / "tokenizer.json"))
    found = prepare(corpus(), CorpusSettings(), settings)
    assert "does not give the text back" in found.bits_withheld
    assert found.facts["vocabulary"] == "BPE"


def test_scripts_are_written_down(place):
    found = run([f"Документ номер {number}, and latin.\n" * 3 for number in range(40)])
    assert {"cyrillic", "latin"} <= set(found.facts["scripts"])


def test_two_that_prepare_the_same_text_at_once_wait_for_each_other(place):
    first = run(kind="byte")
    lock = FileLock(first.folder.parent / f"{first.folder.name}.lock")
    shutil.rmtree(first.folder)
    said, made = [], []
    chosen = VocabularySettings(kind="byte", size=300)

    def another():
        made.append(prepare(corpus(), CorpusSettings(), chosen, report=said.append))

    with lock:
        waiting = threading.Thread(target=another)
        waiting.start()
        while not said:
            time.sleep(0.01)
        assert said == ["another process prepares the same text: waiting for it"]
        assert not first.folder.exists()
    waiting.join()
    assert made[0].folder == first.folder
    assert np.array_equal(made[0].train.read(0, 50), first.train.read(0, 50))


@pytest.mark.parametrize("side", ["train", "holdout"])
@pytest.mark.parametrize(
    ("ending", "change"),
    [
        ("index", lambda ends: ends - 1),  # each document ends a token early
        ("index", lambda ends: np.append(ends[:-1], np.uint64(2**63))),
        ("bytes", lambda sizes: sizes * 2),
        ("bytes", lambda sizes: sizes[:-1]),
    ],
)
def test_a_changed_side_car_is_named_and_changes_no_figure(tmp_path, side, ending, change):
    folder = tmp_path / "made"
    prepare(corpus(), CorpusSettings(), VocabularySettings(kind="byte"), folder=folder)
    file = folder / f"{side}-00000.ds.{ending}"
    change(np.fromfile(file, dtype="<u8")).astype("<u8").tofile(file)
    with pytest.raises(CorpusError, match=rf"{file.name}: missing or changed"):
        open_prepared(folder)
