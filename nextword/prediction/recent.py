"""What has just been read: counting that also counts the row it reads.

A Kneser–Ney model knows what stood in the text it has counted. A reader knows, beside that, what
stood a few lines above: names, phrases and whole lines return soon after they came. So at each
place of a row, for contexts of 1, 2, … tokens in turn, what followed the same context earlier in
the row is mixed in:

    P_k(w) = (c(w) + d_k · u · P_{k−1}(w)) / (n + d_k · u)

where the context of k tokens came n times before, u different tokens followed, w c(w) times, and
P₀ is what the text's counts expect. The longest context has the last word. What comes seldom after
a context that came often is left the less (PPM's method C: Moffat 1990); that a model remembers
what was just said is the cache of Kuhn and De Mori 1990.

Legend of shapes: B rows, T positions, V vocabulary, P pairs of equal tokens in a row.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STRENGTHS = (16.0, 5.0, 4.0, 6.0)
"""d_k: how much what the counts expect outweighs what was just read, after 1, 2, … equal tokens.

Found on 10 and 100 kB of plays, manuals, verse and quotations by the likelihood of the text in
parts that counting had not seen: 11 to 22, 3 to 8, 3 to 6 and 4 to 8. Longer contexts added
nothing.
"""


class _Pairs(NamedTuple):
    """Places of a row, and earlier ones of it where the same tokens had just been read."""

    later: NDArray[np.int64]
    """(P,) in all rows one after the other."""
    earlier: NDArray[np.int64]


class Recent(NamedTuple):
    """What rows have shown before each of their places, to be mixed into other odds there."""

    left: NDArray[np.float32]
    """(N,): what the other odds are multiplied by."""
    added: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]
    """Places, entries, and what comes to the odds there: by the length of the context."""

    def add_to(self, odds: NDArray[np.float32], share: float = 1.0) -> None:
        """Add it, times a share, to odds (N, V) that have been multiplied already, in place."""
        for places, entries, amounts in self.added:
            odds[places, entries] += amounts if share == 1 else amounts * np.float32(share)


def recent_of(inputs: NDArray[np.int64], entries: int, end_id: int | None = None) -> Recent:
    """Count what each row has shown before its places.

    Args:
        inputs: (B, T), what is read there: the token before each that is expected.
        entries: V.
        end_id: end-of-text, which begins a document; None where rows are read across documents.
    """
    read = inputs.reshape(-1)
    matches = _matches(inputs, end_id, entries)
    return _mixed(((one.later, read[one.earlier + 1]) for one in matches), len(read), entries)


def recall(
    odds: NDArray[np.float32], inputs: NDArray[np.int64], end_id: int | None = None
) -> NDArray[np.float32]:
    """Mix what each row has shown before into what is expected of its places, in place.

    Args:
        odds: (B, T, V), P(next) by counts.
        inputs: (B, T), what is read there: the token before each that is expected.
        end_id: end-of-text, which begins a document; None where rows are read across documents.

    Returns:
        the odds.
    """
    rows, positions, entries = odds.shape
    _mix_in(odds.reshape(rows * positions, entries), recent_of(inputs, entries, end_id))
    return odds


def recall_last(
    odds: NDArray[np.float32], read: NDArray[np.int64], end_id: int | None = None
) -> NDArray[np.float32]:
    """Do the same at the rows' ends alone, in place.

    Args:
        odds: (B, V), P(next) by counts.
        read: (B, T), all that stands in each row.
        end_id: end-of-text, which begins a document; None where rows are read across documents.

    Returns:
        the odds.
    """
    _mix_in(odds, _mixed(_matches_of_last(read, end_id), *odds.shape))
    return odds


def _mix_in(odds: NDArray[np.float32], recent: Recent) -> None:
    odds *= recent.left[:, None]
    recent.add_to(odds)


def _mixed(
    came: Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]], places: int, entries: int
) -> Recent:
    """Mix what came after the same contexts, the longest last: a place and a token each time.

    All lengths are multiplied together before any odds are, which are many.
    """
    recent = Recent(np.ones(places, dtype=np.float32), [])
    for (rows, tokens), strength in zip(came, STRENGTHS, strict=False):
        found, counts = np.unique(rows * entries + tokens, return_counts=True)
        where, what = np.divmod(found, entries)
        times = np.bincount(where, weights=counts, minlength=places)
        outweighs = strength * np.bincount(where, minlength=places)
        whole = np.where(outweighs > 0, times + outweighs, 1.0)
        left = np.where(outweighs > 0, outweighs / whole, 1.0).astype(np.float32)
        recent.left[:] *= left
        for before, _, amounts in recent.added:
            amounts *= left[before]
        recent.added.append((where, what, (counts / whole[where]).astype(np.float32)))
    return recent


def _matches_of_last(
    read: NDArray[np.int64], end_id: int | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield rows, and what came in them after what they end with: one token of it, then two."""
    last = read.shape[1] - 1
    same = read[:, :last] == read[:, last:]
    if end_id is not None:
        ends = np.where(read == end_id, np.arange(last + 1), 0)
        same &= np.arange(last) >= ends.max(axis=1)[:, None]
    rows, places = np.nonzero(same)
    back = 0
    while len(rows):
        yield rows, read[rows, places + 1]
        back += 1
        # What lies before its document's first token is another's last: never the same.
        alike = (places >= back) & (read[rows, places - back] == read[rows, last - back])
        rows, places = rows[alike], places[alike]


def _matches(inputs: NDArray[np.int64], end_id: int | None, entries: int) -> Iterator[_Pairs]:
    """Yield pairs of places of a row before which one token is the same, then two, and so on."""
    rows, positions = inputs.shape
    text = np.repeat(np.arange(rows), positions)
    read = inputs.reshape(-1)
    if end_id is not None:  # numbers that rise from row to row and from document to document
        text = np.cumsum((read == end_id) | (np.arange(len(read)) % positions == 0))
    order = np.argsort(text * entries + read, kind="stable")
    kept = (text * entries + read)[order]
    begins = np.searchsorted(kept, kept)
    before = np.arange(len(kept)) - begins  # of each, how many like it stand earlier
    within = np.arange(int(before.sum())) - np.repeat(np.cumsum(before) - before, before)
    pairs = _Pairs(np.repeat(order, before), order[np.repeat(begins, before) + within])
    back = 0
    while len(pairs.later):
        yield pairs
        back += 1
        later, earlier = pairs.later - back, pairs.earlier - back
        same = (pairs.earlier % positions >= back) & (read[later] == read[earlier])
        pairs = _Pairs(pairs.later[same], pairs.earlier[same])
