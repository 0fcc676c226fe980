"""Which windows of text the model sees at which step.

A pure function of (seed, step), with no state to save.

An epoch divides the token stream into windows of T tokens, starting at an offset of its own and
going round the end, and visits them in the order of a keyed permutation: none twice, none stored.
Because row r of step s is computed from the seed alone, any number of processes, any restart and
any accumulation sees the same rows.
"""

import hashlib
from dataclasses import dataclass

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
        number = step * self.rows + np.arange(self.rows, dtype=np.int64)
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

    def epoch(self, step: int) -> float:
        """Return how often the text has been read before this step."""
        return step * self.rows / self.per_epoch


def _digest(key: int, number: int) -> int:
    text = f"{key}/{number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter the bits. Source: the finalizer of SplitMix64 (Steele, Lea & Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
