"""Train/validation contamination: near duplicates by MinHash, in bounded memory.

Compared are units (shingles.py): documents, or passages of long ones. Of the hold-out, which is
small, documents are compared both whole and in passages: so a copy is found inside a longer
text, and also where it grew past the length that is cut. A short document quoted inside a long one
is not found; its shingles are few among the unit's.

Hold-out units stand in an index of banded MinHash signatures (rensa computes them); training units
stream past it. A pair that meets in the index is compared exactly before it counts.

Source: Broder 1997, On the resemblance and containment of documents; banding as in Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, section 3.4.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextword.vocabulary.deduplication import merge_ranges
from nextword.vocabulary.shards import TokenStream
from nextword.vocabulary.shingles import (
    BLOCK_TOKENS,
    Block,
    Hashes,
    Ranges,
    Scale,
    cut_units,
    derive,
    lay_out,
    mix,
)

SIMILAR = 0.7
"""Jaccard similarity of the shingle sets from which a unit counts as a near duplicate."""
ROWS, BANDS = 5, 25
"""Found with probability 1 − (1 − J⁵)²⁵: 99.0 % at J = 0.7, 99.99 % at 0.8; 6 % at 0.3."""
PERMUTATIONS = 128  # a power of two, which rensa computes fastest; 125 are used in bands
ESTIMATE_SLACK = 0.1  # three standard deviations of a similarity estimated from 128 values
MOST_HOLDOUT_UNITS = 200_000  # 0.2 GB of index; a hold-out of a million tokens has 5,000
MOST_PAIRS = 50_000  # looked at in a block: bounds time where all texts share one template
MOST_REFUSED = 8  # exact comparisons in vain, after which a training unit is let go
FEWEST_SHINGLES = 8  # different ones: a run of blank lines is no copy of another


@dataclass(frozen=True)
class Example:
    """A hold-out unit and a training unit that repeats it, as [start, stop) token positions."""

    holdout: tuple[int, int]
    train: tuple[int, int]
    similarity: float


@dataclass(frozen=True)
class Leaks:
    """What of the hold-out stands, nearly or exactly, in training."""

    train_units: int
    holdout_units: int
    """Units compared, whole documents and passages; those too short are not among them."""
    holdout_tokens: int
    """Tokens in them, each counted once."""
    leaked_units: int
    """Hold-out units with a near duplicate in training."""
    leaked_tokens: int
    estimated: bool
    """Whether only a sample of a very large hold-out was compared."""
    examples: list[Example]
    """At most three, the longest first."""
    holdout_ranges: Ranges
    """(k, 2): where in the hold-out the leaked units stand, merged and sorted."""
    train_ranges: Ranges
    """(k, 2): the training units that repeat a hold-out unit, merged and sorted."""

    @property
    def share(self) -> float:
        """Share of the compared hold-out tokens."""
        return self.leaked_tokens / self.holdout_tokens if self.holdout_tokens else 0.0


def find_leaks(
    train: TokenStream,
    holdout: TokenStream,
    bytes_per_token: float,
    seed: int = 0,
    most_units: int = MOST_HOLDOUT_UNITS,
) -> Leaks | None:
    """Find the hold-out texts that training repeats.

    Args:
        train: read once, in blocks.
        holdout: of the same vocabulary.
        bytes_per_token: bytes of raw text a token spells, on average; sets the lengths.
        seed: of the hashes, and of the sample.
        most_units: hold-out units kept in memory; of more, a sample is compared.

    Returns:
        what was found; None if the package `rensa` is not installed.
    """
    try:
        import rensa  # noqa: F401
    except ImportError:
        return None
    scale = Scale.of(bytes_per_token)
    index = _index_holdout(holdout, scale, seed, most_units)
    search = _Search(index, _holdout_sets(holdout, index, scale, seed))
    train_units = 0
    for block in cut_units(train, scale, scale.most, seed):
        train_units += len(block.ranges)
        search.compare(block, compute_signatures(block, seed))
    leaked = merge_ranges(index.ranges[sorted(search.partners)])
    return Leaks(
        train_units=train_units,
        holdout_units=len(index.ranges),
        holdout_tokens=_count_tokens(index.ranges),
        leaked_units=len(search.partners),
        leaked_tokens=_count_tokens(leaked),
        estimated=index.is_sample,
        examples=_choose_examples(list(search.partners.values())),
        holdout_ranges=leaked,
        train_ranges=merge_ranges(np.concatenate(search.repeats)),
    )


class _Index(NamedTuple):
    """The hold-out units, found by any band of their signatures."""

    ranges: Ranges
    signatures: NDArray[np.uint32]
    keys: Hashes
    """Sorted, BANDS of each unit."""
    owners: NDArray[np.int64]
    """The unit that each key belongs to."""
    is_sample: bool


def _index_holdout(holdout: TokenStream, scale: Scale, seed: int, most_units: int) -> _Index:
    """Take documents whole, up to twice the length of training's units, and all in passages."""
    parts = [(np.empty((0, 2), np.int64), np.empty((0, PERMUTATIONS), np.uint32))]
    most = most_units + 1  # one too many tells that there are too many
    highest = np.uint64((1 << 64) - 1)  # units of the lowest lots are kept: a repeatable sample
    blocks = (
        block
        for whole_upto in (2 * scale.most, 0)
        for block in cut_units(holdout, scale, whole_upto, seed)
    )
    for block in blocks:
        kept = _draw_lots(block.ranges, seed) <= highest
        parts.append((block.ranges[kept], compute_signatures(block, seed)[kept]))
        if sum(len(part[0]) for part in parts) > 1.25 * most:
            parts = [_merge_parts(parts, seed, most)]
            if len(parts[0][0]) == most:
                highest = _draw_lots(parts[0][0], seed).max()
    parts = [_merge_parts(parts, seed, most)]
    is_sample = len(parts[0][0]) > most_units
    ranges, signatures = _merge_parts(parts, seed, most_units)
    keys = _band_keys(signatures).ravel()
    order = np.argsort(keys, kind="stable")
    return _Index(ranges, signatures, keys[order], order // BANDS, is_sample)


def _draw_lots(ranges: Ranges, seed: int) -> Hashes:
    start, stop = ranges.astype(np.uint64).T
    return mix(mix(start + np.uint64(derive(seed))) + stop)


def _merge_parts(
    parts: list[tuple[Ranges, NDArray[np.uint32]]], seed: int, most_units: int
) -> tuple[Ranges, NDArray[np.uint32]]:
    """Keep every unit once (many are the same whole and cut), and of too many the lowest lots."""
    ranges = np.concatenate([part[0] for part in parts])
    signatures = np.concatenate([part[1] for part in parts])
    _, chosen = np.unique(ranges, axis=0, return_index=True)
    if len(chosen) > most_units:
        lots = _draw_lots(ranges[chosen], seed)
        chosen = chosen[np.sort(np.argpartition(lots, most_units)[:most_units])]
    return ranges[chosen], signatures[chosen]


def compute_signatures(block: Block, seed: int) -> NDArray[np.uint32]:
    """Return the MinHash signatures of a block's units, a row each."""
    import rensa

    if not len(block.ranges):
        return np.empty((0, PERMUTATIONS), np.uint32)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        block.shingles, block.offsets, PERMUTATIONS, seed
    )
    return np.array(matrix.to_rows(), dtype=np.uint32)


def _band_keys(signatures: NDArray[np.uint32]) -> Hashes:
    """Return a key for each band of each signature: two that agree in all rows of a band meet."""
    keys = np.arange(BANDS, dtype=np.uint64)[None].repeat(len(signatures), axis=0)
    for row in range(ROWS):
        keys = mix(keys + signatures[:, row : row + ROWS * BANDS : ROWS])
    return keys


class _Search:
    """Training units on their way past the index, and what was found so far."""

    def __init__(self, index: _Index, holdout_set: Callable[[int], Hashes]) -> None:
        self.index = index
        self.holdout_set = holdout_set
        self.partners: dict[int, Example] = {}
        """Of each leaked hold-out unit, the first near duplicate found."""
        self.repeats: list[Ranges] = [np.empty((0, 2), np.int64)]
        """Training units that repeat a hold-out unit."""

    def compare(self, block: Block, signatures: NDArray[np.uint32]) -> None:
        """Note which units of a block are near duplicates of which hold-out units."""
        units, holdouts = self._meet(signatures)
        estimates = np.empty(len(units))
        for start in range(0, len(units), 8192):
            some = slice(start, start + 8192)
            equal = signatures[units[some]] == self.index.signatures[holdouts[some]]
            estimates[some] = equal.mean(axis=1)
        likely = np.flatnonzero(estimates >= SIMILAR - ESTIMATE_SLACK)
        likely = likely[np.argsort(-estimates[likely], kind="stable")]
        unit_set = lru_cache(256)(lambda unit: np.unique(block.shingles_of(unit)))
        matched: set[int] = set()
        refused: Counter[int] = Counter()
        for unit, holdout in zip(units[likely].tolist(), holdouts[likely].tolist(), strict=True):
            is_known = unit in matched and holdout in self.partners
            if is_known or refused[unit] >= MOST_REFUSED:
                continue
            similarity = jaccard(unit_set(unit), self.holdout_set(holdout))
            if similarity < SIMILAR:
                refused[unit] += 1
                continue
            matched.add(unit)
            if holdout not in self.partners:
                here, there = block.ranges[unit].tolist(), self.index.ranges[holdout].tolist()
                self.partners[holdout] = Example(tuple(there), tuple(here), similarity)
        self.repeats.append(block.ranges[sorted(matched)])

    def _meet(self, signatures: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pairs (unit, hold-out unit) that agree in a band, each once."""
        keys = _band_keys(signatures).ravel()
        low = np.searchsorted(self.index.keys, keys, side="left")
        found = np.flatnonzero(low < len(self.index.keys))
        found = found[self.index.keys[low[found]] == keys[found]]
        low = low[found]
        counts = np.searchsorted(self.index.keys, keys[found], side="right") - low
        most = MOST_PAIRS
        while np.minimum(counts, most).sum() > MOST_PAIRS and most > 1:
            most //= 2
        taken = np.minimum(counts, most)
        # Of a crowded bucket another part is looked at each time.
        turn = (keys[found] ^ np.arange(len(found), dtype=np.uint64)) % counts.astype(np.uint64)
        step = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
        counts, turn = np.repeat(counts, taken), np.repeat(turn.astype(np.int64), taken)
        holdouts = self.index.owners[np.repeat(low, taken) + (turn + step) % counts]
        size = len(self.index.ranges)
        pairs = np.sort(np.repeat(found // BANDS, taken) * size + holdouts)
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        return pairs // max(size, 1), pairs % max(size, 1)


def jaccard(first: Hashes, second: Hashes) -> float:
    """Return |A ∩ B| / |A ∪ B| of two sorted sets; 0 if one is too uniform to mean anything."""
    if min(len(first), len(second)) < FEWEST_SHINGLES:
        return 0.0
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)


def _holdout_sets(
    holdout: TokenStream, index: _Index, scale: Scale, seed: int
) -> Callable[[int], Hashes]:
    """Return a reader of hold-out units' shingle sets, which would all take too much memory."""

    @lru_cache(4096)
    def read(unit: int) -> Hashes:
        start, stop = index.ranges[unit].tolist()
        tokens = holdout.read(start, stop)
        whole = np.array([[0, len(tokens)]])
        return np.unique(lay_out(whole, tokens, 0, holdout.end_id, scale, seed).shingles)

    return read


def _count_tokens(ranges: Ranges) -> int:
    """Count what ranges cover, once."""
    merged = merge_ranges(ranges)
    return int((merged[:, 1] - merged[:, 0]).sum())


def _choose_examples(found: list[Example]) -> list[Example]:
    """Choose three that do not overlap, the longest first."""
    chosen: list[Example] = []
    for example in sorted(found, key=lambda each: each.holdout[0] - each.holdout[1]):
        start, stop = example.holdout
        if all(stop <= other.holdout[0] or start >= other.holdout[1] for other in chosen):
            chosen.append(example)
        if len(chosen) == 3:
            break
    return chosen


def exact_repeats(train: TokenStream, most: int = 1_000_000) -> Ranges:
    """Return the token ranges of documents that repeat an earlier one exactly, merged.

    Args:
        train: read once.
        most: documents remembered; later new ones are compared with these only.
    """
    seen: set[bytes] = set()
    repeats: list[tuple[int, int]] = []
    starts = np.concatenate([[0], train.document_ends])[:-1]
    position, tokens = 0, train.read(0, BLOCK_TOKENS)
    for start, stop in zip(starts.tolist(), train.document_ends.tolist(), strict=True):
        if stop > position + len(tokens):
            position, tokens = start, train.read(start, start + BLOCK_TOKENS)
        digest = hashlib.blake2b(tokens[start - position : stop - position].data, digest_size=16)
        for more in range(position + len(tokens), stop, BLOCK_TOKENS):
            digest.update(train.read(more, min(stop, more + BLOCK_TOKENS)).data)
        content = digest.digest()
        if content in seen:
            repeats.append((start, stop))
        elif len(seen) < most:
            seen.add(content)
    return merge_ranges(np.array(repeats, dtype=np.int64).reshape(-1, 2))
