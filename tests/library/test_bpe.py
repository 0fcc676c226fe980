"""BPE on its own: against a plain trainer and encoder written out here."""

import random
from collections import Counter
from itertools import pairwise

import pytest
import regex
from tokenizers import Tokenizer

import nextword
from nextword.base.errors import CorpusError, VocabularyError
from nextword.vocabulary.alphabet import byte_of_letter
from nextword.vocabulary.kinds import find_kind

GPT2 = regex.compile(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
TEXTS = [
    "low low low low low lower lower widest widest widest " + "newest " * 6,
    "Ein zweiter Text, mit Übung & 3 Zahlen: 10, 100, 1000!\n\n  Und Zeilen.<|endoftext|>the the",
    "日本語のテキスト 🙂🙂 🙂 don't won't can't",
]


def learned(texts, size, specials):
    """Merge the most frequent pair; of equals the one with the smaller ids."""
    marks = regex.compile("|".join(map(regex.escape, specials)))
    words = Counter()
    for text in texts:
        for part in marks.split(text):
            words.update(tuple(bytes([b]) for b in word.encode()) for word in GPT2.findall(part))
    # tokenizers numbers the bytes in the order of their letters.
    letters = sorted(byte_of_letter().items())
    ids = {bytes([byte]): len(specials) + n for n, (_, byte) in enumerate(letters)}
    merges = []
    while len(ids) + len(specials) < size:
        pairs = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        merges.append(best)
        ids.setdefault(b"".join(best), len(ids) + len(specials))
        words = _recount(words, best)
    return merges


def _recount(words, pair):
    found = Counter()
    for word, count in words.items():
        found[merged(word, pair)] += count
    return found


def merged(word, pair):
    out, place = [], 0
    while place < len(word):
        if word[place : place + 2] == pair:
            out.append(b"".join(pair))
            place += 2
        else:
            out.append(word[place])
            place += 1
    return tuple(out)


def encoded(text, entries, merges):
    ids = []
    for word in GPT2.findall(text):
        parts = tuple(bytes([byte]) for byte in word.encode())
        for pair in merges:
            parts = merged(parts, pair)
        ids += [entries[part] for part in parts]
    return ids


@pytest.mark.parametrize("specials", [["<|endoftext|>"], ["<|endoftext|>", "<|x|>", "[END] now"]])
def test_merges_and_ties_are_those_that_are_promised(specials):
    vocabulary = nextword.train_bpe(TEXTS, 300, specials)
    assert isinstance(vocabulary.tokenizer, Tokenizer)
    expected = learned(TEXTS, 300, specials)
    assert nextword.merges_of(vocabulary) == expected
    assert len(vocabulary) == 300
    assert [vocabulary.tokenizer.token_to_id(name) for name in specials] == [*range(len(specials))]


@pytest.mark.parametrize("turned", [False, True])
def test_a_vocabulary_from_entries_and_merges_encodes_as_they_say(turned):
    merges = learned(TEXTS, 330, ["<|endoftext|>"])
    entries = {bytes([byte]): 7 + byte for byte in range(256)}
    entries |= {b"".join(pair): 300 + n for n, pair in enumerate(merges)}
    given = {id_: entry for entry, id_ in entries.items()} if turned else entries
    vocabulary = nextword.bpe_from(given, merges)
    source = random.Random(0)
    for text in [
        *TEXTS,
        "",
        " ",
        "\r\n\r\n",
        "".join(chr(source.randrange(1, 3000)) for _ in range(400)),
    ]:
        text = text.replace("<|endoftext|>", "")
        ids = vocabulary.encode(text)
        assert ids == encoded(text, entries, merges)
        assert vocabulary.decode(ids) == text
    assert nextword.merges_of(vocabulary) == merges


def test_special_tokens_are_read_or_not_as_told():
    vocabulary = nextword.train_bpe(TEXTS, 300, ["<|endoftext|>", "<|endoftext|><|endoftext|>"])
    text = "a<|endoftext|>b<|endoftext|><|endoftext|>c"
    plain, read = vocabulary.encode(text), vocabulary.encode(text, special=True)
    assert 0 not in plain
    assert 1 not in plain
    assert vocabulary.decode(plain) == text
    assert vocabulary.decode(read, special=True) == text
    assert vocabulary.decode(read) == "abc"
    assert b"".join(vocabulary.piece_bytes(id_) for id_ in read) == b"abc"
    assert [id_ for id_ in read if id_ < 2] == [0, 1]  # the longer name where both would do
    assert vocabulary.encode(text) == plain  # being told once is not being told for ever


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("names", [["<|endoftext|>"], ["<|endoftext|>", "the end, now"]])
def test_a_stream_has_the_ids_of_the_whole_text(special, names):
    vocabulary = nextword.train_bpe(TEXTS, 290, names)
    text = "".join(TEXTS * 3) + " the end, now " + "\n \n\n x" * 30
    whole = vocabulary.encode(text, special=special)
    source = random.Random(1)
    cuts = sorted(source.sample(range(len(text)), 200))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert list(nextword.encode_stream(vocabulary, iter(parts), special=special)) == whole


def test_a_stream_with_no_place_to_cut_is_refused_and_not_cut(monkeypatch):
    monkeypatch.setattr("nextword.corpus.documents.LONGEST_PIECE", 5000)
    monkeypatch.setattr("nextword.corpus.documents.PIECE_CHARACTERS", 1000)
    vocabulary = nextword.train_bpe(TEXTS, 280)
    with pytest.raises(CorpusError, match="hold no place"):
        list(nextword.encode_stream(vocabulary, ["x" * 6000]))
    monkeypatch.setattr("nextword.vocabulary.cuts.LONGEST_WHOLE", 5000)
    other = nextword.train_bpe(TEXTS, 280, ["the end, now"])
    with pytest.raises(CorpusError, match="more than 5,000 characters"):
        list(nextword.encode_stream(other, ["a b " * 2000], special=True))


def test_what_cannot_be_is_said():
    words = find_kind("word").build(["some words"], 20, "gpt2")
    with pytest.raises(VocabularyError, match="at least 257"):
        nextword.train_bpe(TEXTS, 256)
    with pytest.raises(VocabularyError, match="name at least one"):
        nextword.train_bpe(TEXTS, 300, [])
    with pytest.raises(VocabularyError, match="choose one of gpt2"):
        nextword.train_bpe(TEXTS, 300, pattern="gpt5")
    whole = {byte: bytes([byte]) for byte in range(256)}
    with pytest.raises(VocabularyError, match=r"makes b'ab', which is no entry"):
        nextword.bpe_from(whole, [(b"a", b"b")])
    with pytest.raises(VocabularyError, match=r"takes b'ab', which is no entry"):
        nextword.bpe_from(whole | {256: b"abc"}, [(b"ab", b"c")])
    with pytest.raises(VocabularyError, match=r"no entry for the byte b'\\x00'"):
        nextword.bpe_from({0: b"a", 1: b"b"}, [])
    with pytest.raises(VocabularyError, match="each once"):
        nextword.bpe_from({b"a": 1, b"b": 1}, [])
    with pytest.raises(VocabularyError, match="each once"):
        nextword.bpe_from({0: "a"}, [])
    with pytest.raises(VocabularyError, match="has no merges"):
        nextword.merges_of(nextword.Vocabulary(words, "word"))
