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
    flat, read = odds.reshape(rows * positions, entries), inputs.reshape(-1)
    for pairs, strength in zip(_matches(inputs, end_id, entries), STRENGTHS, strict=False):
        _mix_in(flat, pairs.later, read[pairs.earlier + 1], strength)
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
    last = read.shape[1] - 1
    same = read[:, :last] == read[:, last:]
    if end_id is not None:
        ends = np.where(read == end_id, np.arange(last + 1), 0)
        same &= np.arange(last) >= ends.max(axis=1)[:, None]
    rows, places = np.nonzero(same)
    for back, strength in enumerate(STRENGTHS):
        if back:
            # What lies before its document's first token is another's last: never the same.
            alike = (places >= back) & (read[rows, places - back] == read[rows, last - back])
            rows, places = rows[alike], places[alike]
        if not len(rows):
            break
        _mix_in(odds, rows, read[rows, places + 1], strength)
    return odds


def _mix_in(
    odds: NDArray[np.float32], rows: NDArray[np.int64], came: NDArray[np.int64], strength: float
) -> None:
    """Mix into rows of odds (N, V) what came after the same context: one row and token a time."""
    found, counts = np.unique(rows * odds.shape[1] + came, return_counts=True)
    places, came = np.divmod(found, odds.shape[1])
    times = np.bincount(places, weights=counts, minlength=len(odds))
    left = strength * np.bincount(places, minlength=len(odds))
    whole = np.where(left > 0, times + left, 1.0)
    odds *= np.where(left > 0, left / whole, 1.0).astype(np.float32)[:, None]
    odds[places, came] += (counts / whole[places]).astype(np.float32)


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
