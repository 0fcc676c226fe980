import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextword.base.errors import VocabularyError
from nextword.vocabulary.alphabet import byte_of_letter
from nextword.vocabulary.kinds import RESERVED, names
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.tokenizer import Vocabulary
from nextword.vocabulary.train import size_for, train_vocabulary

TEXT = "We are all humans born to make mistakes. Born to learn! 漢字 👍🏽 naïve\n\n  two  \t"
BUILT = {
    kind: train_vocabulary([TEXT] * 3, 3 * len(TEXT), VocabularySettings(kind=kind, size=300))
    for kind in names()
}


@pytest.mark.parametrize("kind", ["bpe", "byte", "unigram", "wordpiece"])
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_decoding_gives_any_text_back(kind, text):
    vocabulary = BUILT[kind]
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert b"".join(vocabulary.piece_bytes(id_) for id_ in vocabulary.encode(text)) == text.encode()


@pytest.mark.parametrize("kind", names())
def test_a_text_of_known_characters_comes_back(kind):
    assert BUILT[kind].decode(BUILT[kind].encode(TEXT)) == TEXT


@pytest.mark.parametrize("kind", names())
def test_reserved_names_in_a_text_are_ordinary_text(kind):
    vocabulary = BUILT[kind]
    for name in RESERVED:
        ids = vocabulary.encode(f"a {name} b")
        assert not {vocabulary.end_id, vocabulary.pad_id, vocabulary.mask_id} & set(ids)
    assert len({vocabulary.end_id, vocabulary.pad_id, vocabulary.mask_id}) == 3


@pytest.mark.parametrize("kind", names())
def test_transformers_gives_the_same_ids(kind, tmp_path):
    from transformers import AutoTokenizer

    vocabulary = BUILT[kind]
    vocabulary.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in (TEXT, "We are all", f"a {RESERVED[0]} b", " leading", "trailing "):
        assert theirs(text, add_special_tokens=False)["input_ids"] == vocabulary.encode(text)
        if vocabulary.is_lossless:
            assert theirs.decode(vocabulary.encode(text)) == text
    assert theirs.eos_token_id == vocabulary.end_id
    assert theirs.pad_token_id == vocabulary.pad_id
    assert theirs.mask_token_id == vocabulary.mask_id
    assert len(theirs) == len(vocabulary)


@pytest.mark.parametrize("kind", names())
def test_saving_and_loading_changes_nothing(kind, tmp_path):
    vocabulary = BUILT[kind]
    vocabulary.save(tmp_path)
    again = Vocabulary.load(tmp_path)
    assert again.encode(TEXT) == vocabulary.encode(TEXT)
    assert (again.kind, len(again), again.end_id) == (kind, len(vocabulary), vocabulary.end_id)


def test_the_size_asked_for_is_the_size_held():
    assert len(BUILT["bpe"]) == 300
    assert len(BUILT["byte"]) == 259


def test_byte_ids_are_known():
    assert BUILT["byte"].encode("Az\x00") == [3 + 65, 3 + 122, 3]
    assert BUILT["byte"].piece(3 + 65) == "A"
    assert len(byte_of_letter()) == 256


def test_pieces_keep_their_leading_space():
    pieces = [BUILT["bpe"].piece(id_) for id_ in BUILT["bpe"].encode("We are")]
    assert "".join(pieces) == "We are"
    assert any(piece.startswith(" ") for piece in pieces)


def test_an_id_that_is_not_there_is_said():
    with pytest.raises(VocabularyError, match="ids 0 to 299"):
        BUILT["bpe"].piece(300)


def test_an_unknown_character_has_an_entry_of_its_own():
    vocabulary = BUILT["char"]
    assert vocabulary.encode("Ж") == [vocabulary.unknown_id]


def test_the_default_size_grows_with_the_root_of_the_text():
    assert size_for(1_000) == 320
    assert size_for(100_000) == 448
    assert size_for(300_000) == 768
    assert size_for(1_115_394) == 1472
    assert size_for(1 << 50) == 50_048
    assert size_for(1_115_394, is_drawn=True) == 2112
    assert size_for(262_144, is_drawn=True) == 896  # where the two rules are near each other


def test_a_damaged_file_is_named(tmp_path):
    with pytest.raises(VocabularyError, match=r"tokenizer\.json: no such file"):
        Vocabulary.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": 3}))
    with pytest.raises(VocabularyError, match="damaged"):
        Vocabulary.load(tmp_path)
