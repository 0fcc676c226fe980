"""Soft targets: what counting expects at each place of a text that it has not counted itself.

A text that is read several times is soon known by heart. What would a reader expect at a place who
knows all of the text but its surroundings? The text is cut into folds, and in each of them the
next token's odds are those of a Kneser–Ney model that has counted all others (cross-fitting: Stone
1974; odds of another model as targets: Hinton et al. 2015, distillation). A network that is also
asked for these learns what can be carried over to text that nobody has read, and by heart only what
the true targets add. What has just been read in the same row is counted, too (`recent`).

Legend of shapes: B rows, T positions, V vocabulary, K folds, L lengths of context, N tokens.
"""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextword.prediction.ngram import KneserNey
from nextword.prediction.recent import recent_of
from nextword.targets.batch import Batch
from nextword.vocabulary.shards import TokenStream

ORDER = 5
AT_ONCE = 2
"""Folds counted at the same time, each of which takes some 130 bytes a token."""
MOST_COUNTED = 4_000_000
"""Tokens of a text that are counted."""


class Counts:
    """What a model that has counted expects, many contexts at a time."""

    def __init__(self, model: KneserNey) -> None:
        """Lay out what the model has counted by its contexts."""
        self.first, self.levels = model.successors()
        # The last, which −1 means, is of a context that was never counted.
        self.backoffs = [np.append(level.backoff, np.float32(1)) for level in self.levels]

    def odds(
        self,
        contexts: NDArray[np.int32],
        times: NDArray[np.float32] | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Return P(next), (N, V), after contexts as the model numbers them.

        Args:
            contexts: (L, N).
            times: (N,), by what the odds of each are multiplied; None for 1.
            out: (N, V), where they are written; None for an array of their own.
        """
        known = contexts >= 0
        # What each level's odds are still multiplied by, for the levels above it.
        factors = np.ones((len(self.levels) + 1, contexts.shape[1]), dtype=np.float32)
        if times is not None:
            factors[-1] = times
        for number in range(len(self.levels) - 1, -1, -1):
            factors[number] = factors[number + 1] * self.backoffs[number][contexts[number]]
        odds: NDArray[np.float32] = np.multiply(factors[0][:, None], self.first, out=out)
        flat, entries = odds.reshape(-1), np.int64(len(self.first))
        for number, level in enumerate(self.levels):
            rows = np.flatnonzero(known[number])
            starts = level.first[contexts[number, rows]]
            counts = level.first[contexts[number, rows] + 1] - starts
            listed = np.arange(int(counts.sum()))
            listed += np.repeat(starts - (np.cumsum(counts) - counts), counts)
            found = level.probability[listed]
            found *= np.repeat(factors[number + 1][rows], counts)
            flat[np.repeat(rows * entries, counts) + level.last[listed]] = found
        return odds


class _Fold(NamedTuple):
    """What is expected at the places of one part of the text, from all others."""

    counts: Counts
    contexts: NDArray[np.int32]


class SoftTargets:
    """What counting expects at every place of a text."""

    def __init__(
        self, stream: TokenStream, vocab_size: int, folds: int, *, apart: bool = True
    ) -> None:
        """Count each fold's complement.

        Args:
            stream: the training tokens.
            vocab_size: V.
            folds: K, of equal length; from 2 on.
            apart: whether who reads a row sees nothing of the documents before in it.
        """
        size = len(stream)
        self.end_id = stream.end_id if apart else None
        self.vocab_size = vocab_size
        self.cuts = np.linspace(0, size, folds + 1).astype(np.int64)

        def count(start: int, stop: int) -> _Fold:
            model = KneserNey(ORDER, vocab_size, stream.end_id)
            model.learn(_outside(stream, start, stop), MOST_COUNTED)
            return _Fold(Counts(model), _contexts(model, stream, start, stop))

        # Sorting, which most of counting is, lets other threads work; training waits for this.
        with ThreadPoolExecutor(AT_ONCE) as threads:
            parts = (self.cuts[:-1].tolist(), self.cuts[1:].tolist())
            self.folds = list(threads.map(count, *parts))

    def added(self, places: NDArray[np.int64], batch: Batch, share: float) -> NDArray[np.float32]:
        """Return what is added to the ones at the right tokens, (B, T, V).

        Args:
            places: where in the stream the targets stand, (B, T).
            batch: what is read, and the right tokens, (B, T).
            share: how much of each target is what counting expects.
        """
        recent = recent_of(batch.inputs, self.vocab_size, self.end_id)
        # An array as large as this one is written once: all that multiplies it comes together.
        odds = self.at(places, recent.left * np.float32(share))
        rows = odds.reshape(-1, self.vocab_size)
        recent.add_to(rows, share)
        rows[np.arange(len(rows)), batch.targets.reshape(-1)] -= np.float32(share)
        return odds

    def at(
        self, places: NDArray[np.int64], times: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return P(next) at places of the text, whatever their shape: (…, V).

        Args:
            places: where in the stream the targets stand.
            times: by what the odds of each are multiplied, one after the other; None for 1.
        """
        flat = places.reshape(-1)
        times = np.ones(len(flat), dtype=np.float32) if times is None else times
        which = np.searchsorted(self.cuts, flat, side="right") - 1
        odds = np.empty((len(flat), self.vocab_size), dtype=np.float32)
        changes = np.flatnonzero(np.diff(which)) + 1
        for first, end in itertools.pairwise([0, *changes.tolist(), len(flat)]):
            number = int(which[first])
            fold, here = self.folds[number], flat[first:end] - self.cuts[number]
            fold.counts.odds(fold.contexts[:, here], times[first:end], odds[first:end])
        return odds.reshape(*places.shape, self.vocab_size)


def less_the_right(odds: NDArray[np.float32], batch: Batch, share: float) -> NDArray[np.float32]:
    """Return a share of what is expected less as much of the right tokens, (B, T, V), in place."""
    rows = odds.reshape(-1, odds.shape[-1])
    rows[np.arange(len(rows)), batch.targets.reshape(-1)] -= 1.0
    if share != 1:
        odds *= share
    return odds


def documents_of(stream: TokenStream) -> Iterator[tuple[int, int]]:
    """Yield where each document begins and ends."""
    start = 0
    for end in map(int, stream.document_ends):
        yield start, end
        start = end
    if start < len(stream):
        yield start, len(stream)


def _outside(stream: TokenStream, start: int, stop: int) -> Iterator[NDArray[np.int64]]:
    """Yield what of the documents lies outside a part of the text."""
    for begin, end in documents_of(stream):
        for first, last in ((begin, min(end, start)), (max(begin, stop), end)):
            if first < last:
                yield stream.read(first, last)


def _contexts(model: KneserNey, stream: TokenStream, start: int, stop: int) -> NDArray[np.int32]:
    """Find the contexts of all tokens of a part, (L, N); they may reach to before it."""
    parts, left_out = [], []
    for begin, end in documents_of(stream):
        first, last = max(begin, start), min(end, stop)
        if first < last:
            before = max(begin, first - ORDER)
            parts.append(stream.read(before, last))
            left_out.append(np.arange(before, last) < first)
    found = model.contexts(parts)
    return found[:, ~np.concatenate(left_out)]
