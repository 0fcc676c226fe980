import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextword.base.errors import CorpusError
from nextword.corpus.documents import Piece, whole_documents
from nextword.corpus.options import CorpusSettings
from nextword.corpus.split import Part, Split, hash_text, plan_split, scan


def divide(documents, settings=None):
    pieces = list(whole_documents(documents))
    split = plan_split(scan(pieces), settings or CorpusSettings())
    sides = {"train": [], "holdout": []}
    for part in split.divide(pieces):
        sides[part.side].append(part.piece.text)
    return sides


def test_of_one_text_the_last_tenth_is_held_out():
    text = "".join(chr(97 + place % 26) for place in range(1000))
    sides = divide([text])
    assert sides == {"train": [text[:900]], "holdout": [text[900:]]}


def test_the_share_can_be_asked_for():
    sides = divide(["x" * 1000], CorpusSettings(holdout=0.25))
    assert len(sides["holdout"][0]) == 250


def test_a_long_text_is_cut_at_the_same_character_whatever_its_pieces():
    text = "some words\n" * 50_000
    sides = divide([text])
    assert "".join(sides["train"]) == text[: round(0.9 * len(text))]
    assert "".join(sides["holdout"]) == text[round(0.9 * len(text)) :]


@given(st.lists(st.text(min_size=1, max_size=5), min_size=10, max_size=60, unique=True), st.data())
def test_many_documents_neither_side_empty_and_no_text_on_both(documents, data):
    repeated = documents + data.draw(st.lists(st.sampled_from(documents), max_size=30))
    sides = divide(repeated)
    assert sides["train"]
    assert sides["holdout"]
    assert not set(sides["train"]) & set(sides["holdout"])
    assert sorted(sides["train"] + sides["holdout"]) == sorted(repeated)


def test_the_share_held_out_of_many_is_about_a_tenth():
    sides = divide([f"document {number}" for number in range(5000)])
    assert 400 < len(sides["holdout"]) < 600


def test_duplicates_are_counted():
    found = scan(whole_documents(["a", "b", "a", "a"]))
    assert (found.documents, found.duplicates, found.num_bytes) == (4, 2, 4)


def test_the_digest_depends_on_where_documents_end():
    assert scan([Piece("ab", True)]).digest != scan([Piece("a", True), Piece("b", True)]).digest
    assert scan([Piece("ab", True)]).digest == scan([Piece("a", False), Piece("b", True)]).digest


def test_nothing_to_divide_is_said():
    with pytest.raises(CorpusError, match="no text"):
        plan_split(scan([]), CorpusSettings())
    with pytest.raises(CorpusError, match="too short"):
        plan_split(scan(whole_documents(["a"])), CorpusSettings())


def test_each_of_few_documents_gives_its_own_end_and_both_sides_end_there():
    """Whatever its pieces: cut within one, cut between two, in the second document as the first."""
    pieces = [Piece("abc", False), Piece("defg", True), Piece("hij", False), Piece("kl", True)]
    assert list(Split(keep=(4, 3)).divide(pieces)) == [
        Part("train", Piece("abc", False)),
        Part("train", Piece("d", True)),
        Part("holdout", Piece("efg", True)),
        Part("train", Piece("hij", True)),
        Part("holdout", Piece("kl", True)),
    ]
    longer = [Piece("abc", False), Piece("defg", False), Piece("hi", True)]
    assert list(Split(keep=(4,)).divide(longer))[1:] == [
        Part("train", Piece("d", True)),
        Part("holdout", Piece("efg", False)),
        Part("holdout", Piece("hi", True)),
    ]


def test_of_many_documents_a_piece_goes_where_its_document_began():
    first, last = sorted(["one", "two"], key=hash_text)
    pieces = [Piece(last, False), Piece(first, True), Piece(first, False), Piece(last, True)]
    parts = list(Split(threshold=hash_text(last)).divide(pieces))
    assert [part.side for part in parts] == ["train", "train", "holdout", "holdout"]
    assert [part.piece for part in parts] == pieces


def test_what_is_held_out_stays_so_from_version_to_version():
    """Prepared texts and runs made before depend on these two numbers."""
    assert hash_text("We are all humans") == 13288616120033303237
    assert scan([Piece("ab", True)]).digest == "17f45992409ed5673203c59924921ba5"


def test_a_text_that_is_not_quite_unicode_has_a_side():
    assert hash_text("\ud800") != hash_text("\udfff")


def test_ten_times_the_same_text_is_refused():
    with pytest.raises(CorpusError, match="all 10 documents begin with the same text"):
        divide(["the same"] * 10)
