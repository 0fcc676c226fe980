"""A text that grows: what may be sent of it, and what a stop string takes back."""

import pytest
import torch

from nextword.serve.growing import END, FULL, Growing, Wish


def grow(small, text, **wishes):
    """Let a text be written, token by token; return what was told at each, and why it ended."""
    wish = Wish(ids=(small.vocabulary.begin_id,), top=0, **{"most": 1000, **wishes})
    growing = Growing(wish, small.vocabulary, lambda *_: None)
    logits, told = torch.zeros(len(small.vocabulary)), []
    for id_ in small.vocabulary.encode(text):
        event = growing.add(id_, logits)
        told.append("".join(piece.text for piece in event.pieces))
        if event.reason:
            return told, event.reason
    return told, None


def test_a_character_is_told_when_it_is_whole(small):
    told, _ = grow(small, "a🙂b")
    assert "".join(told) == "a🙂b"
    assert told.count("") >= 2  # while the bytes of one are on their way
    assert "�" not in "".join(told)


@pytest.mark.parametrize("stop", ["🙂", "🙂 b", " 🙂", "a 🙂", "b", " b"])
def test_a_stop_string_may_begin_and_end_within_characters_bytes(small, stop):
    text = "a 🙂 b c"
    told, reason = grow(small, text, stop=(stop,))
    assert "".join(told) == text[: text.index(stop)]
    assert reason == END


def test_what_might_become_a_stop_string_is_held_back(small):
    told, reason = grow(small, "We are all humans born", stop=("humans never",))
    assert "".join(told) == "We are all humans born"
    assert reason is None
    so_far = ""
    for part in grow(small, "We are all humans", stop=(" humans born to",))[0]:
        so_far += part
        assert "human" not in so_far  # not yet


def test_half_of_a_character_at_the_end_is_told_as_one_sign(small):
    count = len(small.vocabulary.encode("🙂"))
    told, reason = grow(small, "🙂", most=count - 1)
    assert "".join(told) == "�"
    assert reason == FULL


def test_every_token_is_told_once(small):
    wish = Wish(ids=(small.vocabulary.begin_id,), most=1000, top=1)
    growing = Growing(wish, small.vocabulary, lambda *_: None)
    ids = small.vocabulary.encode("The owl 🙂 sang")
    logits = torch.zeros(len(small.vocabulary))
    pieces = [piece for id_ in ids for piece in growing.add(id_, logits).pieces]
    assert [piece.judged.id for piece in pieces] == ids
