"""Kneser–Ney n-gram language models: the baseline that a neural network has to clear.

Interpolated modified Kneser–Ney. With a the count of an n-gram, h its context (all but the last
token), h' the context without its first token, and D the discount that belongs to a count:

    P(w | h) = (a(h w) − D(a(h w))) / a(h)  +  backoff(h) · P(w | h'),    a(h) = Σ_w a(h w)
    backoff(h) = Σ_w D(a(h w)) / a(h), or 1 where h was never seen

The recursion ends, below the single token, at the uniform distribution: nothing has probability 0.
a counts occurrences for the longest n-grams, and for those that begin with end-of-text as context,
before which nothing stands; for all others it counts the different tokens seen before them.

An n-gram is a number: the place of the n-gram without its last token among all such, times V, plus
the last token. One sorted array of these a length is the whole model, and finding is searchsorted.

Legend: V vocabulary, order the longest n-gram, level the length of the n-grams at hand.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from nextword.base.errors import EvaluationError
from nextword.prediction.discounts import estimate_discounts
from nextword.prediction.keys import find, group

LARGEST = np.iinfo(np.int64).max
SCORED_AT_ONCE = 1 << 18
"""Tokens scored in one go, of which a dozen arrays are held."""


class _Grams(NamedTuple):
    """All different n-grams of one length."""

    keys: NDArray[np.int64]
    """Rising: place of the context among the n-grams one shorter × V + last token."""
    probability: NDArray[np.float64]
    """P(last token | the others), already interpolated."""
    backoff: NDArray[np.float64]
    """One for each n-gram one shorter: its share as a context left to the shorter context."""


class Pairs(NamedTuple):
    """P(y | x) of a bigram model: listed for the pairs seen, else backoff(x) · below(y)."""

    x: NDArray[np.int64]
    """Of each pair, rising."""
    y: NDArray[np.int64]
    probability: NDArray[np.float64]
    backoff: NDArray[np.float64]
    """(V,) of each x."""
    below: NDArray[np.float64]
    """(V,) of each y."""


class Successors(NamedTuple):
    """What was seen after each context of one length, with P(next | context)."""

    first: NDArray[np.int64]
    """(contexts + 1,): where each context's entries begin."""
    last: NDArray[np.int32]
    """Of each entry, the token that follows."""
    probability: NDArray[np.float32]
    backoff: NDArray[np.float32]
    """(contexts,): by what the odds of a context one shorter are multiplied for all others."""


class _Stream(NamedTuple):
    """Documents one after the other, each with end-of-text before it."""

    tokens: NDArray[np.int64]
    depth: NDArray[np.int64]
    """How many tokens of its document stand before each, which is 0 for the end-of-text before."""


class KneserNey:
    """Predict the next token from the last few by counting how often it followed them.

    Source: Chen and Goodman, An Empirical Study of Smoothing Techniques for Language Modeling,
    1998, section 3 (modified Kneser–Ney, interpolated).
    """

    def __init__(self, order: int, vocab_size: int, end_id: int) -> None:
        """Begin with nothing learnt, where every token has probability 1/V.

        At order 1 no context is read, a(w) = c(w) are plain counts that add up to T, n1, n2 and n3+
        are the numbers of tokens seen once, twice and more often, and

            P(w) = (c(w) − D(c(w))) / T  +  (D1·n1 + D2·n2 + D3·n3+) / (T·V),    D(0) = 0

        Args:
            order: the longest n-gram; `order` − 1 tokens of context are read.
            vocab_size: V.
            end_id: end-of-text, which stands as context before a document's first token.

        Raises:
            EvaluationError: the order is below 1, or V is below 1 or does not hold `end_id`.
        """
        if order < 1:
            raise EvaluationError(
                f"order {order}: an n-gram has at least one token; give 1 or more"
            )
        if not 0 <= end_id < vocab_size:
            raise EvaluationError(f"end-of-text {end_id} is not among {vocab_size} tokens")
        self.order = order
        self.vocab_size = vocab_size
        self.end_id = end_id
        self.tokens = 0
        """Tokens learnt from, end-of-text at the documents' ends included."""
        self.discounts: list[NDArray[np.float64]] = []
        """For each level what is taken off counts of 0, 1, 2 and 3 or more."""
        self._levels: list[_Grams] = []
        self.learn([])

    def learn(self, documents: Iterable[NDArray[np.int64]], max_tokens: int = 4_000_000) -> Self:
        """Count the n-grams of a text; what was learnt before is forgotten.

        A level's counts are known only when the level above is grouped, for they are numbers of
        different n-grams there, so every level waits for the next.

        Args:
            documents: the tokens of each, its end-of-text included at the end; contexts do not
                reach from one to the next. No more of them are asked for than are learnt from.
            max_tokens: stop after so many; the last document may be cut. Learning from text at
                order 5 takes some 130 bytes of memory for each, 230 at the very worst.

        Returns:
            itself.

        Raises:
            EvaluationError: a token is outside the vocabulary, or the numbers of n-grams would not
                fit into 64 bits.
        """
        if max(max_tokens, self.vocab_size) * self.vocab_size > LARGEST:
            raise EvaluationError(f"max_tokens {max_tokens}: too many to number; learn from fewer")
        tokens, depth = self._line_up(_first_tokens(documents, max_tokens))
        self.tokens = int(np.count_nonzero(depth))
        self._levels, self.discounts = [], []
        keys = np.arange(self.vocab_size)
        suffixes = np.zeros_like(keys)
        counts = np.bincount(tokens[depth > 0], minlength=self.vocab_size)
        plain = np.zeros(len(keys), dtype=np.bool_)
        numbers = tokens
        for level in range(2, self.order + 1):
            there = np.flatnonzero(depth >= level - 1)
            groups = group(numbers[there - 1] * self.vocab_size + tokens[there])
            examples = there[groups.examples]
            shorter = numbers[examples]
            different = np.bincount(shorter, minlength=len(keys))
            self._add_level(keys, np.where(plain, counts, different), suffixes)
            keys, counts, suffixes = groups.keys, groups.counts, shorter
            plain = tokens[examples - (level - 1)] == self.end_id
            numbers = np.full(len(tokens), -1)
            numbers[there] = groups.places
        self._add_level(keys, counts, suffixes)
        return self

    def nats(self, documents: Iterable[NDArray[np.int64]]) -> NDArray[np.float64]:
        """Score every token by those before it in its document.

        Args:
            documents: the tokens of each, end-of-text included at the end.

        Returns:
            −ln P of every token, all documents' one after the other, float64.

        Raises:
            EvaluationError: a token is outside the vocabulary.
        """
        parts = [self._score(self._line_up(some)) for some in _some_at_once(documents)]
        return np.concatenate(parts) if parts else np.empty(0)

    def total_nats(self, documents: Iterable[NDArray[np.int64]]) -> float:
        """Return the sum of what `nats` returns, without holding a number for every token."""
        return math.fsum(
            float(self._score(self._line_up(some)).sum()) for some in _some_at_once(documents)
        )

    def distribution(self, context: Sequence[int]) -> NDArray[np.float64]:
        """Predict the next token.

        Args:
            context: the tokens before it, end-of-text first where a document begins; the last
                `order` − 1 count, and there may be fewer.

        Returns:
            (V,) P(next | context), which sum to 1.

        Raises:
            EvaluationError: a token is outside the vocabulary.
        """
        read = self._checked(np.asarray(context, dtype=np.int64))
        probability = self._levels[0].probability.copy()
        for level, grams in enumerate(self._levels[1:], start=2):
            if len(read) < level - 1:
                break
            place = self._place(read[len(read) - (level - 1) :])
            if place < 0:
                break
            start, stop = np.searchsorted(
                grams.keys, [place * self.vocab_size, (place + 1) * self.vocab_size]
            )
            probability *= grams.backoff[place]
            seen = grams.keys[start:stop] - place * self.vocab_size
            probability[seen] = grams.probability[start:stop]
        return probability

    def pairs(self) -> Pairs:
        """Return the model's bigrams as a table, at any order from 2 on.

        Raises:
            EvaluationError: it counts no pairs.
        """
        if self.order < 2:
            raise EvaluationError(f"order {self.order} counts no pairs; give 2 or more")
        one, two = self._levels[:2]
        x, y = np.divmod(two.keys, self.vocab_size)
        return Pairs(x, y, two.probability, two.backoff, one.probability)

    def successors(self) -> tuple[NDArray[np.float32], list[Successors]]:
        """Return P(next) without a context, (V,), and what follows contexts of 1, 2, … tokens."""
        found = [
            Successors(
                np.searchsorted(grams.keys, np.arange(len(grams.backoff) + 1) * self.vocab_size),
                (grams.keys % self.vocab_size).astype(np.int32),
                grams.probability.astype(np.float32),
                grams.backoff.astype(np.float32),
            )
            for grams in self._levels[1:]
        ]
        return self._levels[0].probability.astype(np.float32), found

    def contexts(self, documents: Iterable[NDArray[np.int64]]) -> NDArray[np.int32]:
        """Find what stands before each token among the contexts that were counted.

        Args:
            documents: the tokens of each, end-of-text included at the end.

        Returns:
            (order − 1, tokens): for contexts of 1, 2, … tokens the place in `successors`, or −1.

        Raises:
            EvaluationError: a token is outside the vocabulary.
        """
        tokens, depth = self._line_up(documents)
        found = np.full((self.order - 1, len(tokens)), -1, dtype=np.int32)
        numbers = tokens
        for level, grams in enumerate(self._levels[1:], start=2):
            there = np.flatnonzero(depth >= level - 1)
            there = there[numbers[there - 1] >= 0]
            contexts = numbers[there - 1]
            found[level - 2, there] = contexts
            numbers = np.full(len(tokens), -1)
            numbers[there] = find(grams.keys, contexts * self.vocab_size + tokens[there])
        return found[:, depth > 0]

    def extended(self, contexts: NDArray[np.int32], tokens: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return what contexts are after one more token.

        Args:
            contexts: as `contexts` returns them, (order − 1, N).
            tokens: what came after each, (N,).

        Returns:
            (order − 1, N).
        """
        found = np.full_like(contexts, -1)
        found[0] = tokens
        for length, grams in enumerate(self._levels[1:-1], start=1):
            there = np.flatnonzero(contexts[length - 1] >= 0)
            keys = contexts[length - 1, there].astype(np.int64) * self.vocab_size + tokens[there]
            found[length, there] = find(grams.keys, keys)
        return found

    def _add_level(
        self,
        keys: NDArray[np.int64],
        counts: NDArray[np.int64],
        suffixes: NDArray[np.int64],
    ) -> None:
        """Turn a level's counts into probabilities.

        Args:
            keys: of its n-grams.
            counts: a, one for each.
            suffixes: for each the place of the n-gram without its first token, one level below.
        """
        contexts = keys // self.vocab_size
        below = np.full(1, 1 / self.vocab_size)
        num_contexts = 1
        if self._levels:
            below = self._levels[-1].probability
            num_contexts = len(below)
        discounts = estimate_discounts(counts)
        taken = discounts[np.minimum(counts, 3)]
        totals = np.bincount(contexts, weights=counts, minlength=num_contexts)
        left = np.bincount(contexts, weights=taken, minlength=num_contexts)
        backoff = np.divide(left, totals, out=np.ones(num_contexts), where=totals > 0)
        probability = counts - taken
        probability /= np.maximum(totals, 1.0)[contexts]
        probability += backoff[contexts] * below[suffixes]
        self._levels.append(_Grams(keys, probability, backoff))
        self.discounts.append(discounts)

    def _score(self, stream: _Stream) -> NDArray[np.float64]:
        """Go up the levels: take the n-gram's probability where known, else shrink by backoff."""
        tokens, depth = stream
        probability = self._levels[0].probability[tokens]
        numbers = tokens
        for level, grams in enumerate(self._levels[1:], start=2):
            there = np.flatnonzero(depth >= level - 1)
            there = there[numbers[there - 1] >= 0]
            contexts = numbers[there - 1]
            places = find(grams.keys, contexts * self.vocab_size + tokens[there])
            known = places >= 0
            probability[there] *= grams.backoff[contexts]
            probability[there[known]] = grams.probability[places[known]]
            numbers = np.full(len(tokens), -1)
            numbers[there] = places
        return -np.log(probability[depth > 0])

    def _place(self, tokens: NDArray[np.int64]) -> int:
        """Return the place of an n-gram among those of its length, or −1."""
        place = int(tokens[0])
        for token, grams in zip(tokens[1:], self._levels[1:], strict=False):
            wanted = np.array([place * self.vocab_size + token])
            place = int(find(grams.keys, wanted)[0])
            if place < 0:
                break
        return place

    def _line_up(self, documents: Iterable[NDArray[np.int64]]) -> _Stream:
        """Put documents into one array, end-of-text before each."""
        before = np.array([self.end_id], dtype=np.int64)
        parts: list[NDArray[np.int64]] = []
        lengths: list[int] = []
        for document in documents:
            parts += [before, document]
            lengths.append(len(document) + 1)
        if not parts:
            return _Stream(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        tokens = self._checked(np.concatenate(parts, dtype=np.int64))
        starts = np.cumsum(lengths) - lengths
        return _Stream(tokens, np.arange(len(tokens)) - np.repeat(starts, lengths))

    def _checked(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocab_size:
            wrong = int(tokens[(tokens < 0) | (tokens >= self.vocab_size)][0])
            raise EvaluationError(
                f"token {wrong} is not among {self.vocab_size}; give ids of the same vocabulary"
            )
        return tokens


def _first_tokens(
    documents: Iterable[NDArray[np.int64]], max_tokens: int
) -> Iterator[NDArray[np.int64]]:
    """Pass documents on until so many tokens; the last may be cut."""
    left = max_tokens
    if left <= 0:
        return
    for document in documents:
        yield document[:left]
        left -= len(document)
        if left <= 0:
            return


def _some_at_once(
    documents: Iterable[NDArray[np.int64]],
) -> Iterator[list[NDArray[np.int64]]]:
    """Pass documents on in lists of about so many tokens as are scored in one go."""
    waiting: list[NDArray[np.int64]] = []
    size = 0
    for document in documents:
        waiting.append(document)
        size += len(document)
        if size >= SCORED_AT_ONCE:
            yield waiting
            waiting, size = [], 0
    if waiting:
        yield waiting
