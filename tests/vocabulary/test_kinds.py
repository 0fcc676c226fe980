"""Every kind of vocabulary, on every script, with ids that other programs give too."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from nextword.base.errors import VocabularyError
from nextword.vocabulary.compare import measure
from nextword.vocabulary.fast import BulkEncoder, fast_encoder
from nextword.vocabulary.kinds import RESERVED, UNKNOWN, find_kind, names
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.scripts import bytes_per_token_by_script, script_of
from nextword.vocabulary.source import load_source
from nextword.vocabulary.tokenizer import Vocabulary
from nextword.vocabulary.train import train_vocabulary

SCRIPTS = {
    "chinese": "人人都会犯错，学习使人进步。",
    "thai": "มนุษย์ทุกคนเกิดมาเพื่อเรียนรู้",
    "arabic": "كلنا بشر ولدنا لنخطئ ونتعلم",
    "devanagari": "हम सब इंसान गलतियाँ करने के लिए पैदा हुए हैं",
    "symbols": "👍🏽 👩‍👩‍👧 🇺🇳 ∑≠∞",
    "latin": "def f(x):\n\treturn {'a': x**2}  # naïve — “quoted”\r\n",
}
TEXT = "\n".join(SCRIPTS.values())
BUILT = {
    kind: train_vocabulary([TEXT] * 5, 5 * len(TEXT), VocabularySettings(kind=kind, size=700))
    for kind in names()
}


def test_the_kinds_are_these():
    assert names() == ["bpe", "byte", "char", "unigram", "word", "wordpiece"]
    with pytest.raises(VocabularyError, match="Did you mean word"):
        find_kind("wrod")


@pytest.mark.parametrize("kind", names())
@pytest.mark.parametrize("script", SCRIPTS)
def test_text_in_any_script_comes_back(kind, script):
    vocabulary = BUILT[kind]
    ids = vocabulary.encode(SCRIPTS[script])
    assert vocabulary.decode(ids) == SCRIPTS[script]
    assert b"".join(vocabulary.piece_bytes(id_) for id_ in ids) == SCRIPTS[script].encode()
    assert vocabulary.gives_back(SCRIPTS[script])


@pytest.mark.parametrize("kind", names())
def test_what_claims_to_be_lossless_gives_back_what_it_never_saw(kind):
    other = "Ωμέγα қазақ тілі ᚠᚢᚦ \x00\x7f ๑๒๓ ## ⁀⁀ " + "長" * 500
    vocabulary = BUILT[kind]
    assert vocabulary.gives_back(other) == vocabulary.is_lossless
    assert vocabulary.is_lossless or vocabulary.unknown_id in vocabulary.encode(other)


@pytest.mark.parametrize("kind", names())
def test_transformers_gives_the_same_ids_in_every_script(kind, tmp_path):
    from transformers import AutoTokenizer

    BUILT[kind].save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*SCRIPTS.values(), f"a {RESERVED[0]} b"):
        assert theirs(text, add_special_tokens=False)["input_ids"] == BUILT[kind].encode(text)
    assert len(theirs) == len(BUILT[kind])


def test_words_are_pieces_with_the_space_before_them():
    vocabulary = train_vocabulary(
        ["We are all humans, born to learn."] * 2, 66, VocabularySettings(kind="word")
    )
    pieces = [vocabulary.piece(id_) for id_ in vocabulary.encode("We are all humans, born")]
    assert pieces == ["We", " are", " all", " humans", ",", " born"]
    assert vocabulary.piece(vocabulary.encode("zebra")[0]) == UNKNOWN


def test_a_word_vocabulary_keeps_the_most_frequent():
    text = "often " * 50 + " ".join(f"rare{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" * 20)
    vocabulary = train_vocabulary([text], len(text), VocabularySettings(kind="word", size=260))
    assert vocabulary.unknown_id not in vocabulary.encode(" often")


def test_wordpiece_takes_the_longest_piece_first():
    vocabulary = train_vocabulary(
        ["learning learned learner learn"] * 30, 900, VocabularySettings(kind="wordpiece", size=600)
    )
    pieces = [vocabulary.piece(id_) for id_ in vocabulary.encode("learn learns")]
    assert pieces[0] == "learn"
    assert "".join(pieces) == "learn learns"


@pytest.mark.parametrize("kind", sorted(set(names()) - {"unigram"}))
def test_the_same_text_gives_the_same_vocabulary(kind):
    settings = VocabularySettings(kind=kind, size=700)
    again = train_vocabulary([TEXT] * 5, 5 * len(TEXT), settings)
    assert again.tokenizer.to_str() == BUILT[kind].tokenizer.to_str()


def test_bytes_a_token_are_told_by_script():
    found = bytes_per_token_by_script(BUILT["byte"], TEXT)
    assert set(found) == set(SCRIPTS)
    assert all(value == pytest.approx(1) for value in found.values())
    latin_only = train_vocabulary(
        [SCRIPTS["latin"]] * 9, 900, VocabularySettings(kind="bpe", size=400)
    )
    found = bytes_per_token_by_script(latin_only, SCRIPTS["latin"] + SCRIPTS["chinese"])
    assert found["latin"] > 2 * found["chinese"]


@pytest.mark.parametrize(
    ("letter", "script"),
    [
        ("a", "latin"),
        ("漢", "chinese"),
        ("ก", "thai"),
        ("ж", "cyrillic"),
        ("3", "symbols"),
        ("\u0301", "symbols"),
        ("あ", "japanese"),
    ],
)
def test_a_letter_has_a_script(letter, script):
    assert script_of(letter) == script


def foreign(tmp_path, config=None, model=None, normalizer=None):
    tokenizer = Tokenizer(
        model or models.WordLevel({"<unk>": 0, "we": 1, "are": 2, "</s>": 3}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_vocabulary_from_elsewhere_gets_what_it_lacks(tmp_path):
    vocabulary = load_source(foreign(tmp_path))
    assert vocabulary.reserved == ("</s>", *RESERVED[1:])
    assert (vocabulary.end_id, vocabulary.pad_id, vocabulary.mask_id) == (3, 4, 5)
    assert vocabulary.encode("we are who") == [1, 2, 0]
    assert vocabulary.unknown_id == 0
    assert not vocabulary.is_lossless
    assert load_source(tmp_path / "tokenizer.json").reserved == vocabulary.reserved


def test_its_configuration_names_its_end_of_text(tmp_path):
    found = load_source(foreign(tmp_path, {"eos_token": {"content": "are"}, "pad_token": "are"}))
    assert found.reserved == ("are", *RESERVED[1:])


def test_a_vocabulary_without_any_end_gets_one(tmp_path):
    place = foreign(tmp_path, model=models.WordLevel({"<unk>": 0, "we": 1}, unk_token="<unk>"))
    assert load_source(place).reserved == RESERVED


def test_a_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(VocabularyError, match=r"nothing\.json: no such file"):
        load_source(tmp_path / "nothing.json")
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(VocabularyError, match=r"tokenizer_config\.json: damaged"):
        load_source(foreign(tmp_path))


def test_pieces_of_other_worlds_are_shown_as_text(tmp_path):
    entries = {"<unk>": 0, "▁we": 1, "<0x0A>": 2, "</s>": 3}
    tokenizer = Tokenizer(models.BPE(entries, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    sentencepiece = load_source(tmp_path)
    assert sentencepiece.piece(1) == " we"
    assert sentencepiece.piece_bytes(2) == b"\n"
    bert = Tokenizer(models.WordPiece({"[UNK]": 0, "learn": 1, "##ing": 2}, unk_token="[UNK]"))
    pieces = Vocabulary(bert, "WordPiece", ["learn"])
    assert pieces.piece(2) == "ing"


def test_what_changes_text_is_noticed(tmp_path):
    lower = load_source(foreign(tmp_path, normalizer=normalizers.Lowercase()))
    assert not lower.gives_back("We are")
    assert not lower.spells_exactly
    assert BUILT["bpe"].spells_exactly


@pytest.mark.parametrize("kind", ["bpe", "byte", "char"])
def test_the_fast_way_gives_the_ids_of_tokenizers(kind):
    vocabulary = BUILT[kind]
    assert fast_encoder(vocabulary) is not None
    texts = [*SCRIPTS.values(), f"a {RESERVED[0]} b", "", "Ж ᚠ \ud800 x", " \n\n  lines\n"]
    encoder = BulkEncoder(vocabulary)
    found = [ids.tolist() for ids in encoder.encode(texts)]
    assert encoder.is_fast
    assert found == [vocabulary.encode(text) for text in texts]


@pytest.mark.parametrize("kind", ["unigram", "word", "wordpiece"])
def test_where_there_is_no_fast_way_tokenizers_does_it(kind):
    encoder = BulkEncoder(BUILT[kind])
    assert [ids.tolist() for ids in encoder.encode([TEXT])] == [BUILT[kind].encode(TEXT)]


def test_a_fast_way_with_other_ids_is_not_taken(monkeypatch):
    from nextword.vocabulary import fast

    right = fast_encoder(BUILT["bpe"])
    monkeypatch.setattr(
        fast, "fast_encoder", lambda vocabulary: lambda texts: [ids + 1 for ids in right(texts)]
    )
    encoder = BulkEncoder(BUILT["bpe"])
    assert [ids.tolist() for ids in encoder.encode([TEXT])] == [BUILT["bpe"].encode(TEXT)]
    assert not encoder.is_fast


def test_a_fast_way_that_goes_wrong_later_is_noticed(monkeypatch):
    from nextword.vocabulary import fast

    right, calls = fast_encoder(BUILT["bpe"]), []

    def wrong_later(texts):
        calls.append(1)
        return [ids[:-1] if len(calls) > 3 else ids for ids in right(texts)]

    monkeypatch.setattr(fast, "fast_encoder", lambda vocabulary: wrong_later)
    monkeypatch.setattr(fast, "CHECK_EVERY", 2)
    encoder = BulkEncoder(BUILT["bpe"])
    for _ in range(3):
        encoder.encode([TEXT])
    with pytest.raises(fast.DisagreementError):
        encoder.encode([TEXT])


def test_a_vocabulary_is_measured_on_a_text():
    vocabulary = train_vocabulary(
        ["one two three"] * 40, 520, VocabularySettings(kind="word", size=260)
    )
    found = measure(vocabulary, "one two three four", "one two")
    assert found.words_whole == 3 / 4
    assert found.unknown == 1 / 4
    assert found.bytes_per_token == 18 / 4
    assert found.pieces == ["one", " two"]
    byte = measure(BUILT["byte"], "one a", "a")
    assert (byte.bytes_per_token, byte.words_whole) == (1, 1 / 2)
    with pytest.raises(VocabularyError, match="no text"):
        measure(vocabulary, "", "one")
