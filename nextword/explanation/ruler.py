"""Baselines for a loss: uniform, n-grams, compressors, the model, and the entropy floor.

Everything is measured on the same held-out text. What guesses, counts or learns gives each token a
probability, and −log2 of it is bits; what packs gives bytes. Both are told in bits per byte.
"""

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextword.base.cache import cached
from nextword.base.display import Displayable
from nextword.loss.bits import bits
from nextword.machine.about import version_of
from nextword.prediction import baselines, ngram
from nextword.prediction.baselines import Squeezed, squeeze
from nextword.prediction.evaluate import Evaluation, choose_documents
from nextword.prediction.ngram import KneserNey
from nextword.vocabulary.prepared import Prepared
from nextword.vocabulary.shards import TokenStream
from nextword.vocabulary.tokenizer import Vocabulary

COUNTED_TOKENS = 2_000_000
"""Training tokens that the n-gram models count: memory stays below a gigabyte."""
PACKED_BYTES = 32 * 2**20
"""Held-out text above which compressors are left out: xz needs eleven times its size."""
PRIMING_BYTES = 8 * 2**20
"""Training text that compressors read first, where they are primed."""
ORDERS = {1: "unigram", 2: "bigram", 5: "5-gram"}

Kind = Literal["guess", "count", "pack", "primed", "model", "floor"]


@dataclass(frozen=True)
class Mark:
    """One line on the ruler."""

    name: str
    kind: Kind
    bits: float
    """Of the whole held-out text."""
    says: str
    """What it is, in a few plain words."""


@dataclass(frozen=True)
class Ruler(Displayable):
    """All marks on one held-out text."""

    model: str
    tokens: int
    num_bytes: int | None
    """Of the held-out text; None where bits per byte would not be true."""
    withheld: str
    """Why they would not."""
    counted: int
    """Training tokens that the n-gram models counted."""
    primed_with: int
    """Bytes of training text that compressors had read; 0 where none was primed."""
    marks: tuple[Mark, ...] = field(default=())

    @property
    def unit(self) -> str:
        """Of `value`."""
        return "bits a byte" if self.num_bytes else "bits a token"

    def value(self, mark: Mark) -> float:
        """Return a mark's place on the scale."""
        return mark.bits / (self.num_bytes or self.tokens)

    def one(self, kind: Kind, name: str | None = None) -> Mark | None:
        """Return the first mark of a kind, or the one of this name."""
        found = (mark for mark in self.marks if mark.kind == kind and name in (None, mark.name))
        return next(found, None)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        return {
            **{key: value for key, value in vars(self).items() if key != "marks"},
            "unit": self.unit,
            "marks": [{**vars(mark), "value": self.value(mark)} for mark in self.marks],
        }


def measure_ruler(
    prepared: Prepared,
    scores: Evaluation,
    *,
    model: str,
    floor_nats: float | None = None,
    primed: bool = False,
) -> Ruler:
    """Put a model's score on one scale with all that can be computed on the same text.

    Args:
        prepared: the text.
        scores: of the model, on the whole hold-out.
        model: what it is called.
        floor_nats: the lowest sum of −ln P possible, where it is known.
        primed: measure compressors also after they have read the training text, which takes longer.
    """
    entries = len(prepared.vocabulary)
    blind = scores.tokens * math.log2(entries)
    marks = [Mark("uniform", "guess", blind, f"guessing blindly among {entries:,} pieces")]
    counted, (nats,) = _counted(prepared, _Span(scores.documents))
    for (order, name), total in zip(ORDERS.items(), nats, strict=True):
        marks.append(Mark(name, "count", bits(total), _SAYS[order]))
    primed_with = 0
    if scores.num_bytes and scores.num_bytes <= PACKED_BYTES:
        training = b""
        if primed:
            first = training_documents(prepared, PRIMING_BYTES)  # a token spells a byte or more
            training = _bytes(prepared.vocabulary, first)[:PRIMING_BYTES]
            primed_with = len(training)
        text = _bytes(prepared.vocabulary, _documents(prepared.holdout, scores.documents))
        marks += _packed(_squeezed(text, training or None))
    marks.append(Mark(model, "model", bits(scores.nats), "this model"))
    if floor_nats is not None:
        marks.append(Mark("floor", "floor", bits(floor_nats), "no model can do better: known odds"))
    size = scores.num_bytes or None
    return Ruler(model, scores.tokens, size, scores.withheld, counted, primed_with, tuple(marks))


def count_pieces(prepared: Prepared) -> float:
    """Return the nats a held-out token costs who guesses each piece as often as it occurs."""
    counts = KneserNey(1, len(prepared.vocabulary), prepared.vocabulary.end_id)
    counts.learn(training_documents(prepared, COUNTED_TOKENS), max_tokens=COUNTED_TOKENS)
    holdout = prepared.holdout
    return counts.total_nats(_documents(holdout, holdout.num_documents)) / len(holdout)


def count_holdout(prepared: Prepared) -> float | None:
    """Return the bits a byte that counting (the 5-gram) needs for the whole hold-out.

    None where the shards do not say how many bytes it has.
    """
    holdout = prepared.holdout
    if prepared.bits_withheld or holdout.document_bytes is None:
        return None
    _, (nats,) = _counted(prepared, _Span(holdout.num_documents))
    return bits(nats[-1]) / int(holdout.document_bytes.sum())


def gain_of_doubling(prepared: Prepared) -> float:
    """Return the share by which counting (the 5-gram) gained from the second half of the text.

    So much, about, a second text of the same length and kind would bring: losses fall by about the
    same share with each doubling (Kaplan et al. 2020).
    """
    size, end_id = len(prepared.vocabulary), prepared.vocabulary.end_id
    holdout = prepared.holdout
    most = min(len(prepared.train), COUNTED_TOKENS)

    def count() -> list[float]:
        halves = []
        for tokens in (most // 2, most):
            counts = KneserNey(max(ORDERS), size, end_id)
            counts.learn(training_documents(prepared, tokens), max_tokens=tokens)
            halves.append(counts.total_nats(_documents(holdout, holdout.num_documents)))
        return halves

    told = json.dumps(["doubling", max(ORDERS), most, size, end_id]).encode()
    parts = [_hash_of(training_documents(prepared, most)), _hash_of(_documents(holdout, 1 << 60))]
    half, whole = cached([told, _program(ngram), *parts], count)
    return float(1 - whole / half)


def count_beginning(prepared: Prepared, most: int | None) -> dict[str, float]:
    """Return the nats a token that counting needs, by name, where a run is scored on the way.

    Args:
        prepared: the text.
        most: of held-out tokens, as `evaluate` takes them; None for all.
    """
    count, cut = choose_documents(prepared.holdout, most)
    # The whole is asked for at the end: counted now, with the same counts.
    _, (nats, _) = _counted(prepared, _Span(count, cut), _Span(prepared.holdout.num_documents))
    last = len(prepared.holdout.document(count - 1))
    tokens = sum(len(part) for part in _documents(prepared.holdout, count))
    tokens -= 0 if cut is None else last - cut
    return {name: total / tokens for name, total in zip(ORDERS.values(), nats, strict=True)}


def measure_rivals(prepared: Prepared) -> None:
    """Measure what counts and what packs, on the whole hold-out; the cache keeps it for later."""
    holdout, raw = prepared.holdout, prepared.holdout.document_bytes
    _counted(prepared, _Span(holdout.num_documents))
    if not prepared.bits_withheld and raw is not None and raw.sum() <= PACKED_BYTES:
        text = _bytes(prepared.vocabulary, _documents(holdout, holdout.num_documents))
        _squeezed(text, None)


class _Span(NamedTuple):
    """So many documents of a hold-out, the last of them cut after so many tokens."""

    documents: int
    cut: int | None = None


def _counted(prepared: Prepared, *spans: _Span) -> tuple[int, list[list[float]]]:
    """Return how many tokens the n-gram models count, and the nats that each needs for each span.

    Who asks for several has the text counted once.
    """
    vocabulary, found = prepared.vocabulary, list[Any]()

    def asked(span: _Span) -> Iterator[NDArray[np.int64]]:
        return _documents(prepared.holdout, *span)

    def count(number: int) -> Any:
        if not found:
            found.extend([0, []] for _ in spans)
            for order in ORDERS:
                counts = KneserNey(order, len(vocabulary), vocabulary.end_id)
                known = training_documents(prepared, COUNTED_TOKENS)
                counts.learn(known, max_tokens=COUNTED_TOKENS)
                for span, row in zip(spans, found, strict=True):
                    row[0] = counts.tokens
                    row[1].append(counts.total_nats(asked(span)))
        return found[number]

    told = json.dumps([list(ORDERS), COUNTED_TOKENS, len(vocabulary), vocabulary.end_id]).encode()
    parts = [told, _program(ngram), _hash_of(training_documents(prepared, COUNTED_TOKENS))]
    rows = [
        cached([*parts, _hash_of(asked(span))], partial(count, number))
        for number, span in enumerate(spans)
    ]
    return rows[0][0], [nats for _, nats in rows]


def _program(module: ModuleType) -> bytes:
    """Return what computes: with another program, what it computed before does not count."""
    return Path(str(module.__file__)).read_bytes() + version_of("nextword").encode()


def _hash_of(documents: Iterable[NDArray[np.int64]]) -> bytes:
    """Return a digest of documents' tokens and of where they end."""
    whole = hashlib.sha256()
    for document in documents:
        whole.update(len(document).to_bytes(8, "little"))
        whole.update(np.ascontiguousarray(document).tobytes())
    return whole.digest()


def _squeezed(text: bytes, training: bytes | None) -> list[Squeezed]:
    told = [platform.python_version(), *map(version_of, ("zstandard", "pyppmd"))]
    alone = [json.dumps(told).encode(), _program(baselines), text]
    parts = alone if training is None else [*alone, training]
    sizes = cached(parts, lambda: [[*vars(one).values()] for one in squeeze(text, training)])
    return [Squeezed(*one) for one in sizes]


_SAYS = {
    1: "counting how often each piece occurs",
    2: "counting which piece follows which",
    5: "counting what follows up to four pieces (Kneser–Ney)",
}


def _packed(sizes: Sequence[Squeezed]) -> Iterator[Mark]:
    for one in sizes:
        yield Mark(one.name, "pack", 8.0 * one.cold, "a compressor that knows nothing before")
    for one in sizes:
        if one.primed is not None:
            says = "the same after reading the training text"
            yield Mark(f"{one.name} primed", "primed", 8.0 * one.primed, says)


def _documents(
    stream: TokenStream, count: int, cut: int | None = None
) -> Iterator[NDArray[np.int64]]:
    return (
        stream.document(number)[: cut if number + 1 == count else None]
        for number in range(min(count, stream.num_documents))
    )


def training_documents(prepared: Prepared, most: int) -> Iterator[NDArray[np.int64]]:
    """Yield training documents, of each text of a mixture by its weight."""
    whole = sum(portion.weight for portion in prepared.portions)
    for portion in prepared.portions:
        yield from beginning(portion.train, max(int(most * portion.weight / whole), 1))


def beginning(stream: TokenStream, most: int) -> Iterator[NDArray[np.int64]]:
    """Yield documents until they make so many tokens; the last is cut, and never read whole."""
    start = 0
    for end in map(int, stream.document_ends):
        yield stream.read(start, min(end, most))
        if end >= most:
            return
        start = end


def _bytes(vocabulary: Vocabulary, documents: Iterable[NDArray[np.int64]]) -> bytes:
    """Return documents one after the other as the bytes they were."""
    return b"".join(
        vocabulary.piece_bytes(id_) for document in documents for id_ in document.tolist()
    )
