"""Compare tokenizers: kinds and sizes of vocabulary side by side on one text."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nextword.base.errors import VocabularyError
from nextword.corpus.options import CorpusSettings
from nextword.corpus.split import Corpus, plan_split, scan
from nextword.vocabulary.kinds import find_kind, names
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.tokenizer import Vocabulary
from nextword.vocabulary.train import sample_texts, size_for, train_vocabulary

MEASURED_CHARACTERS = 300_000
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Comparison:
    """What one vocabulary makes of a text it has not seen."""

    kind: str
    entries: int
    bytes_per_token: float
    words_whole: float
    """Share of the words, as they occur, that are one piece each."""
    unknown: float
    """Share of the tokens that stand for what the vocabulary does not hold."""
    pieces: list[str]
    """Of the sentence that was asked about."""
    seconds: float
    """To learn it."""


def compare(
    corpus: Corpus,
    settings: VocabularySettings,
    kinds: Sequence[str],
    sizes: Sequence[int],
    sentence: str,
) -> Iterator[Comparison]:
    """Learn vocabularies from a text's training part and measure them on its hold-out.

    Args:
        corpus: the text.
        settings: sample and seed; kind and size are those compared.
        kinds: which kinds; none for all.
        sizes: entries of those that are learned; none for half, once and twice the default.
        sentence: shown in pieces.

    Raises:
        VocabularyError: a kind is not known, or a size too small.
    """
    for kind in kinds:
        find_kind(kind)
    for size in sizes:
        if size < 260:
            raise VocabularyError(f"size {size}: a vocabulary needs at least 260 entries")
    found = scan(corpus.pieces())
    split = plan_split(found, CorpusSettings())
    held: list[str] = []
    for part in split.divide(corpus.pieces()):
        if part.side == "holdout" and sum(map(len, held)) < MEASURED_CHARACTERS:
            held.append(part.piece.text)
    text = "".join(held)[:MEASURED_CHARACTERS]
    sample = list(
        sample_texts(
            (part.piece.text for part in split.divide(corpus.pieces()) if part.side == "train"),
            found.num_bytes,
            settings,
        )
    )
    usual = size_for(found.num_bytes, is_drawn=corpus.is_drawn)
    for kind in kinds or names():
        learned = find_kind(kind).SIZED
        for size in (sizes or (usual // 2, usual, 2 * usual)) if learned else (usual,):
            began = time.perf_counter()
            asked = replace(settings, kind=kind, size=max(size, 260))
            vocabulary = train_vocabulary(sample, found.num_bytes, asked)
            seconds = time.perf_counter() - began
            yield measure(vocabulary, text, sentence, seconds)


def measure(vocabulary: Vocabulary, text: str, sentence: str, seconds: float = 0.0) -> Comparison:
    """Measure one vocabulary on a text it was not learned from.

    Raises:
        VocabularyError: the text is empty.
    """
    encoding = vocabulary.tokenizer.encode(text, add_special_tokens=False)
    if not encoding.ids:
        raise VocabularyError("there is no text to measure a vocabulary on; give a longer one")
    whole = set()
    for id_, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
        if id_ == vocabulary.unknown_id:
            continue
        piece = text[start:stop]
        whole.add((start + len(piece) - len(piece.lstrip()), stop))
    words = [word.span() for word in _WORD.finditer(text)]
    return Comparison(
        kind=vocabulary.kind,
        entries=len(vocabulary),
        bytes_per_token=len(text.encode("utf-8", "replace")) / len(encoding.ids),
        words_whole=sum(span in whole for span in words) / max(len(words), 1),
        unknown=sum(id_ == vocabulary.unknown_id for id_ in encoding.ids) / len(encoding.ids),
        pieces=[vocabulary.piece(id_) for id_ in vocabulary.encode(sentence)],
        seconds=seconds,
    )
