"""Rows that counting writes, like the text, for a network to read beside the text itself.

A page is read in no time, and most of what counting can say of it concerns contexts that do not
stand in it: two known words in a new order, a name that returns in another place. So a counting
model that knows the text writes rows, and says at each of their places what it expects: counts of
the whole text, and what stands in the row before. A network that is asked for that learns what
counting knows wherever it may be asked, and not only along the text.

Rows are written many together, one token of each at a time; which tokens is a pure function of the
seed and of the row's number.

Legend of shapes: B rows, T positions, V vocabulary, L lengths of context.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextword.prediction.ngram import KneserNey
from nextword.prediction.recent import recall, recall_last
from nextword.prediction.soft_targets import (
    MOST_COUNTED,
    ORDER,
    Counts,
    documents_of,
    less_the_right,
)
from nextword.targets.batch import Batch, shift
from nextword.vocabulary.shards import TokenStream

TOGETHER = 256
"""Rows that are written at once."""
GIVEN = 4
"""Tokens of the text with which each begins."""


class _Rows(NamedTuple):
    """What was written."""

    tokens: NDArray[np.int64]
    """(B, T + 1)."""
    contexts: NDArray[np.int32]
    """(L, B, T), of each place's target."""


class Writer:
    """A model that has counted a text and writes more of it."""

    def __init__(
        self, stream: TokenStream, vocab_size: int, context: int, seed: int, *, apart: bool = True
    ) -> None:
        """Count the text.

        Args:
            stream: the training tokens.
            vocab_size: V.
            context: T.
            seed: of what is written.
            apart: whether who reads a row sees nothing of the documents before in it.
        """
        self.stream, self.context, self.seed = stream, context, seed
        self.end_id = stream.end_id if apart else None
        self.model = KneserNey(ORDER, vocab_size, stream.end_id)
        parts = (stream.read(*places) for places in documents_of(stream))
        self.model.learn(parts, MOST_COUNTED)
        self.counts = Counts(self.model)
        self._written: dict[int, _Rows] = {}

    def rows(self, first: int, end: int) -> Batch:
        """Return rows by their numbers, with what is expected there less the ones that came."""
        tokens, contexts = [], []
        for number in range(first // TOGETHER, (end - 1) // TOGETHER + 1):
            rows = self._together(number)
            begin = number * TOGETHER
            here = slice(max(first - begin, 0), min(end - begin, TOGETHER))
            tokens.append(rows.tokens[here])
            contexts.append(rows.contexts[:, here])
        batch = shift(np.concatenate(tokens))
        known = np.concatenate(contexts, axis=1)
        odds = self.counts.odds(known.reshape(len(known), -1))
        odds = recall(odds.reshape(*batch.inputs.shape, -1), batch.inputs, self.end_id)
        return batch._replace(soft=less_the_right(odds, batch, 1.0))

    def _together(self, number: int) -> _Rows:
        """Return rows that are written at once, and keep them until others are asked for."""
        if number not in self._written:
            kept = {near: rows for near, rows in self._written.items() if abs(near - number) <= 1}
            self._written = {**kept, number: self._write(number)}
        return self._written[number]

    def _write(self, number: int) -> _Rows:
        source = np.random.default_rng((self.seed, number))
        given = min(GIVEN, self.context, len(self.stream) - 1)
        starts = source.integers(0, len(self.stream) - given, TOGETHER)
        tokens = np.empty((TOGETHER, self.context + 1), dtype=np.int64)
        for row, start in enumerate(starts.tolist()):
            tokens[row, : given + 1] = self.stream.read(start, start + given + 1)
        found = np.full((ORDER - 1, TOGETHER, self.context), -1, dtype=np.int32)
        contexts = np.full((ORDER - 1, TOGETHER), -1, dtype=np.int32)
        for place in range(self.context):
            contexts = self.model.extended(contexts, tokens[:, place])
            found[:, :, place] = contexts
            if place < given:
                continue  # the text's own next token is there
            read = tokens[:, : place + 1]
            odds = recall_last(self.counts.odds(contexts), read, self.end_id)
            sums = odds.cumsum(axis=1, dtype=np.float64)
            drawn = source.random(TOGETHER) * sums[:, -1]
            chosen = (sums <= drawn[:, None]).sum(axis=1)
            tokens[:, place + 1] = np.minimum(chosen, self.model.vocab_size - 1)
        return _Rows(tokens, found)
