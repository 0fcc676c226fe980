"""Data order: which windows of tokens a step reads, a pure function of seed and step.

An epoch divides the token stream into windows of T tokens, starting at an offset of its own and
going round the end, and visits them in the order of a keyed permutation: none twice, none stored.
Because row r of step s is computed from the seed alone, any number of processes, any restart and
any accumulation sees the same rows.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nextword.base.errors import CorpusError

_ROUNDS = 4


def keyed_permutation(index: NDArray[np.int64], size: int, key: int) -> NDArray[np.int64]:
    """Shuffle 0 … size − 1 without storing the order: return where each index goes.

    A Feistel network over the next even number of bits; what lands outside walks on until it is
    inside.
    Source: Black & Rogaway 2002, cycle-walking cipher.

    Args:
        index: positions in the unshuffled order, each in [0, size).
        size: how many there are.
        key: chooses the order.
    """
    half = max((max(size - 1, 1).bit_length() + 1) // 2, 1)
    mask = np.uint64((1 << half) - 1)
    keys = [np.uint64(_digest(key, round_)) for round_ in range(_ROUNDS)]
    value = index.astype(np.uint64)
    outside = np.ones(len(value), dtype=bool)
    while outside.any():
        left, right = value[outside] >> np.uint64(half), value[outside] & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        value[outside] = (left << np.uint64(half)) | right
        outside = value >= np.uint64(size)
    return value.astype(np.int64)


@dataclass(frozen=True)
class Windows:
    """The windows of a token stream, in the order of training."""

    num_tokens: int
    context: int
    rows: int
    """Windows in one step, over all processes."""
    seed: int

    def __post_init__(self) -> None:
        """Refuse a stream that does not fill one window."""
        if self.num_tokens < self.context:
            raise CorpusError(
                f"the text is too short to train on: {self.num_tokens:,} tokens do not fill one "
                "context of "
                f"{self.context}; give more text or set --model.context lower"
            )

    @property
    def per_epoch(self) -> int:
        """Count the windows of one epoch."""
        return self.num_tokens // self.context

    def starts(self, step: int) -> NDArray[np.int64]:
        """Return where each row's first target stands in the stream, (rows,), for one step."""
        return self.places(step * self.rows + np.arange(self.rows, dtype=np.int64))

    def places(self, number: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where windows stand in the stream, counted over all epochs in training's order."""
        epochs, within = np.divmod(number, self.per_epoch)
        starts = np.empty_like(number)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            order = keyed_permutation(
                within[chosen], self.per_epoch, _digest(self.seed, 2 * int(epoch))
            )
            offset = _digest(self.seed, 2 * int(epoch) + 1) % self.num_tokens
            starts[chosen] = (offset + order * self.context) % self.num_tokens
        return starts

    def rows_of(self, step: int) -> list[tuple[int, int]]:
        """Return for each row of a step its stream (the only one) and where it stands there."""
        return [(0, start) for start in self.starts(step).tolist()]

    def epoch(self, step: int) -> float:
        """Return how often the text has been read before this step."""
        return step * self.rows / self.per_epoch


@dataclass(frozen=True)
class Mixture:
    """Windows of several texts, each drawn as often as its weight says.

    Rows come in blocks. Up to the end of block b the texts before and including i have had
    floor(b·P·C + U) rows, with P rows a block, C their share of all weights and U drawn once from
    the seed in [0, 1): so the expected number of rows of each text is exactly its share, the true
    number at a block's end is never a whole row away from it, and which row is of which text is
    computed, not stored. Within a block the order is a keyed permutation. Every text has epochs of
    its own.
    """

    windows: tuple[Windows, ...]
    weights: tuple[float, ...]
    rows: int
    """Windows in one step, over all processes."""
    seed: int

    @property
    def shares(self) -> list[float]:
        """Return each text's share of the rows."""
        return [weight / sum(self.weights) for weight in self.weights]

    @property
    def context(self) -> int:
        """Tokens of a window."""
        return self.windows[0].context

    def counts(self, block: int) -> NDArray[np.int64]:
        """Return how many rows each text has had before a block."""
        draw = _digest(self.seed, 0) / 2**64
        shares = np.cumsum([0.0, *self.shares])
        shares[-1] = 1.0
        return np.diff(np.floor(block * self.block_rows * shares + draw)).astype(np.int64)

    @property
    def block_rows(self) -> int:
        """Rows of a block: so many that no text's rows in one can come out below zero."""
        return max(1024, math.ceil(2 / min(self.shares)))

    def rows_of(self, step: int) -> list[tuple[int, int]]:
        """Return for each row of a step which text it is of and where its first target stands."""
        numbers = step * self.rows + np.arange(self.rows, dtype=np.int64)
        blocks, slots = np.divmod(numbers, self.block_rows)
        which, place = np.empty_like(numbers), np.empty_like(numbers)
        for block in np.unique(blocks).tolist():
            chosen = blocks == block
            texts, places = _rows_of_block(self, block)
            which[chosen], place[chosen] = texts[slots[chosen]], places[slots[chosen]]
        starts = np.empty_like(numbers)
        for text, windows in enumerate(self.windows):
            starts[which == text] = windows.places(place[which == text])
        return list(zip(which.tolist(), starts.tolist(), strict=True))


@lru_cache(maxsize=2)
def _rows_of_block(mixture: Mixture, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each row of a block its text and which of that text's windows it is."""
    before, after = mixture.counts(block), mixture.counts(block + 1)
    slots = np.arange(mixture.block_rows, dtype=np.int64)
    mixed = keyed_permutation(slots, mixture.block_rows, _digest(mixture.seed, 1 + block))
    texts = np.searchsorted(np.cumsum(after - before), mixed, side="right")
    places = np.empty_like(slots)
    for text, first in enumerate(before.tolist()):
        mine = texts == text
        places[mine] = first + np.arange(int(mine.sum()))  # in the order of time: epochs stay whole
    return texts, places


def _digest(key: int, number: int) -> int:
    text = f"{key}/{number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter the bits. Source: the finalizer of SplitMix64 (Steele, Lea & Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
