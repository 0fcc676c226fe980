"""The tokens of a text's pieces are the text's: every kind, every pattern, hostile texts."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from nextword.base.errors import CorpusError
from nextword.corpus import documents
from nextword.corpus.documents import SAFE_CUT, Piece, cut
from nextword.corpus.open import open_corpus
from nextword.corpus.options import CorpusSettings
from nextword.vocabulary import cuts
from nextword.vocabulary.cuts import cuts_are_safe, in_pieces
from nextword.vocabulary.encode import prepare
from nextword.vocabulary.kinds import RESERVED, names
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.patterns import PATTERNS
from nextword.vocabulary.source import load_source
from nextword.vocabulary.tokenizer import Vocabulary
from nextword.vocabulary.train import train_vocabulary

SAMPLE = (
    "We are all humans, born to make mistakes.\n\nIt's 1234567 o'clock; I'LL say so!\r\n\r\n"
    "\tdef f(a_b):\r\n        return 'x'  \n\n\n漢字、かな。日本語\n\n"
    "наши дети\u00a0и\u2003мы  \n \n e\u0301 "
)
USED = [kind for kind in names() if kind not in ("byte", "char", "word")]
KINDS = [*itertools.product(USED, PATTERNS), *((kind, "qwen2") for kind in names())]
BUILT = {
    key: train_vocabulary(
        [SAMPLE] * 5, 1, VocabularySettings(kind=key[0], pattern=key[1], size=400)
    )
    for key in dict.fromkeys(KINDS)
}
PARTS = [
    *("one two three.", "a", "it's", "I'LL ", "x1234567", "12", "  ", " ", "\n", "\n\n", "\r\n"),
    *(
        "\t",
        "漢字",
        "、",
        "。",
        "日本語",
        "e\u0301",
        "\u0301",
        "\u00a0",
        "\u3000",
        "_",
        "'",
        "“so”",
    ),
    *("...\n", "\u200d", "👍🏽", "\x00", "²", "½", "Ⅷ", "\x1c", "\x85", "\u2028", "ſ", "ß"),
    *("नमस्ते", "ไทย", "-", "a.b"),
]
HOSTILE = st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=4)), max_size=60).map("".join)


def pieces_of(text, size):
    """Cut a text into pieces of a few characters, as long ones are cut into pieces of many."""
    kept = documents.PIECE_CHARACTERS, documents.LONGEST_PIECE
    documents.PIECE_CHARACTERS, documents.LONGEST_PIECE = size, 1 << 20
    try:
        return [piece.text for piece in cut([Piece(text, True)])]
    finally:
        documents.PIECE_CHARACTERS, documents.LONGEST_PIECE = kept


@pytest.mark.parametrize("key", BUILT, ids="-".join)
@settings(max_examples=40, deadline=None)
@given(text=HOSTILE, size=st.integers(1, 30))
@example(text="one two three.\n\n" * 20, size=7)
@example(text="one  \n two \r\n\r\nthree\t\n" * 20, size=5)
@example(text="f(12345, 'a')\n\n\n    b" * 9, size=3)
def test_pieces_have_the_tokens_of_the_whole(key, text, size):
    vocabulary = BUILT[key]
    assert cuts_are_safe(vocabulary)
    pieces = pieces_of(text, size)
    assert "".join(pieces) == text
    assert [id_ for piece in pieces for id_ in vocabulary.encode(piece)] == vocabulary.encode(text)


def test_hostile_texts_are_cut_at_all():
    text = "".join(PARTS) * 3
    assert len(pieces_of(text, 20)) > 5


@pytest.mark.parametrize("end", ["\n\n", "\r\n", "  \n", "。\n\n", "\n \n\t"])
@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "word"])
def test_what_is_prepared_is_the_whole_texts_tokens(place, kind, end):
    text = f"one two three.{end}" * 12_000
    (place.folder / "a.txt").write_bytes(text.encode())
    chosen = VocabularySettings(kind=kind, size=400)
    made = prepare(open_corpus(["a.txt"], CorpusSettings()), CorpusSettings(), chosen)
    keep = len(text) - round(0.1 * len(text))
    want = [*made.vocabulary.encode(text[:keep]), made.vocabulary.end_id]
    assert np.array_equal(made.train.read(0, len(made.train)), want)


def foreign(tmp_path, change):
    """A BPE of GPT-2's form with something changed, saved as a tokenizer.json and opened again."""
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, " ": 2, "Ġ": 3, "▁": 4}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["</s>"])
    change(tokenizer)
    file = tmp_path / "tokenizer.json"
    tokenizer.save(str(file))
    return load_source(file)


def _set(name, value):
    return lambda tokenizer: setattr(tokenizer, name, value)


SAFE = {
    "as GPT-2": lambda tokenizer: None,
    "normalized": _set("normalizer", normalizers.NFC()),
    "as BERT": _set("pre_tokenizer", pre_tokenizers.BertPreTokenizer()),
    "with a plain entry": lambda tokenizer: tokenizer.add_tokens(["<tool>"]),
}
UNSAFE = {
    "Metaspace": _set("pre_tokenizer", pre_tokenizers.Metaspace()),
    "a prefix": _set("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "no division": _set("pre_tokenizer", pre_tokenizers.ByteLevel(False, use_regex=False)),
    "white space": _set("pre_tokenizer", pre_tokenizers.WhitespaceSplit()),
    "a prepended blank": _set("normalizer", normalizers.Prepend("▁")),
    "an entry of two words": lambda tokenizer: tokenizer.add_tokens(["a b"]),
    "an entry that eats blanks": lambda tokenizer: tokenizer.add_tokens(
        [AddedToken("ab", rstrip=True)]
    ),
}


@pytest.mark.parametrize("name", SAFE)
def test_cuts_are_known_to_be_safe(tmp_path, name):
    assert cuts_are_safe(foreign(tmp_path, SAFE[name]))


@pytest.mark.parametrize("name", UNSAFE)
def test_where_they_are_not_known_to_be_whole_texts_are_encoded(tmp_path, monkeypatch, name):
    vocabulary = foreign(tmp_path, UNSAFE[name])
    assert not cuts_are_safe(vocabulary)
    text = "a b ab  b.\n" * 30
    pieces = [Piece(piece, False) for piece in pieces_of(text, 20)]
    pieces[-1] = Piece(pieces[-1].text, True)
    assert len(pieces) > 3
    assert list(in_pieces(vocabulary, [*pieces, *pieces])) == [Piece(text, True)] * 2
    monkeypatch.setattr(cuts, "LONGEST_WHOLE", 300)
    with pytest.raises(CorpusError, match=r"more than 300 characters.*--corpus\.separator"):
        list(in_pieces(vocabulary, pieces))


def test_a_text_prepared_with_metaspace_has_the_tokens_of_the_whole(place, tmp_path):
    tokenizer = Tokenizer(models.BPE(vocab={c: n for n, c in enumerate("▁abcdefgh.\n")}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(place.folder / "tokenizer.json"))
    text = "abc defg h. " * 12_000
    (place.folder / "a.txt").write_text(text)
    chosen = VocabularySettings(source=str(place.folder / "tokenizer.json"))
    made = prepare(open_corpus(["a.txt"], CorpusSettings()), CorpusSettings(), chosen)
    keep = len(text) - round(0.1 * len(text))
    want = [*made.vocabulary.encode(text[:keep]), made.vocabulary.end_id]
    assert np.array_equal(made.train.read(0, len(made.train)), want)


def test_a_vocabulary_built_here_is_one_by_its_entries_and_not_by_a_word_alone(tmp_path):
    vocabulary = foreign(tmp_path, UNSAFE["Metaspace"])
    config = {"eos_token": "</s>", "nextword_kind": "bpe"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert not cuts_are_safe(Vocabulary.load(tmp_path))
    assert not vocabulary.is_built_here
    assert not any(SAFE_CUT.search(name) for name in RESERVED)
