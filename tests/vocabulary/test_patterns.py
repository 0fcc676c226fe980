"""Split patterns: what is one piece, the same ids as others', and what was made before."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from nextword.vocabulary.fast import fast_encoder
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.patterns import PATTERNS, before_subwords, pattern_of
from nextword.vocabulary.train import train_vocabulary

TEXT = "for x in 12345:\n\n    y = it's\n\n\tIT'S (a.b) x1 12\r\n  \n"
SAMPLE = [TEXT * 30, "We are all humans born to make mistakes.\n\n" * 30]


def parts(pattern, text):
    """The text's own letters between two borders of the pattern."""
    found = before_subwords(pattern).pre_tokenize_str(text)
    return [text[start:end] for _, (start, end) in found]


def test_gpt2_divides_as_gpt2():
    assert parts("gpt2", "a\n\nb  c 1234 it's IT'S (a") == [
        "a", "\n", "\n", "b", " ", " c", " 1234", " it", "'s", " IT", "'", "S", " (", "a",
    ]  # fmt: skip


@pytest.mark.parametrize("pattern", ["qwen2", "llama3"])
def test_todays_patterns_keep_line_breaks_together(pattern):
    assert parts(pattern, "a\n\nb  c IT'S (a)\n\nd") == [
        "a", "\n\n", "b", " ", " c", " IT", "'S", " (", "a", ")\n\n", "d",
    ]  # fmt: skip


def test_digits_stand_alone_or_in_threes():
    assert parts("qwen2", "x 12345") == ["x", " ", "1", "2", "3", "4", "5"]
    assert parts("llama3", "x 12345") == ["x", " ", "123", "45"]


def test_line_breaks_and_indentation_become_entries():
    new, old = (
        train_vocabulary(SAMPLE, 1, VocabularySettings(size=400, pattern=pattern))
        for pattern in ("qwen2", "gpt2")
    )
    assert len(new.encode("\n\n")) == 1
    assert len(old.encode("a\n\nb")) == 4
    assert len(new.encode("a\n\nb")) == 3


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
@given(text=st.text(st.characters(codec="utf-8"), max_size=60))
def test_the_fast_way_gives_the_same_ids(kind, pattern, text):
    vocabulary = BUILT[kind, pattern]
    assert vocabulary.decode(vocabulary.encode(text)) == text
    fast = fast_encoder(vocabulary)
    if fast is not None:
        assert np.array_equal(fast([text])[0], vocabulary.encode(text))


BUILT = {
    (kind, pattern): train_vocabulary(
        SAMPLE, 1, VocabularySettings(kind=kind, pattern=pattern, size=600)
    )
    for kind in ("bpe", "unigram", "wordpiece")
    for pattern in PATTERNS
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_is_known_again_from_its_file(pattern):
    described = json.loads(BUILT["bpe", pattern].tokenizer.to_str())
    assert pattern_of(described["pre_tokenizer"]) == pattern


def test_others_are_not_taken_for_one():
    for step in (
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        pre_tokenizers.Metaspace(),
        pre_tokenizers.Whitespace(),
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split("x", "isolated"), pre_tokenizers.ByteLevel()]
        ),
    ):
        tokenizer = Tokenizer.from_str(BUILT["bpe", "gpt2"].tokenizer.to_str())
        tokenizer.pre_tokenizer = step
        assert pattern_of(json.loads(tokenizer.to_str())["pre_tokenizer"]) is None


def test_a_vocabulary_made_before_is_the_one_that_gpt2_makes_today():
    """As `bpe` built it before there was a choice: GPT-2's pattern inside the byte-level step."""
    described = json.loads(BUILT["bpe", "gpt2"].tokenizer.to_str())["pre_tokenizer"]
    assert described == {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
